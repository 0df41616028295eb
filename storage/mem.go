package storage

import (
	"bytes"
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

func (b *memBlocks) get(_ context.Context, k key, _ []byte, _ bool) ([]byte, error) {
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

func (b *memBlocks) used() int64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.bytes
}

func (b *memBlocks) compact(context.Context) error { return nil }

func (b *memBlocks) close() error { return nil }

func (b *memBlocks) batch() batch { return &memBatch{to: b} }

type memBatch struct {
	to   *memBlocks
	keys []key
	data [][]byte
}

func (b *memBatch) put(k key, data []byte) error {
	b.keys, b.data = append(b.keys, k), append(b.data, bytes.Clone(data))
	b.to.mu.Lock()
	b.to.bytes += int64(len(data))
	b.to.mu.Unlock()
	return nil
}

func (b *memBatch) commit() error {
	m := b.to
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, k := range b.keys {
		m.bytes -= int64(len(m.m[k]))
		m.m[k] = b.data[i]
	}
	b.keys, b.data = nil, nil
	return nil
}

func (b *memBatch) discard() {
	b.to.mu.Lock()
	defer b.to.mu.Unlock()
	for _, d := range b.data {
		b.to.bytes -= int64(len(d))
	}
	b.keys, b.data = nil, nil
}
