package kernel

import "math"

// Rows are normalised one by one; each function here is the definition of what it
// computes, in steps that round once each. Vectors are as long as x. dst may be x.

// Softmax makes dst e^(x-m) divided by the sum of it, m being the largest of x. It
// is NaN all over where x has a NaN or +Inf, or nothing but -Inf.
func (t *Tier) Softmax(dst, x []float32) {
	if len(x) == 0 {
		return
	}
	sum := t.ExpSum(dst, x, t.Max(x))
	t.divide(len(x), &dst[0], &dst[0], sum)
}

// LayerNorm makes dst (x-mean) rstd w + b, with rstd = 1/sqrt(var + eps), var being
// the mean of (x-mean)^2.
func (t *Tier) LayerNorm(dst, x, w, b []float32, eps float32) (mean, rstd float32) {
	if len(x) == 0 {
		return 0, 0
	}
	n := float32(len(x))
	mean = t.Sum(x) / n
	rstd = root(t.Spread(x, mean)/n, eps)
	t.affine(len(x), &dst[:len(x)][0], &x[0], &w[:len(x)][0], &b[:len(x)][0], mean, rstd)
	return mean, rstd
}

// RMSNorm makes dst x rstd w, with rstd = 1/sqrt(mean of x^2 + eps).
func (t *Tier) RMSNorm(dst, x, w []float32, eps float32) (rstd float32) {
	if len(x) == 0 {
		return 0
	}
	rstd = root(t.Dot(x, x)/float32(len(x)), eps)
	t.weigh(len(x), &dst[:len(x)][0], &x[0], &w[:len(x)][0], rstd)
	return rstd
}

// root is 1/sqrt(v + eps). A float64 square root of a float32, rounded to float32,
// is rounded as if once.
func root(v, eps float32) float32 {
	return 1 / float32(math.Sqrt(float64(float32(v+eps))))
}

// AddScaled makes dst x s + y, by one multiply-add an element.
func (t *Tier) AddScaled(dst, x, y []float32, s float32) {
	if len(x) > 0 {
		t.addScaled(len(x), &dst[:len(x)][0], &x[0], &y[:len(x)][0], s)
	}
}

// Scale makes dst x s.
func (t *Tier) Scale(dst, x []float32, s float32) {
	if len(x) > 0 {
		t.scale(len(x), &dst[:len(x)][0], &x[0], s)
	}
}

func rowsPortable(t *Tier) {
	t.scale = func(n int, dst, x *float32, s float32) {
		to := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			to[i] = v * s
		}
	}
	t.divide = func(n int, dst, x *float32, s float32) {
		to := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			to[i] = v / s
		}
	}
	t.addScaled = func(n int, dst, x, y *float32, s float32) {
		to, add := at(dst, 0, n), at(y, 0, n)
		for i, v := range at(x, 0, n) {
			to[i] = FMA(v, s, add[i])
		}
	}
	t.affine = func(n int, dst, x, w, b *float32, c, s float32) {
		to, by, add := at(dst, 0, n), at(w, 0, n), at(b, 0, n)
		for i, v := range at(x, 0, n) {
			to[i] = FMA((v-c)*s, by[i], add[i])
		}
	}
	t.weigh = func(n int, dst, x, w *float32, s float32) {
		to, by := at(dst, 0, n), at(w, 0, n)
		for i, v := range at(x, 0, n) {
			to[i] = v * s * by[i]
		}
	}
}
