package dht

import (
	"context"
	"errors"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// errBounded: others have filled what we keep for them.
var errBounded = errors.New("dht store is full")

// bounded is a map that refuses new keys when it is full: what members ask us
// to remember can't grow without end.
type bounded struct {
	mu  sync.RWMutex
	m   *ds.MapDatastore
	n   int
	max int
}

var _ ds.Batching = (*bounded)(nil)

func newBounded(max int) *bounded { return &bounded{m: ds.NewMapDatastore(), max: max} }

func (b *bounded) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.m.Get(ctx, k)
}

func (b *bounded) Has(ctx context.Context, k ds.Key) (bool, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.m.Has(ctx, k)
}

func (b *bounded) GetSize(ctx context.Context, k ds.Key) (int, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.m.GetSize(ctx, k)
}

func (b *bounded) Query(ctx context.Context, q query.Query) (query.Results, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.m.Query(ctx, q)
}

func (b *bounded) Put(ctx context.Context, k ds.Key, v []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	has, err := b.m.Has(ctx, k)
	if err != nil {
		return err
	}
	if !has {
		if b.n >= b.max {
			return errBounded
		}
		b.n++
	}
	return b.m.Put(ctx, k, v)
}

func (b *bounded) Delete(ctx context.Context, k ds.Key) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	has, err := b.m.Has(ctx, k)
	if err != nil {
		return err
	}
	if has {
		b.n--
	}
	return b.m.Delete(ctx, k)
}

func (b *bounded) Sync(context.Context, ds.Key) error { return nil }

func (b *bounded) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(b), nil }

func (b *bounded) Close() error { return nil }
