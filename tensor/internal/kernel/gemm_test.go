package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// slowGemm is the definition of Gemm.
func slowGemm(g Gemm) {
	for i := range g.M {
		for j := range g.N {
			var acc float32
			if g.Load {
				acc = g.C[i*g.LDC+j]
			}
			for k := range g.K {
				a, b := i*g.LDA+k, k*g.LDB+j
				if g.TransA {
					a = k*g.LDA + i
				}
				if g.TransB {
					b = j*g.LDB + k
				}
				acc = FMA(g.A[a], g.B[b], acc)
			}
			if g.Bias != nil {
				acc += g.Bias[j]
			}
			switch g.Act {
			case ActGELU:
				acc = gelu(acc)
			case ActSiLU:
				acc = silu(acc)
			}
			if g.Residual != nil {
				acc += g.Residual[i*g.LDR+j]
			}
			g.C[i*g.LDC+j] = acc
		}
	}
}

// draws fills with values of many sizes, also what is no number if odd.
func draws(rnd *rand.Rand, n int, odd bool) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rnd.NormFloat64())
		switch rnd.IntN(40) {
		case 0:
			out[i] = 0
		case 1:
			out[i] *= 0x1p-140
		case 2:
			out[i] *= 0x1p60
		}
		if odd && rnd.IntN(500) == 0 {
			out[i] = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.Copysign(0, -1))}[rnd.IntN(4)]
		}
	}
	return out
}

// product draws a product of a shape, with gaps between rows.
func product(rnd *rand.Rand, m, n, k int, transA, transB, load, odd bool) Gemm {
	g := Gemm{M: m, N: n, K: k, TransA: transA, TransB: transB, Load: load}
	side := func(rows, cols int, trans bool) ([]float32, int) {
		if trans {
			rows, cols = cols, rows
		}
		ld := cols + rnd.IntN(3)
		size := 0
		if rows > 0 {
			size = (rows-1)*ld + cols // nothing behind the last
		}
		return draws(rnd, size, odd), ld
	}
	g.A, g.LDA = side(m, k, transA)
	g.B, g.LDB = side(k, n, transB)
	g.C, g.LDC = side(m, n, false)
	if rnd.IntN(2) == 0 {
		g.Bias = draws(rnd, n, odd)
	}
	g.Act = Act(rnd.IntN(int(acts)))
	if rnd.IntN(2) == 0 {
		g.Residual, g.LDR = side(m, n, false)
	}
	return g
}

// sameBits compares, with any NaN as good as another.
func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, x := range got {
		if math.Float32bits(x) != math.Float32bits(want[i]) && !(x != x && want[i] != want[i]) {
			t.Fatalf("%s: element %d is %x, want %x", what, i, x, want[i])
		}
	}
}

func TestGemm(t *testing.T) {
	shapes := [][3]int{{0, 5, 5}, {5, 0, 5}, {5, 5, 0}, {1, 1, 1}, {1, 64, 300}, {14, 32, 4}, {28, 64, 256}, {15, 33, 257}, {13, 31, 3}, {260, 40, 9}, {300, 70, 530}, {6, 16, 1}, {64, 8, 600}}
	for _, tier := range Tiers() {
		t.Run(tier.Name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(3, 4))
			tries := append([][3]int{}, shapes...)
			for range 20 {
				tries = append(tries, [3]int{rnd.IntN(70), rnd.IntN(90), rnd.IntN(300)})
			}
			var s Scratch
			for _, shape := range tries {
				for bits := range 16 {
					if shape[0]*shape[1]*shape[2] > 1<<20 && bits != rnd.IntN(16) {
						continue // one form of the large ones
					}
					g := product(rnd, shape[0], shape[1], shape[2], bits&1 > 0, bits&2 > 0, bits&4 > 0, bits&8 > 0)
					want := g
					want.C = append([]float32{}, g.C...)
					slowGemm(want)
					// In parts, as threads take it.
					m, n := rnd.IntN(g.M+1), rnd.IntN(g.N+1)
					if err := g.Check(); err != nil {
						t.Fatal(err)
					}
					tier.Do(&g, 0, m, 0, n, &s)
					tier.Do(&g, m, g.M, 0, n, &s)
					tier.Do(&g, 0, g.M, n, g.N, &s)
					sameBits(t, fmt.Sprintf("%dx%dx%d %04b", g.M, g.N, g.K, bits), g.C, want.C)
				}
			}
		})
	}
}

func BenchmarkGemm(b *testing.B) {
	for _, tier := range Tiers() {
		for _, shape := range [][3]int{{256, 256, 256}, {1024, 1024, 1024}, {8, 3072, 768}, {64, 3072, 768}, {256, 3072, 768}, {1024, 3072, 768}} {
			for _, trans := range []string{"NN", "NT", "TN"} {
				b.Run(fmt.Sprintf("%s/%dx%dx%d/%s", tier.Name, shape[0], shape[1], shape[2], trans), func(b *testing.B) {
					if tier.Name == "portable" {
						b.Skip("slow by design")
					}
					rnd := rand.New(rand.NewPCG(3, 4))
					g := Gemm{M: shape[0], N: shape[1], K: shape[2], LDA: shape[2], LDB: shape[1], LDC: shape[1], TransA: trans[0] == 'T', TransB: trans[1] == 'T'}
					if g.TransA {
						g.LDA = g.M
					}
					if g.TransB {
						g.LDB = g.K
					}
					g.A, g.B, g.C = draws(rnd, g.M*g.K, false), draws(rnd, g.K*g.N, false), make([]float32, g.M*g.N)
					var s Scratch
					b.ReportAllocs()
					for b.Loop() {
						tier.Do(&g, 0, g.M, 0, g.N, &s)
					}
					b.ReportMetric(2*float64(g.M)*float64(g.N)*float64(g.K)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GF/s")
				})
			}
		}
	}
}
