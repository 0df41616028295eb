package kernel

import "math"

// What follows reduces a vector to one number, in an order that is part of its
// definition: element i goes to lane i mod 16, one after the other; then lane i
// takes in lane i+8, then i+4, i+2 and i+1.

// Sum is the sum of x, 0 of none.
func (t *Tier) Sum(x []float32) float32 {
	if len(x) == 0 {
		return 0
	}
	return t.sum(len(x), &x[0])
}

// Max is the largest of x that is a number, -Inf if there is none.
func (t *Tier) Max(x []float32) float32 {
	if len(x) == 0 {
		return float32(math.Inf(-1))
	}
	return t.max(len(x), &x[0])
}

// Dot is the sum of products, each by one multiply-add. y is as long as x.
func (t *Tier) Dot(x, y []float32) float32 {
	if len(x) == 0 {
		return 0
	}
	return t.dot(len(x), &x[0], &y[:len(x)][0])
}

// Spread is the sum of (x-c)^2.
func (t *Tier) Spread(x []float32, c float32) float32 {
	if len(x) == 0 {
		return 0
	}
	return t.spread(len(x), &x[0], c)
}

// ExpSum makes dst e^(x-c) and returns the sum of it. dst is as long as x, and the
// same, or doesn't overlap.
func (t *Tier) ExpSum(dst, x []float32, c float32) float32 {
	if len(x) == 0 {
		return 0
	}
	return t.expSum(len(x), &dst[:len(x)][0], &x[0], c)
}

// fold is the order of it, step by step.
func fold(x []float32, begin float32, step func(acc, x float32, i int) float32, join func(a, b float32) float32) float32 {
	var acc [16]float32
	for i := range acc {
		acc[i] = begin
	}
	for i, v := range x {
		acc[i%16] = step(acc[i%16], v, i)
	}
	for width := 8; width > 0; width /= 2 {
		for i := range width {
			acc[i] = join(acc[i], acc[i+width])
		}
	}
	return acc[0]
}

func plus(a, b float32) float32 { return a + b }

// larger is b where a < b, else a, also where b is NaN.
func larger(a, b float32) float32 {
	if b > a {
		return b
	}
	return a
}

func foldsPortable(t *Tier) {
	t.sum = func(n int, x *float32) float32 {
		return fold(at(x, 0, n), 0, func(acc, x float32, _ int) float32 { return acc + x }, plus)
	}
	t.max = func(n int, x *float32) float32 {
		return fold(at(x, 0, n), float32(math.Inf(-1)), func(acc, x float32, _ int) float32 { return larger(acc, x) }, larger)
	}
	t.dot = func(n int, x, y *float32) float32 {
		other := at(y, 0, n)
		return fold(at(x, 0, n), 0, func(acc, x float32, i int) float32 { return FMA(x, other[i], acc) }, plus)
	}
	t.spread = func(n int, x *float32, c float32) float32 {
		return fold(at(x, 0, n), 0, func(acc, x float32, _ int) float32 { return FMA(x-c, x-c, acc) }, plus)
	}
	t.expSum = func(n int, dst, x *float32, c float32) float32 {
		to := at(dst, 0, n)
		return fold(at(x, 0, n), 0, func(acc, x float32, i int) float32 {
			to[i] = exp(x - c)
			return acc + to[i]
		}, plus)
	}
}
