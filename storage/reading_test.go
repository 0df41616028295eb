package storage

import (
	"bytes"
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
		p, err := NewReading(span, ahead)
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
