package storage

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

func BenchmarkAdd(b *testing.B) {
	const size = 128 << 20
	for _, disk := range []bool{false, true} {
		b.Run(fmt.Sprintf("disk=%v", disk), func(b *testing.B) {
			b.SetBytes(size)
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				s := newStore(b, disk)
				data := noise(size, uint64(n))
				b.StartTimer()
				if _, err := s.AddReader(b.Context(), bytes.NewReader(data), AddOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAddSmall(b *testing.B) {
	s := newStore(b, true)
	for n := 0; b.Loop(); n++ {
		if _, err := s.AddBytes(b.Context(), noise(300, uint64(n)), AddOptions{Owner: "job:x", Audience: Job}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	const size = 128 << 20
	s := newStore(b, true)
	root := add(b, s, noise(size, 1), AddOptions{})
	b.SetBytes(size)
	for b.Loop() {
		r, err := s.Open(b.Context(), root.CID, "", 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
