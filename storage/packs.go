package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/kith-mesh/kith/storage/internal/pack"
)

// packBlocks keeps blocks in packs, in dir/packs.
type packBlocks struct{ p *pack.Store }

func openPacks(ctx context.Context, dir string, log *slog.Logger) (*packBlocks, error) {
	p, err := pack.Open(filepath.Join(dir, "packs"), pack.Options{Log: log, Most: MaxBlock, Sure: hashes})
	if err != nil {
		return nil, fmt.Errorf("open block store: %w", err)
	}
	b := &packBlocks{p}
	if err := b.moveIn(ctx, filepath.Join(dir, "blocks"), log); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return b, nil
}

// hashes reports whether data is the block of that key.
func hashes(k string, data []byte) bool {
	h, err := mh.Cast([]byte(k))
	return err == nil && Verify(cid.NewCidV1(cid.Raw, h), data) == nil
}

func packErr(err error) error {
	switch {
	case errors.Is(err, pack.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, pack.ErrDamaged):
		return ErrCorrupt
	case errors.Is(err, pack.ErrClosed):
		return ErrClosed
	}
	return err
}

func (b *packBlocks) get(_ context.Context, k key, buf []byte, check bool) ([]byte, error) {
	d, err := b.p.Get(string(k), buf, check)
	return d, packErr(err)
}

func (b *packBlocks) size(_ context.Context, k key) (int, error) {
	n, err := b.p.Size(string(k))
	return n, packErr(err)
}

func (b *packBlocks) delete(_ context.Context, k key) error { return packErr(b.p.Delete(string(k))) }

func (b *packBlocks) each(ctx context.Context, f func(key) error) error {
	err := b.p.Each(func(k string) error { return errors.Join(ctx.Err(), f(key(k))) })
	return packErr(err)
}

func (b *packBlocks) compact(ctx context.Context) error { return packErr(b.p.Compact(ctx)) }

func (b *packBlocks) used() int64 { return b.p.Used() }

func (b *packBlocks) close() error { return b.p.Close() }

func (b *packBlocks) batch() batch { return packBatch{b.p.Batch()} }

type packBatch struct{ b *pack.Batch }

func (b packBatch) put(k key, data []byte) error { return packErr(b.b.Put(string(k), data)) }
func (b packBatch) commit() error                { return packErr(b.b.Commit()) }
func (b packBatch) discard()                     { b.b.Discard() }
