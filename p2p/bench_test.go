package p2p

import (
	"context"
	"testing"
)

func benchmarkCall(b *testing.B, size int, parallel bool) {
	m := newTestMesh(b)
	a, h := m.host(m.config(), nil), m.host(m.config(), serveEcho)
	m.connect(a, h)
	req := make([]byte, size)
	b.SetBytes(int64(size))
	call := func() {
		if _, err := a.Call(b.Context(), h.ID(), echo, req); err != nil {
			b.Error(err)
		}
	}
	if !parallel {
		for b.Loop() {
			call()
		}
		return
	}
	b.SetParallelism(5) // ten at once on two cores
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			call()
		}
	})
}

func BenchmarkCall256(b *testing.B)          { benchmarkCall(b, 256, false) }
func BenchmarkCall256TenAtOnce(b *testing.B) { benchmarkCall(b, 256, true) }
func BenchmarkCall60K(b *testing.B)          { benchmarkCall(b, 60<<10, true) }

func BenchmarkStream1M(b *testing.B) {
	m := newTestMesh(b)
	a := m.host(m.config(), nil)
	h := m.host(m.config(), func(h *Host) {
		h.HandleStream(bulk, func(_ context.Context, s *Stream) error {
			msg := make([]byte, 1<<20)
			for {
				if err := s.WriteMsg(msg); err != nil {
					return nil //nolint:nilerr // the reader has enough
				}
			}
		})
	})
	m.connect(a, h)
	s, err := a.Open(b.Context(), h.ID(), bulk)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Reset()
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := s.ReadMsg(); err != nil {
			b.Fatal(err)
		}
	}
}
