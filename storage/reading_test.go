package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
)

// Blocks that come in the worst order, the last named first, are all read, and no
// more is kept than the plan may name ahead.
func TestReading(t *testing.T) {
	const chunk, ahead = 100, 2000
	s := newStore(t, false)
	data := noise(chunk*600+17, 3) // more leaves than one node has
	copy(data[300*chunk:], data[:20*chunk])
	r := add(t, s, data, AddOptions{ChunkSize: chunk})
	for _, span := range []Span{Whole(r.CID), {Root: r.CID, Offset: 155, Length: 31_313}} {
		want := data[span.Offset:]
		if span.Length >= 0 {
			want = want[:span.Length]
		}
		p, err := NewReading(span, ahead, false)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		var named []Need
		lent, returned, most := 0, 0, 0
		for {
			for n, ok := p.Next(); ok; n, ok = p.Next() {
				named = append(named, n)
			}
			if len(named) == 0 {
				break
			}
			n := named[len(named)-1]
			named = named[:len(named)-1]
			b, err := s.Get(t.Context(), n.CID)
			if err != nil {
				t.Fatal(err)
			}
			if n.Leaf {
				b = bytes.Clone(b)
				lent += len(b)
				err = p.Lend(n.CID, b, func() {
					returned += len(b)
					clear(b)
				})
			} else {
				err = p.Got(n.CID, len(b), b)
			}
			if err != nil {
				t.Fatal(err)
			}
			most = max(most, lent-returned)
			for b, done := p.Take(); b != nil; b, done = p.Take() {
				got = append(got, b...)
				done()
			}
		}
		if !p.Done() || !bytes.Equal(got, want) {
			t.Errorf("done %v, %d bytes are right: %v; want %d", p.Done(), len(got), bytes.Equal(got, want), len(want))
		}
		if lent != returned || most > ahead+chunk {
			t.Errorf("lent %d, got back %d; kept %d at once, want at most %d", lent, returned, most, ahead+chunk)
		}
	}
}

// What WriteTo copies is what Read reads, also from the middle of a block on, and
// after a writer that failed the reader is at its end.
func TestReaderWriteTo(t *testing.T) {
	both(t, func(t *testing.T, s *Store) {
		data := noise(70_017, 5)
		root := add(t, s, data, AddOptions{ChunkSize: 1000}).CID
		open := func() io.ReadCloser {
			r, err := s.Open(t.Context(), root, "", 1, -1)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			return r
		}
		r := open()
		var got bytes.Buffer
		if _, err := io.CopyN(&got, r, 1234); err != nil {
			t.Fatal(err)
		}
		if n, err := r.(io.WriterTo).WriteTo(&got); err != nil || int(n) != len(data)-1-1234 || !bytes.Equal(got.Bytes(), data[1:]) {
			t.Errorf("wrote %d bytes of %d, %v", n, len(data)-1-1234, err)
		}
		if _, err := r.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the last byte: %v", err)
		}
		r = open()
		if _, err := r.(io.WriterTo).WriteTo(brokenWriter{}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a writer that fails: %v", err)
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after a writer that failed: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := s.Open(ctx, root, "", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := r.(io.WriterTo).WriteTo(io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
