package tensor

import (
	"fmt"

	"github.com/kith-mesh/kith/tensor/internal/kernel"
)

// Gemm is a matrix product over row-major float32: C = A B, or C + A B if Load.
// A is M x K, or stored as K x M if TransA; B is K x N, or stored as N x K, as
// weights are, if TransB; C is M x N. LDA, LDB and LDC are how many elements it is
// from a row, as stored, to the next.
//
// Its class is exact: each element of C is one chain of fused multiply-adds from
// +0, or from C, over k ascending; then plus Bias, then Act of it, then plus
// Residual; each step is rounded to float32.
type Gemm = kernel.Gemm

// What a product's elements go through.
const (
	Linear = kernel.Linear
	GELU   = kernel.ActGELU // the approximation by tanh
	SiLU   = kernel.ActSiLU
)

// gemmJob cuts a product into parts.
type gemmJob struct {
	tier *kernel.Tier
	g    Gemm
	byM  bool
	step int // rows, if byM, or columns of a part
}

// Gemm multiplies. C overlaps no operand. It fails, and touches nothing, if a slice
// is too short for its matrix or C begins where an operand does.
func (p *Pool) Gemm(g *Gemm) error {
	own := *g // what is checked is what is used
	if err := own.Check(); err != nil {
		return fmt.Errorf("gemm: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	j := &p.gemm
	j.tier, j.g = p.tier, own
	var parts int
	j.byM, j.step, parts = p.tier.Parts(&j.g, len(p.workers)+1)
	p.run(j, parts)
	j.g = Gemm{}
	return nil
}

func (j *gemmJob) part(i int, s *kernel.Scratch) {
	from := i * j.step
	if j.byM {
		j.tier.Do(&j.g, from, min(from+j.step, j.g.M), 0, j.g.N, s)
	} else {
		j.tier.Do(&j.g, 0, j.g.M, from, min(from+j.step, j.g.N), s)
	}
}
