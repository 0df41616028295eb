package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	flatfs "github.com/ipfs/go-ds-flatfs"
	mh "github.com/multiformats/go-multihash"
)

// flatBlocks keeps one file a block in Kubo's flatfs layout, synced.
type flatBlocks struct {
	ds    *flatfs.Datastore
	dirty string // a file that exists while the store is open
}

// openFlat opens or makes dir/blocks. Half-written files of a killed process
// are removed by flatfs; its cached size is too old after a crash, so it is
// counted again.
func openFlat(dir string) (*flatBlocks, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's folder: %w", err)
	}
	root := filepath.Join(dir, "blocks")
	dirty := filepath.Join(dir, "blocks.open")
	if _, err := os.Stat(dirty); err == nil {
		err := os.Remove(filepath.Join(root, flatfs.DiskUsageFile))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove the old size of %s: %w", root, err)
		}
	}
	if err := ensureLayout(root); err != nil {
		return nil, err
	}
	if err := os.WriteFile(dirty, nil, 0o600); err != nil {
		return nil, fmt.Errorf("mark the store open: %w", err)
	}
	ds, err := flatfs.Open(root, true)
	if err != nil {
		return nil, fmt.Errorf("open block store %s: %w", root, err)
	}
	return &flatBlocks{ds: ds, dirty: dirty}, nil
}

// ensureLayout makes root and its SHARDING file, which says how keys become
// paths. Flatfs writes that file without syncing it; losing it would lock the
// store, so it is written first, whole, and again when it can't be read.
func ensureLayout(root string) error {
	if err := os.MkdirAll(filepath.Join(root, ".temp"), 0o700); err != nil {
		return fmt.Errorf("make the block store's folder: %w", err)
	}
	if f, err := flatfs.ReadShardFunc(root); err == nil {
		if f.String() != flatfs.IPFS_DEF_SHARD_STR {
			return fmt.Errorf("block store %s is sharded as %s, want %s: give another folder", root, f, flatfs.IPFS_DEF_SHARD_STR)
		}
		return nil
	}
	tmp := filepath.Join(root, ".temp", flatfs.SHARDING_FN)
	f, err := os.Create(tmp)
	if err != nil {
		return fmt.Errorf("make the block store: %w", err)
	}
	_, err = f.WriteString(flatfs.IPFS_DEF_SHARD_STR + "\n")
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(tmp, filepath.Join(root, flatfs.SHARDING_FN))); err != nil {
		return fmt.Errorf("make the block store: %w", err)
	}
	return nil
}

func dsKey(k key) datastore.Key { return dshelp.MultihashToDsKey(mh.Multihash(k)) }

func fsErr(err error) error {
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, flatfs.ErrClosed):
		return ErrClosed
	}
	return err
}

func (b *flatBlocks) get(ctx context.Context, k key) ([]byte, error) {
	d, err := b.ds.Get(ctx, dsKey(k))
	return d, fsErr(err)
}

func (b *flatBlocks) size(ctx context.Context, k key) (int, error) {
	n, err := b.ds.GetSize(ctx, dsKey(k))
	return n, fsErr(err)
}

func (b *flatBlocks) put(ctx context.Context, k key, data []byte) error {
	return fsErr(b.ds.Put(ctx, dsKey(k), data))
}

func (b *flatBlocks) delete(ctx context.Context, k key) error {
	return fsErr(b.ds.Delete(ctx, dsKey(k)))
}

func (b *flatBlocks) each(ctx context.Context, f func(key) error) error {
	res, err := b.ds.Query(ctx, query.Query{KeysOnly: true})
	if err != nil {
		return fmt.Errorf("list blocks: %w", fsErr(err))
	}
	defer res.Close()
	for r := range res.Next() {
		if r.Error != nil {
			return fmt.Errorf("list blocks: %w", r.Error)
		}
		m, err := dshelp.DsKeyToMultihash(datastore.RawKey(r.Key))
		if err != nil {
			continue // a file that is not ours is not ours to remove
		}
		if err := f(key(m)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *flatBlocks) used(ctx context.Context) (int64, error) {
	n, err := b.ds.DiskUsage(ctx)
	return int64(n), fsErr(err)
}

func (b *flatBlocks) close() error {
	if err := b.ds.Close(); err != nil {
		return fmt.Errorf("close block store: %w", err)
	}
	return os.Remove(b.dirty)
}

func (b *flatBlocks) batch(ctx context.Context) (batch, error) {
	ba, err := b.ds.Batch(ctx)
	if err != nil {
		return nil, fsErr(err)
	}
	return flatBatch{ba}, nil
}

type flatBatch struct{ b datastore.Batch }

func (b flatBatch) put(ctx context.Context, k key, data []byte) error {
	return fsErr(b.b.Put(ctx, dsKey(k), data))
}

func (b flatBatch) commit(ctx context.Context) error { return fsErr(b.b.Commit(ctx)) }

func (b flatBatch) discard(ctx context.Context) error {
	if d, ok := b.b.(flatfs.DiscardableBatch); ok {
		return d.Discard(ctx)
	}
	return nil
}
