package storage

import (
	"context"
	"fmt"

	"github.com/ipfs/boxo/verifcid"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// MaxBlock is the largest block that is stored, served or fetched, in bytes.
const MaxBlock = 2 << 20

// key is a block's multihash: CIDs that differ only in codec share a block.
type key string

func keyOf(c cid.Cid) key { return key(c.Hash()) }

// blocks keeps bytes under their multihash. It neither hashes nor counts:
// Store does. Implementations are safe for concurrent use, except that the
// caller never deletes a key while it is being put.
type blocks interface {
	// get returns the bytes, in buf if it has room for them; ErrNotFound when
	// absent. With check, they are compared with a checksum taken at put, and
	// ErrCorrupt says that they differ.
	get(ctx context.Context, k key, buf []byte, check bool) ([]byte, error)
	size(ctx context.Context, k key) (int, error) // ErrNotFound when absent
	// batch begins puts that become readable and durable at commit, which shares
	// its flush with others. End it by commit or discard.
	batch() batch
	// delete forgets a block, until a crash brings it back or compact has run.
	delete(ctx context.Context, k key) error
	// each calls f for every key until f fails.
	each(ctx context.Context, f func(k key) error) error
	// compact gives the disk back what deleted blocks took.
	compact(ctx context.Context) error
	used() int64 // bytes
	close() error
}

type batch interface {
	put(k key, data []byte) error // data is not kept
	commit() error
	discard()
}

// CheckCID refuses a CID whose hash or codec the store can't handle.
func CheckCID(c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("an empty CID: %w", ErrNode)
	}
	if err := verifcid.ValidateCid(verifcid.DefaultAllowlist, c); err != nil {
		return fmt.Errorf("cid %s: %w: %w", c, err, ErrNode)
	}
	if c.Prefix().MhType == mh.SHA1 { // two contents for one CID can be bought
		return fmt.Errorf("cid %s uses SHA-1: add the data again with SHA-256: %w", c, ErrNode)
	}
	switch c.Prefix().Codec {
	case cid.Raw, cid.DagProtobuf:
		return nil
	}
	return fmt.Errorf("cid %s has codec 0x%x; raw and dag-pb are stored: %w", c, c.Prefix().Codec, ErrNode)
}

// Verify reports whether data hashes to c.
func Verify(c cid.Cid, data []byte) error {
	if len(data) > MaxBlock {
		return fmt.Errorf("block %s has %d bytes, at most %d are stored: %w", c, len(data), MaxBlock, ErrNode)
	}
	if err := CheckCID(c); err != nil {
		return err
	}
	got, err := c.Prefix().Sum(data)
	if err != nil {
		return fmt.Errorf("hash block %s: %w", c, err)
	}
	if !got.Equals(c) {
		return fmt.Errorf("block %s: %w", c, ErrCorrupt)
	}
	return nil
}

// identity returns the bytes that an identity CID carries in itself.
func identity(c cid.Cid) ([]byte, bool) {
	if c.Prefix().MhType != mh.IDENTITY {
		return nil, false
	}
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return nil, false
	}
	return d.Digest, true
}

func newBlock(c cid.Cid, data []byte) (blockformat.Block, error) {
	return blockformat.NewBlockWithCid(data, c)
}
