package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/tensor/internal/kernel"
)

// The same bits from any number of threads on any instruction set.
func TestGemmThreads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][3]int{{1, 1, 1}, {3, 500, 70}, {500, 3, 70}, {65, 300, 300}, {420, 70, 31}, {130, 258, 100}} {
		m, n, k := shape[0], shape[1], shape[2]
		a, b := normal(rnd, m*k), normal(rnd, k*n)
		var want []float32
		for _, tier := range kernel.Tiers() {
			for threads := 1; threads <= 4; threads++ {
				p, err := newPool(tier, threads)
				if err != nil {
					t.Fatal(err)
				}
				c := make([]float32, m*n)
				for range 3 {
					if err := p.Gemm(&Gemm{M: m, N: n, K: k, A: a, B: b, C: c, LDA: k, LDB: k, LDC: n, TransB: true}); err != nil {
						t.Fatal(err)
					}
				}
				p.Close()
				if want == nil {
					want = c
				}
				same(t, fmt.Sprintf("%v on %s, %d threads", shape, tier.Name, threads), c, want)
			}
		}
	}
}

func normal(rnd *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rnd.NormFloat64())
	}
	return out
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %x, want %x", what, i, got[i], want[i])
		}
	}
}

func TestGemmRefuses(t *testing.T) {
	p, err := NewPool(1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	good := func() *Gemm {
		return &Gemm{M: 2, N: 3, K: 4, A: make([]float32, 8), B: make([]float32, 12), C: make([]float32, 6), LDA: 4, LDB: 3, LDC: 3}
	}
	if err := p.Gemm(good()); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(g *Gemm){
		"M -1":                 func(g *Gemm) { g.M = -1 },
		"A has 7 elements":     func(g *Gemm) { g.A = g.A[:7] },
		"B has 11 elements":    func(g *Gemm) { g.B = g.B[:11] },
		"C has 5 elements":     func(g *Gemm) { g.C = g.C[:5] },
		"LDA is 3":             func(g *Gemm) { g.LDA = 3 },
		"LDC is 2":             func(g *Gemm) { g.LDC = 2 },
		"B has 12 elements":    func(g *Gemm) { g.TransB, g.LDB = true, math.MaxInt },
		"C begins where an op": func(g *Gemm) { g.Residual, g.LDR = g.C, g.LDC },
		"A has 8 elements: 9":  func(g *Gemm) { g.M, g.LDA = math.MaxInt, math.MaxInt },
	} {
		g := good()
		spoil(g)
		if strings.HasPrefix(want, "A has 8") {
			want = "A has 8 elements"
		}
		if err := p.Gemm(g); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func BenchmarkGemm(b *testing.B) {
	for _, threads := range []int{1, 2} {
		for _, shape := range [][3]int{{256, 256, 256}, {8, 3072, 768}, {64, 3072, 768}, {256, 3072, 768}, {1024, 1024, 1024}} {
			m, n, k := shape[0], shape[1], shape[2]
			b.Run(fmt.Sprintf("%dx%dx%d/%dt", m, n, k, threads), func(b *testing.B) {
				p, err := NewPool(threads)
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				rnd := rand.New(rand.NewPCG(1, 2))
				g := Gemm{M: m, N: n, K: k, A: normal(rnd, m*k), B: normal(rnd, k*n), C: make([]float32, m*n), LDA: k, LDB: k, LDC: n, TransB: true}
				b.ReportAllocs()
				for b.Loop() {
					if err := p.Gemm(&g); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GF/s")
			})
		}
	}
}
