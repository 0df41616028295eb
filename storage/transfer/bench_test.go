package transfer

import (
	"fmt"
	"testing"

	"github.com/kith-mesh/kith/storage"
)

// BenchmarkFetch moves 256 MiB between two hosts over loopback TCP and TLS.
func BenchmarkFetch(b *testing.B) {
	const size = 256 << 20
	for _, disk := range []bool{false, true} {
		b.Run(fmt.Sprintf("disk=%v", disk), func(b *testing.B) {
			dir := func() string {
				if !disk {
					return ""
				}
				return b.TempDir()
			}
			m := newMesh(b)
			from := m.memberOn(newStore(b, dir()), Config{})
			root := add(b, from.st, noise(size, 1), storage.AddOptions{})
			b.SetBytes(size)
			for b.Loop() {
				b.StopTimer()
				to := m.memberOn(newStore(b, dir()), Config{})
				connect(b, to.h, from.h)
				b.StartTimer()
				if err := to.s.Fetch(b.Context(), All(root.CID, from.h.ID()), nil); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				to.stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkServe measures reading and verifying alone: what a giver does
// before the network.
func BenchmarkServe(b *testing.B) {
	st := newStore(b, b.TempDir())
	data := noise(1<<20, 1)
	root := add(b, st, data, storage.AddOptions{})
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := st.Get(b.Context(), root.CID); err != nil {
			b.Fatal(err)
		}
	}
}
