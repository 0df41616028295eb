package storage

import (
	"context"
	"sync"
)

// memBlocks keeps blocks in memory: for simulation, where files would cost
// real time, and for tests.
type memBlocks struct {
	mu    sync.RWMutex
	m     map[key][]byte
	bytes int64
}

func newMem() *memBlocks { return &memBlocks{m: map[key][]byte{}} }

func (b *memBlocks) get(_ context.Context, k key) ([]byte, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	d, ok := b.m[k]
	if !ok {
		return nil, ErrNotFound
	}
	return d, nil
}

func (b *memBlocks) size(_ context.Context, k key) (int, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	d, ok := b.m[k]
	if !ok {
		return 0, ErrNotFound
	}
	return len(d), nil
}

func (b *memBlocks) put(_ context.Context, k key, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += int64(len(data) - len(b.m[k]))
	b.m[k] = data
	return nil
}

func (b *memBlocks) delete(_ context.Context, k key) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d, ok := b.m[k]; ok {
		b.bytes -= int64(len(d))
		delete(b.m, k)
	}
	return nil
}

func (b *memBlocks) each(ctx context.Context, f func(key) error) error {
	b.mu.RLock()
	keys := make([]key, 0, len(b.m))
	for k := range b.m {
		keys = append(keys, k)
	}
	b.mu.RUnlock()
	for _, k := range keys {
		if err := f(k); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *memBlocks) used(context.Context) (int64, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.bytes, nil
}

func (b *memBlocks) close() error { return nil }

func (b *memBlocks) batch(context.Context) (batch, error) { return &memBatch{to: b}, nil }

type memBatch struct {
	to   *memBlocks
	keys []key
	data [][]byte
}

func (b *memBatch) put(_ context.Context, k key, data []byte) error {
	b.keys, b.data = append(b.keys, k), append(b.data, data)
	return nil
}

func (b *memBatch) commit(ctx context.Context) error {
	for i, k := range b.keys {
		if err := b.to.put(ctx, k, b.data[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *memBatch) discard(context.Context) error {
	b.keys, b.data = nil, nil
	return nil
}
