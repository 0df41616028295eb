package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func TestRows(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16))
	slow := portable()
	for n := range 70 {
		for _, odd := range []bool{false, true} {
			x, w, b := draws(rnd, n, odd), draws(rnd, n, odd), draws(rnd, n, odd)
			for _, tier := range Tiers() {
				same := func(what string, f func(t *Tier, dst []float32) []float32) {
					t.Helper()
					got, want := make([]float32, n+1), make([]float32, n+1)
					got[n], want[n] = 7, 7
					got, want = append(got, f(tier, got[:n])...), append(want, f(slow, want[:n])...)
					sameBits(t, fmt.Sprintf("%s of %d on %s", what, n, tier.Name), got, want)
				}
				same("softmax", func(t *Tier, dst []float32) []float32 { t.Softmax(dst, x); return nil })
				same("layernorm", func(t *Tier, dst []float32) []float32 {
					mean, rstd := t.LayerNorm(dst, x, w, b, 1e-5)
					return []float32{mean, rstd}
				})
				same("rmsnorm", func(t *Tier, dst []float32) []float32 { return []float32{t.RMSNorm(dst, x, w, 1e-5)} })
				same("scale", func(t *Tier, dst []float32) []float32 { t.Scale(dst, x, 1.1); return nil })
				same("addScaled", func(t *Tier, dst []float32) []float32 { t.AddScaled(dst, x, w, 1.1); return nil })
			}
		}
	}
}

// The slow ones are what they say.
func TestRowsAreTrue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 18))
	n := 777
	x, w, b := make([]float32, n), make([]float32, n), make([]float32, n)
	var sum, squares, exps float64
	for i := range x {
		x[i], w[i], b[i] = float32(rnd.NormFloat64()+3), float32(rnd.NormFloat64()), float32(rnd.NormFloat64())
		sum, squares, exps = sum+float64(x[i]), squares+float64(x[i])*float64(x[i]), exps+math.Exp(float64(x[i]))
	}
	mean := sum / float64(n)
	rstd := 1 / math.Sqrt(squares/float64(n)-mean*mean+1e-5)
	slow := portable()
	near := func(what string, i int, got float32, want float64) {
		t.Helper()
		if math.Abs(float64(got)-want) > 2e-5*math.Max(1, math.Abs(want)) {
			t.Fatalf("%s, element %d: %g, want %g", what, i, got, want)
		}
	}
	dst := make([]float32, n)
	m, r := slow.LayerNorm(dst, x, w, b, 1e-5)
	near("mean", 0, m, mean)
	near("rstd", 0, r, rstd)
	for i, v := range dst {
		near("layernorm", i, v, (float64(x[i])-mean)*rstd*float64(w[i])+float64(b[i]))
	}
	slow.RMSNorm(dst, x, w, 1e-5)
	for i, v := range dst {
		near("rmsnorm", i, v, float64(x[i])*float64(w[i])/math.Sqrt(squares/float64(n)+1e-5))
	}
	slow.Softmax(dst, x)
	for i, v := range dst {
		near("softmax", i, v*1000, 1000*math.Exp(float64(x[i]))/exps)
	}
	slow.Softmax(dst, append(make([]float32, n-1), float32(math.Inf(-1))))
	if dst[n-1] != 0 || dst[0] != 1/float32(n-1) {
		t.Errorf("softmax beside -Inf: %g and %g", dst[0], dst[n-1])
	}
}
