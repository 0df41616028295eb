package storage

import (
	"context"
	"errors"
	"fmt"
	"io"

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
	release func()
	err     error
}

// step reads one block.
func (r *reader) step() error {
	n, ok := r.p.Next()
	if !ok {
		return io.EOF
	}
	data, err := r.s.Get(r.ctx, n.CID)
	if err != nil {
		return err
	}
	if err := r.p.Got(n.CID, len(data), data); err != nil {
		return err
	}
	r.left = r.p.out
	return nil
}

func (r *reader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(b) == 0 {
		return 0, nil
	}
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
			r.err = err
			return 0, err
		}
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *reader) Close() error {
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	r.release()
	return nil
}
