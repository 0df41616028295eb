package kernel

import "math"

// One names an operation on each element of a vector, Two one on each pair of two
// vectors' elements.
type (
	One int
	Two int
)

// The operations. What is said of their error is against the true value, over all
// float32 whose results are normal numbers.
const (
	Exp  One = iota // at most 1 unit in the last place
	Tanh            // at most 1.3 units in the last place
	GELU            // the approximation by tanh; at most 2e-7 times |x|; NaN of -Inf
	SiLU            // x / (1 + e^-x); at most 2e-7 times |x|; NaN of -Inf
	ones
)

// Of gradients x is the input of the operation, y the gradient of its output.
const (
	Add Two = iota
	Mul
	GELUGrad
	SiLUGrad
	twos
)

// Each makes dst op of x. They are as long as each other, and the same, or don't
// overlap.
func (t *Tier) Each(op One, dst, x []float32) {
	if len(dst) > 0 {
		t.ones[op](len(dst), &dst[0], &x[:len(dst)][0])
	}
}

// Each2 makes dst op of x and y, as Each does.
func (t *Tier) Each2(op Two, dst, x, y []float32) {
	if len(dst) > 0 {
		t.twos[op](len(dst), &dst[0], &x[:len(dst)][0], &y[:len(dst)][0])
	}
}

var (
	onesPortable = [ones]func(float32) float32{Exp: exp, Tanh: tanh, GELU: gelu, SiLU: silu}
	twosPortable = [twos]func(x, y float32) float32{
		Add:      func(x, y float32) float32 { return x + y },
		Mul:      func(x, y float32) float32 { return x * y },
		GELUGrad: geluGrad, SiLUGrad: siluGrad,
	}
)

// What follows is the definition of these operations, rounding by rounding: every
// product that is added to stands in a conversion, or Go would fuse the two on some
// machines.

// power is 2^n, for n in -126 to 127.
func power(n int32) float32 { return math.Float32frombits(uint32(n+127) << 23) }

// exp is e^x: x by multiples of ln 2, which stands in two parts, a polynomial after
// S. Moshier's Cephes (expf.c), and two steps of scaling, since 2^n of the least
// results is no normal number.
func exp(x float32) float32 {
	const rounds = 0x1.8p23 // what is added to it is rounded to an integer
	if 89 < x {
		x = 89
	}
	if -104.5 > x {
		x = -104.5
	}
	shifted := FMA(x, math.Log2E, rounds)
	n := shifted - rounds
	r := FMA(n, -0.693359375, x)
	r = FMA(n, 2.12194440e-4, r)
	p := float32(1.9875691500e-4)
	for _, c := range [...]float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		p = FMA(p, r, c)
	}
	p = FMA(p, float32(r*r), r)
	p++
	whole := int32(math.Float32bits(shifted)) - int32(math.Float32bits(rounds))
	half := whole >> 1
	return float32(float32(p*power(half)) * power(whole-half))
}

// tanh is an odd polynomial for small arguments (Cephes, tanhf.c), else
// 1 - 2/(e^2x + 1) of the absolute value.
func tanh(x float32) float32 {
	const sign = 1 << 31
	b := math.Float32bits(x)
	a := math.Float32frombits(b &^ sign)
	y := 1 - 2/(exp(a+a)+1)
	if a < 0.625 {
		s := float32(a * a)
		p := float32(-5.70498872745e-3)
		for _, c := range [...]float32{2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1} {
			p = FMA(p, s, c)
		}
		y = FMA(float32(p*s), a, a)
	}
	return math.Float32frombits(math.Float32bits(y) ^ b&sign)
}

// GELU by tanh (Hendrycks and Gimpel, 2016) comes to x / (1 + e^(-2u)), with
// 2u = x (one + cube x^2).
const (
	geluOne  = 2 * 0.7978845608028654 // 2 sqrt(2/pi)
	geluCube = geluOne * 0.044715
)

func geluExp(x float32) float32 { return exp(x * FMA(float32(x*x), -geluCube, -geluOne)) }

func gelu(x float32) float32 { return x / (geluExp(x) + 1) }

func silu(x float32) float32 { return x / (exp(-x) + 1) }

// geluGrad is dy (s + x s (1-s) (2u)'), s = 1/(1 + e^(-2u)). Beyond 16 it is dy or 0
// to the last bit, and x^2 would overflow.
func geluGrad(x, dy float32) float32 {
	x = within(x, 16)
	s := 1 / (geluExp(x) + 1)
	du := FMA(float32(x*x), 3*geluCube, geluOne)
	slope := s * (1 - s)
	return dy * FMA(float32(x*slope), du, s)
}

// siluGrad is dy (s + x s (1-s)), s = 1/(1 + e^-x); beyond 120 dy or 0.
func siluGrad(x, dy float32) float32 {
	x = within(x, 120)
	s := 1 / (exp(-x) + 1)
	slope := s * (1 - s)
	return dy * FMA(x, slope, s)
}

// within is the nearest to x that is at most limit from 0, or NaN.
func within(x, limit float32) float32 {
	if limit < x {
		return limit
	}
	if -limit > x {
		return -limit
	}
	return x
}
