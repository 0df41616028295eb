//go:build linux

package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// fence is memory between two pages that fault when they are touched: assembly
// checks no bounds.
type fence struct {
	mem  []byte
	page int
}

func newFence(t *testing.T, bytes int) fence {
	t.Helper()
	page := os.Getpagesize()
	bytes = (bytes + page - 1) / page * page
	mem, err := syscall.Mmap(-1, 0, bytes+2*page, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Mprotect(mem[page:page+bytes], syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	return fence{mem, page}
}

// take is n elements that end where the fence does, or begin there.
func (f fence) take(n int, end bool) []float32 {
	if n == 0 {
		return nil
	}
	at := f.page
	if end {
		at = len(f.mem) - f.page - 4*n
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&f.mem[at])), n)
}

// put copies x to an end of the fence.
func (f fence) put(x []float32, end bool) []float32 {
	got := f.take(len(x), end)
	copy(got, x)
	return got
}

func TestFencedGemm(t *testing.T) {
	var fences [8]fence
	for i := range fences {
		fences[i] = newFence(t, 1<<20)
	}
	for _, tier := range Tiers() {
		t.Run(tier.Name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			size := func() int {
				switch rnd.IntN(4) {
				case 0:
					return rnd.IntN(6)
				case 1:
					return rnd.IntN(3)*tier.rows + rnd.IntN(3)
				default:
					return rnd.IntN(100)
				}
			}
			for i := range 300 {
				bits, end := rnd.IntN(16), rnd.IntN(2) == 0
				g := product(rnd, size(), size(), size(), bits&1 > 0, bits&2 > 0, bits&4 > 0, bits&8 > 0)
				want := g
				want.C = append([]float32{}, g.C...)
				slowGemm(want)
				g.A, g.B, g.C = fences[0].put(g.A, end), fences[1].put(g.B, end), fences[2].put(g.C, end)
				if g.Bias != nil {
					g.Bias = fences[3].put(g.Bias, end)
				}
				if g.Residual != nil {
					g.Residual = fences[4].put(g.Residual, end)
				}
				var asked Scratch
				asked.grow(tier, &g)
				s := Scratch{a: fences[5].take(len(asked.a), end), b: fences[6].take(len(asked.b), end), c: fences[7].take(len(asked.c), end)}
				m := rnd.IntN(g.M + 1)
				tier.Do(&g, 0, m, 0, g.N, &s)
				tier.Do(&g, m, g.M, 0, g.N, &s)
				sameBits(t, fmt.Sprintf("product %d, %dx%dx%d", i, g.M, g.N, g.K), g.C, want.C)
			}
		})
	}
}

func TestFencedRows(t *testing.T) {
	fx, fy, fd := newFence(t, 4096), newFence(t, 4096), newFence(t, 4096)
	for _, tier := range Tiers() {
		for n := range 130 {
			for _, end := range []bool{false, true} {
				x, y, dst := fx.take(n, end), fy.take(n, end), fd.take(n, end)
				for op := range ones {
					tier.Each(op, dst, x)
				}
				for op := range twos {
					tier.Each2(op, dst, x, y)
				}
				tier.Sum(x)
				tier.Max(x)
				tier.Dot(x, y)
				tier.Spread(x, 1)
				tier.Softmax(dst, x)
				tier.LayerNorm(dst, x, y, y, 1)
				tier.RMSNorm(dst, x, y, 1)
				tier.Scale(dst, x, 1)
				tier.AddScaled(dst, x, y, 1)
			}
		}
	}
}
