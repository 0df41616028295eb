package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// exactly is x*y + z by exact arithmetic, for finite operands and a result that is
// not zero.
func exactly(x, y, z float32) float32 {
	f := func(v float32) *big.Float { return new(big.Float).SetPrec(2000).SetFloat64(float64(v)) }
	sum := new(big.Float).SetPrec(2000).Add(new(big.Float).SetPrec(2000).Mul(f(x), f(y)), f(z))
	got, _ := sum.Float32()
	return got
}

func TestFMA(t *testing.T) {
	// (1+2^-12)^2 + 2^-60 is just above the middle of two float32.
	half := float32(1 + 1.0/4096)
	if got := math.Float32bits(FMA(half, half, 0x1p-60)); got != 0x3f801001 {
		t.Errorf("just above a middle: %x", got)
	}
	if got := math.Float32bits(FMA(half, half, -0x1p-60)); got != 0x3f801000 {
		t.Errorf("just below a middle: %x", got)
	}
	if got := math.Float32bits(FMA(half, half, 0)); got != 0x3f801000 {
		t.Errorf("a middle: %x", got)
	}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct{ x, y, z, want float32 }{
		{math.MaxFloat32, 2, 0, inf}, {math.MaxFloat32, 2, -inf, -inf}, {inf, 0, 1, nan}, {inf, 1, -inf, nan},
		{0, 1, 0, 0}, {1, 1, -1, 0}, {math.MaxFloat32, 2, -math.MaxFloat32, math.MaxFloat32},
		{0x1p-149, 0.5, 0, 0}, {0x1p-149, 0.75, 0, 0x1p-149}, {0x1p-149, 0.5, 0x1p-149, 0x1p-148},
	} {
		if got := FMA(c.x, c.y, c.z); got != c.want && !(got != got && c.want != c.want) {
			t.Errorf("FMA(%g, %g, %g) = %g, want %g", c.x, c.y, c.z, got, c.want)
		}
	}
	if !math.Signbit(float64(FMA(float32(math.Copysign(0, -1)), 1, float32(math.Copysign(0, -1))))) {
		t.Error("-0 * 1 + -0 is not -0")
	}

	rnd := rand.New(rand.NewPCG(1, 2))
	draw := func() float32 { // any finite one, near each other more often than not
		for {
			v := math.Float32frombits(rnd.Uint32())
			if rnd.IntN(3) > 0 {
				v = math.Float32frombits(rnd.Uint32()&0x80ffffff | 0x3f000000)
			}
			if v-v == 0 {
				return v
			}
		}
	}
	for range 300_000 {
		x, y, z := draw(), draw(), draw()
		switch rnd.IntN(4) {
		case 0: // the exact product is nearly -z
			z = -float32(x * y)
		case 1: // what z adds is far below
			z = float32(math.Ldexp(float64(z), -rnd.IntN(80)))
		}
		if z-z != 0 {
			continue
		}
		if got, want := FMA(x, y, z), exactly(x, y, z); got != want {
			t.Fatalf("FMA(%x, %x, %x) = %x, want %x", x, y, z, got, want)
		}
	}
}
