package storage

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

var (
	// ErrNotFound: the block, path or root is not here; fetch it, or check the name.
	ErrNotFound = errors.New("not in the store")
	// ErrCorrupt: bytes do not hash to their CID. They are never returned.
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

func notFound(c cid.Cid) error { return fmt.Errorf("block %s: %w", c, ErrNotFound) }
