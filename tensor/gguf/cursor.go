package gguf

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/kith-mesh/kith/tensor/archive"
)

// cursor reads what stands before the elements, in order.
type cursor struct {
	r    io.ReaderAt
	at   int64  // of the next byte in the file
	end  int64  // of what may be read
	size int64  // of the file
	next []byte // read ahead
	buf  []byte
}

// window is how much is read at once, and the most that take gives.
const window = 64 << 10

func newCursor(r io.ReaderAt, size int64) *cursor {
	end := min(size, MaxHeader)
	return &cursor{r: r, end: end, size: size, buf: make([]byte, min(window, end))}
}

// fail refuses what begins at an offset of the file.
func fail(at int64, field, reason string, args ...any) error {
	return &archive.Error{Format: format, Field: field, Offset: at, Reason: fmt.Sprintf(reason, args...)}
}

// room fails where fewer than n bytes are left.
func (c *cursor) room(n int64, field, what string) error {
	switch left := c.end - c.at; {
	case n <= left:
		return nil
	case c.end < c.size:
		return fail(c.at, field, "%s takes %d bytes, %d are left of the %d that are read before the elements", what, n, left, MaxHeader)
	default:
		return fail(c.at, field, "the file is truncated: %s takes %d bytes, %d are left", what, n, left)
	}
}

// take gives the next n bytes, at most a window, which are good until the next
// call.
func (c *cursor) take(n int, field string) ([]byte, error) {
	if n > len(c.next) {
		if err := c.room(int64(n), field, "it"); err != nil {
			return nil, err
		}
		c.next = c.buf[:min(window, c.end-c.at)]
		if err := archive.ReadAt(c.r, c.next, c.at, format, field); err != nil {
			return nil, err
		}
	}
	b := c.next[:n]
	c.next = c.next[n:]
	c.at += int64(n)
	return b, nil
}

func (c *cursor) uint32(field string) (uint32, error) {
	b, err := c.take(4, field)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (c *cursor) uint64(field string) (uint64, error) {
	b, err := c.take(8, field)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// count reads how many things follow that take at least so many bytes each.
func (c *cursor) count(field string, least int64) (int, error) {
	at := c.at
	n, err := c.uint64(field)
	if err == nil && n > uint64(c.end-c.at)/uint64(least) {
		err = fail(at, field, "it counts %d of %d bytes at least, %d bytes are left", n, least, c.end-c.at)
	}
	return int(n), err
}

// text reads a string of at most so many bytes.
func (c *cursor) text(field string, most int) (string, error) {
	at := c.at
	n, err := c.uint64(field)
	switch {
	case err != nil:
		return "", err
	case n > uint64(most):
		return "", fail(at, field, "its length is %d, at most %d is allowed", n, most)
	}
	if err := c.room(int64(n), field, "its text"); err != nil {
		return "", err
	}
	if n <= window {
		b, err := c.take(int(n), field)
		return string(b), err
	}
	b := make([]byte, 0, n)
	for len(b) < int(n) {
		part, err := c.take(min(window, int(n)-len(b)), field)
		if err != nil {
			return "", err
		}
		b = append(b, part...)
	}
	return string(b), nil
}
