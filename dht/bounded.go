package dht

import (
	"context"
	"encoding/base32"
	"errors"
	"strings"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// errBounded: others have filled what we keep for them.
var errBounded = errors.New("dht store is full")

// bounded is a map that takes no new keys when it is full, or when their owner
// has its share: what members ask us to remember can't grow without end, and
// none can fill it alone.
type bounded struct {
	mu    sync.RWMutex
	m     *ds.MapDatastore
	n     int
	max   int
	owner func(ds.Key) string // of a key; nil: there are no shares
	share int
	of    map[string]int // keys by owner
	// silent drops what does not fit without an error: the provider manager
	// would keep a batch of which one row fails, and so lose everybody's.
	silent bool
}

var _ ds.Batching = (*bounded)(nil)

func newBounded(max int) *bounded {
	return &bounded{m: ds.NewMapDatastore(), max: max, share: max, of: map[string]int{}, owner: func(ds.Key) string { return "" }}
}

// newProviders keeps provider rows. Their keys end in the provider, who alone
// can make them.
func newProviders(max, share int) *bounded {
	b := newBounded(max)
	b.share, b.owner, b.silent = share, func(k ds.Key) string { return k.BaseNamespace() }, true
	return b
}

var noPad = base32.StdEncoding.WithPadding(base32.NoPadding)

// newValues keeps mesh records. Their keys end in the signer.
func newValues(max, share int) *bounded {
	b := newBounded(max)
	b.share, b.owner = share, func(k ds.Key) string {
		raw, err := noPad.DecodeString(k.BaseNamespace())
		if err != nil {
			return ""
		}
		parts := strings.SplitN(string(raw), "/", 4) // "", namespace, name, signer, whose bytes may hold slashes
		return parts[len(parts)-1]
	}
	return b
}

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
		owner := b.owner(k)
		if b.n >= b.max || b.of[owner] >= b.share {
			if b.silent {
				return nil
			}
			return errBounded
		}
		b.n++
		b.of[owner]++
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
		owner := b.owner(k)
		if b.of[owner]--; b.of[owner] == 0 {
			delete(b.of, owner)
		}
	}
	return b.m.Delete(ctx, k)
}

func (b *bounded) Sync(context.Context, ds.Key) error { return nil }

func (b *bounded) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(b), nil }

func (b *bounded) Close() error { return nil }
