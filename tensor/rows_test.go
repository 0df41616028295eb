package tensor

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/tensor/internal/kernel"
)

// Any number of threads on any tier makes what one makes of row by row.
func TestRowsThreads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, rows := range []Rows{{0, 5}, {5, 0}, {1, 1}, {3, 70}, {130, 130}, {7, 20_000}, {20_000, 3}} {
		n := rows.N * rows.Cols
		x, y, w, b := normal(rnd, n), normal(rnd, n), normal(rnd, rows.Cols), normal(rnd, rows.Cols)
		want := map[string][]float32{}
		slow := kernel.Tiers()[len(kernel.Tiers())-1]
		for _, tier := range kernel.Tiers() {
			for threads := 1; threads <= 4; threads++ {
				p, err := newPool(tier, threads)
				if err != nil {
					t.Fatal(err)
				}
				for name, f := range map[string]func(dst, mean, rstd []float32) error{
					"softmax":   func(dst, _, _ []float32) error { return p.Softmax(rows, dst, x) },
					"layernorm": func(dst, mean, rstd []float32) error { return p.LayerNorm(rows, dst, x, w, b, 1e-5, mean, rstd) },
					"rmsnorm":   func(dst, _, rstd []float32) error { return p.RMSNorm(rows, dst, x, w, 1e-5, rstd) },
					"exp":       func(dst, _, _ []float32) error { return p.Exp(dst, x) },
					"tanh":      func(dst, _, _ []float32) error { return p.Tanh(dst, x) },
					"gelu":      func(dst, _, _ []float32) error { return p.GELU(dst, x) },
					"silu":      func(dst, _, _ []float32) error { return p.SiLU(dst, x) },
					"add":       func(dst, _, _ []float32) error { return p.Add(dst, x, y) },
					"mul":       func(dst, _, _ []float32) error { return p.Mul(dst, x, y) },
					"geluGrad":  func(dst, _, _ []float32) error { return p.GELUGrad(dst, x, y) },
					"siluGrad":  func(dst, _, _ []float32) error { return p.SiLUGrad(dst, x, y) },
				} {
					if tier == slow && threads > 1 && threads < 4 {
						continue // slow by design
					}
					dst, mean, rstd := make([]float32, n), make([]float32, rows.N), make([]float32, rows.N)
					if err := f(dst, mean, rstd); err != nil {
						t.Fatal(err)
					}
					got := append(append(dst, mean...), rstd...)
					if want[name] == nil {
						want[name] = got
					}
					same(t, fmt.Sprintf("%s of %v on %s, %d threads", name, rows, tier.Name, threads), got, want[name])
				}
				p.Close()
			}
		}
	}
}

func TestRowsRefuse(t *testing.T) {
	p, err := NewPool(1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	six, three := make([]float32, 6), make([]float32, 3)
	rows := Rows{2, 3}
	for want, err := range map[string]error{
		"softmax: x has 3 elements":          p.Softmax(rows, six, three),
		"softmax: dst has 3 elements":        p.Softmax(rows, three, six),
		"-1 rows of 3":                       p.Softmax(Rows{-1, 3}, six, six),
		"layernorm: w has 6 elements":        p.LayerNorm(rows, six, six, six, three, 1e-5, nil, nil),
		"layernorm: mean has 2 elements":     p.LayerNorm(rows, six, six, three, three, 1e-5, three[:2], nil),
		"rmsnorm: rstd has 3 elements":       p.RMSNorm(rows, six, six, three, 1e-5, three),
		"exp: dst has 6 elements, x 3":       p.Exp(six, three),
		"add: dst has 6 elements":            p.Add(six, six, three),
		"gelu's gradient: dst has 3 element": p.GELUGrad(three, six, six),
		"exp: dst overlaps":                  p.Exp(six[1:], six[:5]),
		"softmax: dst overlaps":              p.Softmax(Rows{1, 5}, six[1:], six[:5]),
		"mul: dst overlaps":                  p.Mul(six[:5], six[:5], six[1:]),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Far from 0 the gradient is that of the line it is.
func TestGradFar(t *testing.T) {
	p, err := NewPool(1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	inf := float32(math.Inf(1))
	x := []float32{20, 1e30, math.MaxFloat32, inf, -20, -1e30, -math.MaxFloat32, -inf}
	dy, dst := make([]float32, len(x)), make([]float32, len(x))
	for i := range dy {
		dy[i] = 3
	}
	for name, f := range map[string]func(dst, x, dy []float32) error{"gelu": p.GELUGrad, "silu": p.SiLUGrad} {
		for i := range x {
			if name == "silu" && x[i]*x[i] == 400 {
				x[i] *= 10
			}
		}
		if err := f(dst, x, dy); err != nil {
			t.Fatal(err)
		}
		for i, got := range dst {
			if want := map[bool]float32{true: 3}[x[i] > 0]; math.Abs(float64(got-want)) > 1e-30 {
				t.Errorf("%s' at %g is %g times 3, want %g", name, x[i], got, want)
			}
		}
	}
}

func TestRowsOfNothing(t *testing.T) {
	p, err := NewPool(2)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	mean, rstd := []float32{7}, []float32{7}
	if err := errors.Join(p.Softmax(Rows{math.MaxInt, 0}, nil, nil), p.LayerNorm(Rows{1, 0}, nil, nil, nil, nil, 1, mean, rstd)); err != nil || mean[0] != 0 || rstd[0] != 0 {
		t.Errorf("%v, mean %v, rstd %v", err, mean, rstd)
	}
}

func BenchmarkSoftmax(b *testing.B) {
	p, err := NewPool(2)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	rows := Rows{256, 1024}
	x := normal(rand.New(rand.NewPCG(1, 2)), rows.N*rows.Cols)
	dst := make([]float32, len(x))
	b.SetBytes(int64(8 * len(x)))
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Softmax(rows, dst, x); err != nil {
			b.Fatal(err)
		}
	}
}
