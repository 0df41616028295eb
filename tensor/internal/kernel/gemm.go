package kernel

import (
	"errors"
	"fmt"
	"unsafe"
)

// Gemm is C = A B, or C + A B if Load, over row-major float32. A is M x K, or
// K x M if TransA; B is K x N, or N x K if TransB; C is M x N. LDA, LDB and LDC are
// the elements from a row to the next.
//
// Each element of C is one chain of FMA from +0, or from C, over k ascending, then
// plus Bias, then Act of it, then plus Residual, each step rounded: neither blocks
// nor threads nor instruction sets can change a bit of it.
type Gemm struct {
	M, N, K        int
	A, B, C        []float32
	LDA, LDB, LDC  int
	TransA, TransB bool
	Load           bool

	Bias     []float32 // N of them; none: nil
	Act      Act
	Residual []float32 // M x N, LDR apart; none: nil.
	LDR      int
}

// Act is what a product's elements go through.
type Act int

// The activations.
const (
	Linear Act = iota
	ActGELU
	ActSiLU
	acts
)

// Scratch is what one thread needs to multiply: packed strips.
type Scratch struct {
	a, b, c []float32
}

// grow makes room for what a tier packs.
func (s *Scratch) grow(t *Tier, g *Gemm) {
	deep := min(g.K, t.depth)
	tall := min(g.M, t.tallest(deep))
	s.a = sized(s.a, (tall+t.rows)*deep+t.cols()) // the last tile has rows to spare, the last line of one spills
	s.b = sized(s.b, t.cols()*deep+t.cols())
	s.c = sized(s.c, t.rows*t.cols())
}

// sized is b, or a new one that holds n and begins at a cache line.
func sized(b []float32, n int) []float32 {
	if cap(b) >= n {
		return b[:n]
	}
	b = make([]float32, n+16)
	skip := (-int(uintptr(unsafe.Pointer(&b[0]))) & 63) / 4
	return b[skip : skip+n]
}

// Do makes rows m0 to m1 and columns n0 to n1 of C. Threads that share a Gemm take
// parts that don't overlap, each with a Scratch of its own.
func (t *Tier) Do(g *Gemm, m0, m1, n0, n1 int, s *Scratch) {
	if m0 >= m1 || n0 >= n1 {
		return
	}
	s.grow(t, g)
	if g.K == 0 {
		for i := m0; i < m1 && !g.Load; i++ {
			clear(g.C[i*g.LDC+n0 : i*g.LDC+n1])
		}
		t.finish(g, m0, m1, n0, n1)
		return
	}
	deep := share(g.K, t.depth)
	for k0 := 0; k0 < g.K; k0 += deep {
		t.pass(g, m0, m1, n0, n1, k0, min(k0+deep, g.K), s)
	}
}

// tallest is how many rows of A, so deep, are packed at once.
func (t *Tier) tallest(deep int) int { return max(t.rows, t.tall*t.depth/max(deep, 1)) }

// share is the size of parts, none over most, that cut n evenly.
func share(n, most int) int {
	parts := (n + most - 1) / most
	return (n + parts - 1) / parts
}

// pass adds columns k0 to k1 of A times those rows of B.
func (t *Tier) pass(g *Gemm, m0, m1, n0, n1, k0, k1 int, s *Scratch) {
	load := g.Load || k0 > 0
	tall := share(m1-m0, t.tallest(k1-k0))
	for i0 := m0; i0 < m1; i0 += tall {
		i1 := min(i0+tall, m1)
		rows := share(i1-i0, t.rows)
		t.packA(g, i0, i1, rows, k0, k1, s.a, s.b)
		for j0 := n0; j0 < n1; j0 += t.cols() {
			j1 := min(j0+t.cols(), n1)
			b, bStride := t.stripB(g, i1-i0, j0, j1, k0, k1, s.b)
			ahead := t.ahead(g, j1, n1, k0, k1)
			for i := i0; i < i1; i += rows {
				n := min(rows, i1-i)
				a := &s.a[(i-i0)*(k1-k0)]
				next, nextStride, nextStep := ahead.take(b)
				if more := min(rows, i1-i-rows); more > 0 {
					fetch(&g.C[(i+rows)*g.LDC+j0], 4*g.LDC, more, t.lanes/8)
				}
				if j1-j0 == t.cols() {
					t.tile[n](k1-k0, a, b, &g.C[i*g.LDC+j0], 4*rows, bStride, 4*g.LDC, load, next, nextStride, nextStep)
					continue
				}
				for r := 0; load && r < n; r++ {
					copy(s.c[r*t.cols():], g.C[(i+r)*g.LDC+j0:(i+r)*g.LDC+j1])
				}
				t.tile[n](k1-k0, a, b, &s.c[0], 4*rows, bStride, 4*t.cols(), load, next, nextStride, nextStep)
				for r := range n {
					copy(g.C[(i+r)*g.LDC+j0:(i+r)*g.LDC+j1], s.c[r*t.cols():])
				}
			}
			if k1 == g.K {
				t.finish(g, i0, i1, j0, j1)
			}
		}
	}
}

// strip is the source of the next strip of B, which tiles ask for while they
// multiply: it comes from far, and in lines too short for the machine to see where
// they lead.
type strip struct {
	b            []float32
	at           int // element to ask for next
	stride, step int // elements, as tiles take them
	skip         int // elements from one tile's first to the next's
	tiles        int // that still have something to ask for
}

// ahead is the strip that begins at column j.
func (t *Tier) ahead(g *Gemm, j, n1, k0, k1 int) strip {
	const line, block = 16, 32 // elements of a line; what a tile asks for at one nextStep
	if j+t.cols() > n1 {
		return strip{}
	}
	deep := k1 - k0
	if !g.TransB { // a tile asks for one line of each row
		return strip{g.B, k0*g.LDB + j, g.LDB, block * g.LDB, line, t.cols() / line}
	}
	// A tile asks for a line of up to 32 rows at each step: as many lines as it has
	// blocks.
	lines, blocks := (deep+line-1)/line, max(1, deep/block)
	return strip{g.B, j*g.LDB + k0, g.LDB, line, line * blocks, (lines + blocks - 1) / blocks}
}

// take is what the next tile is to ask for: of nothing, what is at hand.
func (s *strip) take(at *float32) (next *float32, stride, step int) {
	if s.tiles == 0 || s.at >= len(s.b) {
		return at, 0, 0
	}
	next = &s.b[s.at]
	s.at += s.skip
	s.tiles--
	return next, 4 * s.stride, 4 * s.step
}

// finish does what comes after the chain.
func (t *Tier) finish(g *Gemm, i0, i1, j0, j1 int) {
	if g.Bias == nil && g.Act == Linear && g.Residual == nil {
		return
	}
	for i := i0; i < i1; i++ {
		row := g.C[i*g.LDC+j0 : i*g.LDC+j1]
		if g.Bias != nil {
			t.Each2(Add, row, row, g.Bias[j0:j1])
		}
		switch g.Act {
		case ActGELU:
			t.Each(GELU, row, row)
		case ActSiLU:
			t.Each(SiLU, row, row)
		}
		if g.Residual != nil {
			t.Each2(Add, row, row, g.Residual[i*g.LDR+j0:i*g.LDR+j1])
		}
	}
}

// packA lays tiles of rows out one behind the other, each as columns: element
// (i, k) of a tile stands at k*rows + i. spare has room for as many rows as the
// widest turn takes, so deep.
func (t *Tier) packA(g *Gemm, i0, i1, rows, k0, k1 int, dst, spare []float32) {
	deep := k1 - k0
	for i := i0; i < i1; i, dst = i+rows, dst[rows*deep:] {
		n := min(rows, i1-i)
		k := k0
		if g.TransA {
			// Lines are as wide as a tile's columns and hold more than its rows.
			if last := (k1-1)*g.LDA + i + t.cols(); last <= len(g.A) {
				t.line(&dst[0], &g.A[k*g.LDA+i], 4*rows, 4*g.LDA, deep)
				continue
			}
			for ; k < k1; k++ {
				copy(dst[(k-k0)*rows:], g.A[k*g.LDA+i:k*g.LDA+i+n])
			}
			continue
		}
		// The last group first: what its lines spill is the first one's.
		groups := (rows + t.lanes - 1) / t.lanes
		from, stride := g.A[i*g.LDA+k:], g.LDA
		if i+groups*t.lanes > g.M && deep >= 4 { // the rows behind the last are anybody's
			for r := range n {
				copy(spare[r*deep:(r+1)*deep], g.A[(i+r)*g.LDA+k:])
			}
			from, stride = spare, deep
		}
		if deep >= 4 {
			for r := (groups - 1) * t.lanes; r >= 0; r -= t.lanes {
				t.turn(&dst[r], &from[r*stride], 4*rows, 4*stride, deep/4)
			}
			k += deep &^ 3
		}
		for r := range n {
			for p, x := range g.A[(i+r)*g.LDA+k : (i+r)*g.LDA+k1] {
				dst[(k-k0+p)*rows+r] = x
			}
		}
		if n < rows {
			return
		}
	}
}

// stripB is columns j0 to j1 of B as lines for tiles, and the bytes from one to
// the next: B itself where that is as good.
func (t *Tier) stripB(g *Gemm, tall, j0, j1, k0, k1 int, dst []float32) (*float32, int) {
	deep, wide := k1-k0, t.cols()
	k := k0
	switch {
	case j1-j0 < wide: // plainly
		if !g.TransB {
			for ; k < k1; k++ {
				copy(dst[(k-k0)*wide:], g.B[k*g.LDB+j0:k*g.LDB+j1])
			}
		}
	case !g.TransB && tall <= 2*t.rows:
		return &g.B[k*g.LDB+j0], 4 * g.LDB
	case !g.TransB:
		t.line(&dst[0], &g.B[k*g.LDB+j0], 4*wide, 4*g.LDB, deep)
		k = k1
	default:
		t.turn(&dst[0], &g.B[j0*g.LDB+k], 4*wide, 4*g.LDB, deep/4)
		t.turn(&dst[t.lanes], &g.B[(j0+t.lanes)*g.LDB+k], 4*wide, 4*g.LDB, deep/4)
		k += deep &^ 3
	}
	for c := range j1 - j0 {
		if k == k1 {
			break
		}
		for p, x := range g.B[(j0+c)*g.LDB+k : (j0+c)*g.LDB+k1] {
			dst[(k-k0+p)*wide+c] = x
		}
	}
	return &dst[0], 4 * wide
}

// Check fails if a size is negative, a slice too short for its matrix, or C begins
// where another does. What overlaps otherwise is the caller's to know: columns of one
// matrix may stand between each other.
func (g *Gemm) Check() error {
	if g.M < 0 || g.N < 0 || g.K < 0 {
		return fmt.Errorf("M %d, N %d, K %d: none may be negative", g.M, g.N, g.K)
	}
	if g.Bias != nil && len(g.Bias) < g.N {
		return fmt.Errorf("Bias has %d elements: %d columns take more", len(g.Bias), g.N)
	}
	if g.Act < Linear || g.Act >= acts {
		return fmt.Errorf("Act is %d: there is no such activation", g.Act)
	}
	rows := func(trans bool, rows, cols int) (int, int) {
		if trans {
			return cols, rows
		}
		return rows, cols
	}
	for _, m := range []struct {
		name       string
		data       []float32
		ld         int
		trans      bool
		rows, cols int
	}{{"A", g.A, g.LDA, g.TransA, g.M, g.K}, {"B", g.B, g.LDB, g.TransB, g.K, g.N}, {"C", g.C, g.LDC, false, g.M, g.N}, {"R", g.Residual, g.LDR, false, g.M, g.N}} {
		if m.name == "R" && m.data == nil {
			continue
		}
		if m.name != "C" && begins(m.data, g.C) || begins(g.Bias, g.C) {
			return errors.New("C begins where an operand does: the operand would be overwritten before it is used; give C its own memory")
		}
		r, c := rows(m.trans, m.rows, m.cols)
		if m.ld < c {
			return fmt.Errorf("LD%s is %d: a row of %s holds %d elements", m.name, m.ld, m.name, c)
		}
		if r == 0 || c == 0 {
			continue
		}
		// (r-1) ld + c elements, without overflow.
		if c > len(m.data) || m.ld > 0 && r-1 > (len(m.data)-c)/m.ld {
			return fmt.Errorf("%s has %d elements: %d rows of %d, %d apart, take more", m.name, len(m.data), r, c, m.ld)
		}
	}
	return nil
}

// begins reports whether two slices begin at one element.
func begins(a, b []float32) bool { return len(a) > 0 && len(b) > 0 && &a[0] == &b[0] }

// Parts says how threads share a product: rows or columns a part, and how many
// parts there are. More than one a thread, for one that is slower than the others;
// but each part packs all of the other matrix, and so none is narrow.
func (t *Tier) Parts(g *Gemm, threads int) (byM bool, step, parts int) {
	const narrow = 192 // rows or columns over which packing is shared out
	if threads < 2 || g.M == 0 || g.N == 0 || float64(g.M)*float64(g.N)*float64(g.K) < 64*64*64 {
		return false, max(g.N, 1), 1
	}
	byM = g.M/t.rows > g.N/t.cols()
	whole, unit := g.N, t.cols()
	if byM {
		whole, unit = g.M, t.rows
	}
	units := (whole + unit - 1) / unit
	parts = min(units, max(threads, min(4*threads, whole/narrow)))
	step = (units + parts - 1) / parts * unit
	return byM, step, (whole + step - 1) / step
}
