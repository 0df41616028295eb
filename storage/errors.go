package storage

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

var (
	// ErrNotFound: the block, path or root is not here; fetch it, or check the name.
	ErrNotFound = errors.New("not in the store")
	// ErrNoPath: the folder is here and has no such name. It is an ErrNotFound that
	// no fetching heals.
	ErrNoPath = fmt.Errorf("no such path: %w", ErrNotFound)
	// ErrCorrupt: bytes do not hash to their CID, or the disk can't read them. They
	// are never returned.
	ErrCorrupt = errors.New("bytes do not match the CID")
	// ErrFull: the write would pass the store's limit or fill the disk.
	ErrFull = errors.New("store is full")
	// ErrSpan: an offset or length outside the file.
	ErrSpan = errors.New("span is outside the file")
	// ErrNode: a node breaks UnixFS's rules or this store's bounds.
	ErrNode = errors.New("not a usable UnixFS node")
	// ErrIsDir and ErrNotDir: the path names the other kind.
	ErrIsDir  = errors.New("is a folder")
	ErrNotDir = errors.New("is not a folder")
	// ErrEscape: a name would be written outside the destination.
	ErrEscape = errors.New("name leaves the destination")
	// ErrIncomplete: part of the data is not here; fetch it first.
	ErrIncomplete = errors.New("data is not complete here")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
)

// IsFull says of a failed write, of whomever, that it failed for lack of room:
// SQLite has a code for that (its FULL), the system several.
func IsFull(err error) bool {
	var sqlite interface{ Code() int }
	return errors.Is(err, ErrFull) || diskFull(err) || errors.As(err, &sqlite) && sqlite.Code()&0xff == 13
}

// asFull makes it an ErrFull.
func asFull(err error) error {
	if IsFull(err) && !errors.Is(err, ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func notFound(c cid.Cid) error { return fmt.Errorf("block %s: %w", c, ErrNotFound) }
