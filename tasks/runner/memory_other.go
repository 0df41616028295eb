//go:build !unix

package runner

// reserve takes all of it at once: the system commits what is touched.
func (l *linear) reserve(size uint64) error {
	l.all = make([]byte, size)
	return nil
}

func (l *linear) commit(uint64) error { return nil }

// Free implements experimental.LinearMemory.
func (l *linear) Free() { l.all = nil }
