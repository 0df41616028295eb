package runner

import (
	"fmt"

	"github.com/tetratelabs/wazero/experimental"
)

// memory gives a program its linear memory and remembers what it was refused.
// It reserves address space once, so growing never copies.
type memory struct {
	limit   int64
	peak    int64
	refused int64 // the size that was too much; 0: none was
	err     error // the host's failure
	given   []*linear
}

// release frees what an instance that never came to be has left.
func (m *memory) release() {
	for _, l := range m.given {
		l.Free()
	}
}

// Allocate implements experimental.MemoryAllocator. maximum is the module's own.
func (m *memory) Allocate(_, maximum uint64) experimental.LinearMemory {
	l := &linear{m: m}
	m.given = append(m.given, l)
	if err := l.reserve(min(maximum, uint64(m.limit))); err != nil {
		m.err = fmt.Errorf("reserve %d bytes for the program: %w", min(maximum, uint64(m.limit)), err)
		panic(errHost)
	}
	return l
}

// linear is one memory. used is what the program has now.
type linear struct {
	m    *memory
	all  []byte
	used uint64
}

// Reallocate implements experimental.LinearMemory.
func (l *linear) Reallocate(size uint64) []byte {
	if size > uint64(l.m.limit) || size > uint64(len(l.all)) {
		l.m.refused = int64(size)
		return nil
	}
	if size > l.used {
		if err := l.commit(size); err != nil { // must not look like the program's own limit
			l.m.err = fmt.Errorf("commit %d bytes for the program: %w", size, err)
			panic(errHost)
		}
		l.used = size
	}
	l.m.peak = max(l.m.peak, int64(size))
	return l.all[:size:size]
}
