package tensor

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/kith-mesh/kith/tensor/internal/kernel"
)

// Rows names equal rows of a row-major slice, one behind the other.
type Rows struct {
	N, Cols int
}

// side is an operand of rows: a vector of one element a column, or a matrix.
type side struct {
	name   string
	n      int
	vector bool
}

func (r Rows) check(op string, sides ...side) error {
	if r.N < 0 || r.Cols < 0 || r.Cols > 0 && r.N > math.MaxInt/r.Cols {
		return fmt.Errorf("%s: %d rows of %d are negative or more than fit an int", op, r.N, r.Cols)
	}
	for _, s := range sides {
		if s.vector && s.n != r.Cols {
			return fmt.Errorf("%s: %s has %d elements, not the %d of a row", op, s.name, s.n, r.Cols)
		}
		if !s.vector && s.n != r.N*r.Cols {
			return fmt.Errorf("%s: %s has %d elements, not the %d of %d rows of %d", op, s.name, s.n, r.N*r.Cols, r.N, r.Cols)
		}
	}
	return nil
}

// overlap reports whether two slices of one length share elements at different
// places.
func overlap(a, b []float32) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	x, y := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	return x != y && x < y+4*uintptr(len(b)) && y < x+4*uintptr(len(a))
}

func errOverlap(op string) error {
	return fmt.Errorf("%s: dst overlaps an operand and does not begin where it does: give it its own memory", op)
}

// rowJob is an operation on rows, or on elements, a stretch at a time.
type rowJob struct {
	tier       *kernel.Tier
	op         rowOp
	one        kernel.One
	two        kernel.Two
	rows       Rows
	step       int // rows of a part
	dst, x, y  []float32
	w, b       []float32
	mean, rstd []float32
	eps        float32
}

type rowOp int

const (
	opOne rowOp = iota
	opTwo
	opSoftmax
	opLayerNorm
	opRMSNorm
)

func (j *rowJob) part(i int, _ *kernel.Scratch) {
	from, to := i*j.step, min((i+1)*j.step, j.rows.N)
	lo, hi := from*j.rows.Cols, to*j.rows.Cols
	switch j.op {
	case opOne:
		j.tier.Each(j.one, j.dst[lo:hi], j.x[lo:hi])
		return
	case opTwo:
		j.tier.Each2(j.two, j.dst[lo:hi], j.x[lo:hi], j.y[lo:hi])
		return
	}
	for r := from; r < to; r++ {
		dst, x := j.dst[r*j.rows.Cols:(r+1)*j.rows.Cols], j.x[r*j.rows.Cols:(r+1)*j.rows.Cols]
		switch j.op {
		case opSoftmax:
			j.tier.Softmax(dst, x)
		case opLayerNorm:
			mean, rstd := j.tier.LayerNorm(dst, x, j.w, j.b, j.eps)
			if j.mean != nil {
				j.mean[r], j.rstd[r] = mean, rstd
			}
		case opRMSNorm:
			rstd := j.tier.RMSNorm(dst, x, j.w, j.eps)
			if j.rstd != nil {
				j.rstd[r] = rstd
			}
		}
	}
}

// parted is how many elements are worth a thread's while, longest how many one call
// may take: Go can't interrupt it, and its garbage collector waits.
const (
	parted  = 4096
	longest = 1 << 16
)

// rowwise shares rows among the threads.
func (p *Pool) rowwise(j rowJob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	threads := len(p.workers) + 1
	if j.rows.Cols == 0 || j.rows.N == 0 {
		clear(j.mean)
		clear(j.rstd)
		return
	}
	least, most := (parted+j.rows.Cols-1)/j.rows.Cols, max(1, longest/j.rows.Cols)
	j.tier, j.step = p.tier, min(max(1, least, (j.rows.N+4*threads-1)/(4*threads)), most)
	p.rows = j
	p.run(&p.rows, (j.rows.N+j.step-1)/j.step)
	p.rows = rowJob{}
}

// Softmax makes each row of dst e^(x-m), m being the row's largest, divided by the
// row's sum of it. Exact. A row with NaN or +Inf, or of nothing but -Inf, becomes
// NaN. dst may be x.
func (p *Pool) Softmax(rows Rows, dst, x []float32) error {
	if err := rows.check("softmax", side{"dst", len(dst), false}, side{"x", len(x), false}); err != nil {
		return err
	}
	if overlap(dst, x) {
		return errOverlap("softmax")
	}
	p.rowwise(rowJob{op: opSoftmax, rows: rows, dst: dst, x: x})
	return nil
}

// LayerNorm makes each row of dst (x-mean) rstd w + b, with rstd = 1/sqrt(var +
// eps), over the row. Exact. w and b have one element a column; mean and rstd, which
// a gradient wants, one a row, or are both nil. dst may be x.
func (p *Pool) LayerNorm(rows Rows, dst, x, w, b []float32, eps float32, mean, rstd []float32) error {
	if err := rows.check("layernorm", side{"w", len(w), true}, side{"b", len(b), true}, side{"dst", len(dst), false}, side{"x", len(x), false}); err != nil {
		return err
	}
	if (mean == nil) != (rstd == nil) || mean != nil && (len(mean) != rows.N || len(rstd) != rows.N) {
		return fmt.Errorf("layernorm: mean has %d elements and rstd %d, not one for each of %d rows", len(mean), len(rstd), rows.N)
	}
	if overlap(dst, x) {
		return errOverlap("layernorm")
	}
	p.rowwise(rowJob{op: opLayerNorm, rows: rows, dst: dst, x: x, w: w, b: b, eps: eps, mean: mean, rstd: rstd})
	return nil
}

// RMSNorm makes each row of dst x rstd w, with rstd = 1/sqrt(mean of x^2 + eps) over
// the row. Exact. w has one element a column; rstd one a row, or is nil. dst may be
// x.
func (p *Pool) RMSNorm(rows Rows, dst, x, w []float32, eps float32, rstd []float32) error {
	if err := rows.check("rmsnorm", side{"w", len(w), true}, side{"dst", len(dst), false}, side{"x", len(x), false}); err != nil {
		return err
	}
	if rstd != nil && len(rstd) != rows.N {
		return fmt.Errorf("rmsnorm: rstd has %d elements, not one for each of %d rows", len(rstd), rows.N)
	}
	if overlap(dst, x) {
		return errOverlap("rmsnorm")
	}
	p.rowwise(rowJob{op: opRMSNorm, rows: rows, dst: dst, x: x, w: w, eps: eps, rstd: rstd})
	return nil
}

// Exp makes dst e^x; Tanh its hyperbolic tangent; GELU and SiLU what they say, the
// first as approximated by tanh. Exact. dst may be x.
func (p *Pool) Exp(dst, x []float32) error  { return p.each("exp", kernel.Exp, dst, x) }
func (p *Pool) Tanh(dst, x []float32) error { return p.each("tanh", kernel.Tanh, dst, x) }
func (p *Pool) GELU(dst, x []float32) error { return p.each("gelu", kernel.GELU, dst, x) }
func (p *Pool) SiLU(dst, x []float32) error { return p.each("silu", kernel.SiLU, dst, x) }

// Add makes dst x + y, Mul x y, each element by itself. Exact. dst may be either.
func (p *Pool) Add(dst, x, y []float32) error { return p.each2("add", kernel.Add, dst, x, y) }
func (p *Pool) Mul(dst, x, y []float32) error { return p.each2("mul", kernel.Mul, dst, x, y) }

// GELUGrad and SiLUGrad make dst the gradient of the operation's input x, of the
// gradient dy of its output. Exact. dst may be either.
func (p *Pool) GELUGrad(dst, x, dy []float32) error {
	return p.each2("gelu's gradient", kernel.GELUGrad, dst, x, dy)
}

func (p *Pool) SiLUGrad(dst, x, dy []float32) error {
	return p.each2("silu's gradient", kernel.SiLUGrad, dst, x, dy)
}

// line cuts elements into rows of one cache line, and what is left: whole is how
// many are in rows.
const line = 16

func (p *Pool) each(name string, op kernel.One, dst, x []float32) error {
	if len(dst) != len(x) {
		return fmt.Errorf("%s: dst has %d elements, x %d", name, len(dst), len(x))
	}
	if overlap(dst, x) {
		return errOverlap(name)
	}
	whole := len(x) / line * line
	p.rowwise(rowJob{op: opOne, one: op, rows: Rows{whole / line, line}, dst: dst[:whole], x: x[:whole]})
	p.tier.Each(op, dst[whole:], x[whole:])
	return nil
}

func (p *Pool) each2(name string, op kernel.Two, dst, x, y []float32) error {
	if len(dst) != len(x) || len(x) != len(y) {
		return fmt.Errorf("%s: dst has %d elements, the operands %d and %d", name, len(dst), len(x), len(y))
	}
	if overlap(dst, x) || overlap(dst, y) {
		return errOverlap(name)
	}
	whole := len(x) / line * line
	p.rowwise(rowJob{op: opTwo, two: op, rows: Rows{whole / line, line}, dst: dst[:whole], x: x[:whole], y: y[:whole]})
	p.tier.Each2(op, dst[whole:], x[whole:], y[whole:])
	return nil
}
