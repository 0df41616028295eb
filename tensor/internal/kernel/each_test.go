package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// truth of each operation, in float64.
var truths = map[One]func(float64) float64{
	Exp:  math.Exp,
	Tanh: math.Tanh,
	GELU: func(x float64) float64 { return x / (1 + math.Exp(-2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) },
	SiLU: func(x float64) float64 { return x / (1 + math.Exp(-x)) },
}

// every draws float32 of all sizes: one in so many, with what is special.
func every(step uint32) (all []float32) {
	for b := uint64(0); b < 1<<32; b += uint64(step) {
		all = append(all, math.Float32frombits(uint32(b)))
	}
	for _, b := range []uint32{0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000, 0x42b17217, 0x42b17218, 0x42b20000, 0x3f200000, 0x3f1fffff} {
		all = append(all, math.Float32frombits(b), math.Float32frombits(b|1<<31))
	}
	return all
}

func TestEach(t *testing.T) {
	x := every(9973)
	rnd := rand.New(rand.NewPCG(5, 6))
	y := draws(rnd, len(x), true)
	want := make([]float32, len(x))
	got := make([]float32, len(x))
	slow := portable()
	for op := range ones {
		slow.Each(op, want, x)
		for _, tier := range Tiers() {
			tier.Each(op, got, x)
			sameBits(t, fmt.Sprintf("operation %d on %s", op, tier.Name), got, want)
		}
		worst, at := 0.0, float32(0)
		for i, v := range x {
			exact := truths[op](float64(v))
			near := math.Abs(float64(float32(exact)))
			if v-v != 0 || math.IsInf(near, 0) || near < 0x1p-126 {
				continue
			}
			unit := float64(math.Nextafter32(float32(near), math.MaxFloat32)) - near
			if op == GELU || op == SiLU {
				unit = math.Abs(float64(v))
			}
			if e := math.Abs(float64(want[i])-exact) / unit; e > worst {
				worst, at = e, v
			}
		}
		t.Logf("operation %d is off by at most %.3g, at %g", op, worst, at)
		if limit := [ones]float64{Exp: 1, Tanh: 1.3, GELU: 2e-7, SiLU: 2e-7}[op]; worst > limit {
			t.Errorf("operation %d is off by %.3g at %g, more than the %g that it says", op, worst, at, limit)
		}
	}
	for op := range twos {
		slow.Each2(op, want, x, y)
		for _, tier := range Tiers() {
			tier.Each2(op, got, x, y)
			sameBits(t, fmt.Sprintf("operation %d of two on %s", op, tier.Name), got, want)
		}
	}
}

// What lies before and behind is left alone, at any length and place.
func TestEachEdges(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for _, tier := range Tiers() {
		for n := range 70 {
			for off := range 3 {
				x, y, want := draws(rnd, n, false), draws(rnd, n, false), make([]float32, n)
				room := make([]float32, n+10)
				for i := range room {
					room[i] = 7
				}
				got := room[off : off+n]
				portable().Each2(GELUGrad, want, x, y)
				tier.Each2(GELUGrad, got, x, y)
				sameBits(t, fmt.Sprintf("%d of two on %s", n, tier.Name), got, want)
				portable().Each(Exp, want, x)
				tier.Each(Exp, got, x)
				sameBits(t, fmt.Sprintf("%d on %s", n, tier.Name), got, want)
				for i, v := range room {
					if (i < off || i >= off+n) && v != 7 {
						t.Fatalf("%s, %d at %d: wrote at %d", tier.Name, n, off, i)
					}
				}
			}
		}
	}
}

func BenchmarkEach(b *testing.B) {
	x, dst := make([]float32, 4096), make([]float32, 4096)
	for i := range x {
		x[i] = float32(i-2048) / 300
	}
	for _, tier := range Tiers() {
		for name, op := range map[string]One{"exp": Exp, "tanh": Tanh, "gelu": GELU} {
			b.Run(name+"/"+tier.Name, func(b *testing.B) {
				for b.Loop() {
					tier.Each(op, dst, x)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4096, "ns/elem")
			})
		}
	}
}
