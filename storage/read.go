package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
)

// Open reads a file's bytes from what is stored: offset and length (-1: to the
// end) of the file that root, or path inside it, is. The span is checked now,
// against the root's node; a block that is missing or damaged fails the Read
// that reaches it. The root is in use until Close.
func (s *Store) Open(ctx context.Context, root cid.Cid, path string, offset, length int64) (io.ReadCloser, error) {
	span := Span{Root: root, Path: path, Offset: offset, Length: length}
	p, err := NewPlan(span)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name(span), err)
	}
	p.again = true
	r := &reader{s: s, ctx: ctx, p: p, span: span, release: s.Use(root)}
	for p.total < 0 && err == nil {
		err = r.step()
	}
	if err == nil && p.folder {
		err = ErrIsDir
	}
	if err != nil {
		r.release()
		return nil, fmt.Errorf("open %s: %w", name(span), err)
	}
	return r, nil
}

func name(s Span) string {
	if s.Path == "" {
		return s.Root.String()
	}
	return s.Root.String() + "/" + s.Path
}

type reader struct {
	s       *Store
	ctx     context.Context
	p       *Plan
	span    Span
	left    []byte
	buf     []byte // that left may lie in
	release func()
	err     error
}

// step reads one block.
func (r *reader) step() error {
	n, ok := r.p.Next()
	if !ok {
		return io.EOF
	}
	var buf []byte
	if n.Leaf && n.Size >= 0 && n.Size <= MaxBlock { // nothing but left will refer to it
		if need := int(n.Size) + ReadRoom; cap(r.buf) < need {
			r.buf = make([]byte, need)
		}
		buf = r.buf
	}
	data, err := r.s.getInto(r.ctx, n.CID, buf)
	if err != nil {
		return err
	}
	if err := r.p.Got(n.CID, len(data), data); err != nil {
		return err
	}
	r.left = r.p.out
	return nil
}

// next makes left hold bytes, or fails.
func (r *reader) next() error {
	for len(r.left) == 0 {
		err := r.ctx.Err()
		if err == nil {
			err = r.step()
		}
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("read %s: %w: %w", name(r.span), err, ErrIncomplete)
		} else if err != nil && err != io.EOF {
			err = fmt.Errorf("read %s: %w", name(r.span), err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) Read(b []byte) (int, error) {
	if r.err != nil || len(b) == 0 {
		return 0, r.err
	}
	if r.err = r.next(); r.err != nil {
		return 0, r.err
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

// WriteTo writes the rest. A block is read and hashed while one is written. If w
// fails, what was read ahead is lost, and so the reader is at its end.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	if r.err != nil {
		return 0, ignoreEOF(r.err)
	}
	type piece struct {
		data, buf []byte
		err       error
	}
	pieces, spare, over := make(chan piece, 1), make(chan []byte, 3), make(chan struct{})
	for range cap(spare) - 1 {
		spare <- nil
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(pieces)
		for {
			p := piece{err: r.next()}
			p.data, p.buf = r.left, r.buf
			r.left, r.buf = nil, nil
			select {
			case pieces <- p:
			case <-over:
				return
			}
			if p.err != nil {
				return
			}
			select {
			case r.buf = <-spare:
			case <-over:
				return
			}
		}
	})
	defer reading.Wait()
	defer close(over)
	for p := range pieces {
		if r.err = p.err; r.err != nil {
			break
		}
		m, err := w.Write(p.data)
		if n += int64(m); err != nil {
			r.err = err
			break
		}
		spare <- p.buf
	}
	return n, ignoreEOF(r.err)
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func (r *reader) Close() error {
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	r.release()
	return nil
}
