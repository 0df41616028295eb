package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func TestReduce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	slow := portable()
	for _, odd := range []bool{false, true} {
		for n := range 100 {
			x, y := draws(rnd, n, odd), draws(rnd, n, odd)
			c := float32(rnd.NormFloat64())
			for _, tier := range Tiers() {
				same := func(what string, got, want float32) {
					t.Helper()
					sameBits(t, fmt.Sprintf("%s of %d on %s", what, n, tier.Name), []float32{got}, []float32{want})
				}
				same("sum", tier.Sum(x), slow.Sum(x))
				same("max", tier.Max(x), slow.Max(x))
				same("dot", tier.Dot(x, y), slow.Dot(x, y))
				same("spread", tier.Spread(x, c), slow.Spread(x, c))
				got, want := make([]float32, n+1), make([]float32, n+1)
				got[n], want[n] = 7, 7
				same("expSum", tier.ExpSum(got[:n], x, c), slow.ExpSum(want[:n], x, c))
				sameBits(t, fmt.Sprintf("exp of %d on %s", n, tier.Name), got, want)
			}
		}
	}
}

// The slow ones are what they say.
func TestReduceIsTrue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	x, y := make([]float32, 1000), make([]float32, 1000)
	var sum, dot, spread, exps float64
	most := math.Inf(-1)
	for i := range x {
		x[i], y[i] = float32(rnd.NormFloat64()), float32(rnd.NormFloat64())
		a, b := float64(x[i]), float64(y[i])
		sum, dot, spread, exps, most = sum+a, dot+a*b, spread+(a-0.5)*(a-0.5), exps+math.Exp(a-0.5), math.Max(most, a)
	}
	slow := portable()
	for what, c := range map[string][2]float64{
		"sum": {float64(slow.Sum(x)), sum}, "dot": {float64(slow.Dot(x, y)), dot}, "max": {float64(slow.Max(x)), most},
		"spread": {float64(slow.Spread(x, 0.5)), spread}, "expSum": {float64(slow.ExpSum(y, x, 0.5)), exps},
	} {
		if math.Abs(c[0]-c[1]) > 1e-3 {
			t.Errorf("%s is %g, want %g", what, c[0], c[1])
		}
	}
	if got := slow.Max([]float32{float32(math.NaN()), 1, float32(math.NaN())}); got != 1 {
		t.Errorf("max beside NaN is %g", got)
	}
	if got := slow.Max(nil); !math.IsInf(float64(got), -1) {
		t.Errorf("max of none is %g", got)
	}
}
