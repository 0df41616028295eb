package kernel

import "math"

// FMA is x*y + z rounded once to the nearest float32, ties to even, as the
// instruction of that name gives it.
//
// The product of two float32 is exact in float64, and so the only rounding before
// the last is that of the sum. It is made to odd: a sum that is not exact gets an
// odd last bit, which float32 rounding then reads as "a little more than this".
// (S. Boldo, G. Melquiond: Emulation of FMA and correctly rounded sums, 2008.)
func FMA(x, y, z float32) float32 {
	p, q := float64(float64(x)*float64(y)), float64(z)
	s := float64(p + q)
	// What was lost, exactly (Knuth's TwoSum); NaN where s is infinite or NaN.
	r := float64(s - p)
	lost := float64(float64(p-float64(s-r)) + float64(q-r))
	if b := math.Float64bits(s); b&1 == 0 && (lost > 0 || lost < 0) {
		if (lost > 0) == (s > 0) {
			b++
		} else {
			b--
		}
		s = math.Float64frombits(b)
	}
	return float32(s)
}
