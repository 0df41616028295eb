package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/kith-mesh/kith/storage"
)

// readAhead bounds, in bytes, what an open reader has verified and not read yet,
// together with what is on its way.
const readAhead = 64 << 20

// Open reads a file's span from those who have it, verified, in order, as it
// comes. Nothing is stored: blocks that are here are read from here, and others
// are forgotten once they are read. It returns when the span is known to exist,
// and the first of its bytes; Close ends it.
func (s *Service) Open(ctx context.Context, want Want) (io.ReadCloser, error) {
	return s.open(ctx, want, false)
}

// OpenFetch is Open and Fetch at once: what is read is stored, too. It says io.EOF
// when all of it survives a crash; who closes it earlier keeps what came. As with
// Fetch, a caller who wants it for longer pins the root or holds its Use.
func (s *Service) OpenFetch(ctx context.Context, want Want) (io.ReadCloser, error) {
	return s.open(ctx, want, true)
}

func (s *Service) open(ctx context.Context, want Want, store bool) (io.ReadCloser, error) {
	fail := func(err error) (io.ReadCloser, error) { return nil, fmt.Errorf("open %s: %w", want.Root, err) }
	if err := want.check(); err != nil {
		return fail(err)
	}
	plan, err := storage.NewReading(want.span(), readAhead, store)
	if err != nil {
		return fail(err)
	}
	release := s.st.Use(want.Root)
	var w *storage.Session
	if store {
		if w, err = s.begin(ctx, want); err != nil {
			release()
			return fail(err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &reader{ctx: ctx, cancel: cancel, b: newBoard(ctx, s, want, plan, w, nil)}
	r.b.reading = true
	r.gather.Go(func() {
		defer release()
		err := s.gather(ctx, want, r.b)
		if store {
			err = s.settle(ctx, want, r.b, err)
		}
		r.b.mu.Lock()
		defer r.b.mu.Unlock()
		r.b.end(err)
		r.over = true
		if r.b.err == nil {
			r.b.err = err // of settle
		}
		r.b.rouse()
	})
	if err := r.begin(); err != nil {
		return fail(errors.Join(err, r.Close()))
	}
	return r, nil
}

type reader struct {
	ctx    context.Context
	cancel func()
	b      *board
	gather sync.WaitGroup
	over   bool // gather has ended; under b.mu

	left []byte
	done func() // gives back what left is part of
	err  error
}

// begin waits for the first bytes, or the end.
func (r *reader) begin() error {
	err := r.next()
	r.b.mu.Lock()
	folder := r.b.plan.IsFolder()
	r.b.mu.Unlock()
	if folder {
		return storage.ErrIsDir
	}
	if err == io.EOF {
		return nil // of an empty span
	}
	return err
}

// next waits for the bytes that follow, io.EOF, or why none do.
func (r *reader) next() error {
	if r.done != nil {
		r.done()
		r.done = nil
	}
	for {
		r.b.mu.Lock()
		r.left, r.done = r.b.plan.Take()
		if len(r.left) > 0 {
			r.b.look()
			r.b.rouse()
			r.b.mu.Unlock()
			return nil
		}
		ended, err, folder, wake := r.over, r.b.err, r.b.plan.IsFolder(), r.b.wake
		r.b.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ended || folder:
			return io.EOF
		}
		select {
		case <-wake:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
}

// fill makes left hold bytes, unless it fails.
func (r *reader) fill() error {
	if len(r.left) > 0 || r.err != nil {
		return r.err
	}
	err := r.next()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read %s: %w", r.b.want.Root, err)
	}
	r.err = err
	return err
}

func (r *reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

// WriteTo spares io.Copy a buffer and a copy.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if err := r.fill(); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
		m, err := w.Write(r.left)
		n += int64(m)
		r.left = r.left[m:]
		if err != nil {
			return n, err
		}
	}
}

func (r *reader) Close() error {
	r.cancel()
	r.gather.Wait()
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	return nil
}
