package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// fold is a reduction to one number. Element i goes to lane i mod 16, in the order
// of i; then lane i takes lane i+8, i+4, i+2 and i+1 in, so that the result is the
// same on registers of any width.
type fold struct {
	name, doc string
	inputs    int     // vectors, x and y
	scalar    bool    // and a number s
	writes    bool    // an element of dst for each of x
	begin     float32 // of each lane
	// step takes an element in, and gives what is written if writes.
	step func(acc reg.Register, x []reg.Register, s reg.Register) (next, out reg.Register)
	// join takes lane b into lane a.
	join func(a, b reg.Register) reg.Register
}

// reduce writes the reductions.
func reduce(ctx *build.Context) {
	tails := tailMasks(ctx)
	consts := map[uint32]operand.Mem{}
	for _, set := range []isa{avx2, avx512} {
		v := vec{ctx, set, consts}
		sum := func(a, b reg.Register) reg.Register { return v.add(a, b) }
		for _, f := range []fold{
			{name: "sum", doc: "the sum of x", inputs: 1, join: sum,
				step: func(acc reg.Register, x []reg.Register, _ reg.Register) (reg.Register, reg.Register) {
					return v.add(acc, x[0]), nil
				}},
			{name: "max", doc: "the largest of x that is a number, -Inf of none", inputs: 1, begin: float32(math.Inf(-1)), join: v.larger,
				step: func(acc reg.Register, x []reg.Register, _ reg.Register) (reg.Register, reg.Register) {
					return v.larger(acc, x[0]), nil
				}},
			{name: "dot", doc: "the sum of x y", inputs: 2, join: sum,
				step: func(acc reg.Register, x []reg.Register, _ reg.Register) (reg.Register, reg.Register) {
					return v.fma(x[0], x[1], acc), nil
				}},
			{name: "spread", doc: "the sum of (x-s)^2", inputs: 1, scalar: true, join: sum,
				step: func(acc reg.Register, x []reg.Register, s reg.Register) (reg.Register, reg.Register) {
					d := v.sub(x[0], s)
					return v.fma(d, d, acc), nil
				}},
			{name: "expSum", doc: "the sum of e^(x-s), which it writes to dst,", inputs: 1, scalar: true, writes: true, join: sum,
				step: func(acc reg.Register, x []reg.Register, s reg.Register) (reg.Register, reg.Register) {
					e := v.exp(v.sub(x[0], s))
					return v.add(acc, e), e
				}},
		} {
			v.fold(f, tails)
		}
	}
}

// larger is b where a < b, else a, also where b is NaN.
func (v vec) larger(a, b reg.Register) reg.Register {
	r := v.like(a)
	v.VMAXPS(a, b, r)
	return r
}

func (v vec) fold(f fold, tails operand.Mem) {
	args := "x"
	if f.inputs == 2 {
		args += ", y"
	}
	if f.writes {
		args = "dst, " + args
	}
	args += " *float32"
	if f.scalar {
		args += ", s float32"
	}
	begin(v.Context, f.name+v.name, fmt.Sprintf("func(n int, %s) float32", args), fmt.Sprintf("%s is %s of n elements.", f.name+v.name, f.doc))
	n := v.Load(v.Param("n"), v.GP64())
	var at []reg.Register
	for _, p := range []string{"x", "y"}[:f.inputs] {
		at = append(at, v.Load(v.Param(p), v.GP64()))
	}
	var dst, s reg.Register
	all := at
	if f.writes {
		dst = v.Load(v.Param("dst"), v.GP64())
		all = append(all[:len(all):len(all)], dst)
	}
	if f.scalar {
		s = v.number("s")
	}
	lanes := v.bytes / 4
	accs := make([]reg.Register, 16/lanes)
	for i := range accs {
		accs[i] = v.new()
		v.VMOVUPS(v.c(f.begin), accs[i])
	}
	// whole takes one register's elements into lane group i.
	whole := func(i int) {
		var x []reg.Register
		for _, p := range at {
			x = append(x, v.load(operand.Mem{Base: p}))
		}
		next, out := f.step(accs[i], x, s)
		v.VMOVAPS(next, accs[i])
		if f.writes {
			v.VMOVUPS(out, operand.Mem{Base: dst})
		}
		for _, p := range all {
			v.ADDQ(operand.U8(v.bytes), p)
		}
	}
	// part takes fewer than a register's: lanes beyond stay as they are.
	part := func(i int) {
		if v.bytes == 64 {
			k := v.tailMask(n)
			var x []reg.Register
			for _, p := range at {
				r := v.new()
				v.VMOVUPS_Z(operand.Mem{Base: p}, k, r)
				x = append(x, r)
			}
			next, out := f.step(accs[i], x, s)
			v.VMOVAPS(next, k, accs[i])
			if f.writes {
				v.VMOVUPS(out, k, operand.Mem{Base: dst})
			}
			return
		}
		mask := v.tailVector(n, tails)
		var x []reg.Register
		for _, p := range at {
			r := v.new()
			v.VMASKMOVPS(operand.Mem{Base: p}, mask, r)
			x = append(x, r)
		}
		next, out := f.step(accs[i], x, s)
		v.VBLENDVPS(mask, next, accs[i], accs[i])
		if f.writes {
			v.VMASKMOVPS(out, mask, operand.Mem{Base: dst})
		}
	}
	v.SUBQ(operand.U8(16), n)
	v.JLT(operand.LabelRef("tail"))
	v.Label("loop")
	for i := range accs {
		whole(i)
	}
	v.SUBQ(operand.U8(16), n)
	v.JGE(operand.LabelRef("loop"))
	v.Label("tail")
	v.ADDQ(operand.U8(16), n)
	if len(accs) == 2 {
		v.CMPQ(n, operand.U8(8))
		v.JLT(operand.LabelRef("low"))
		whole(0)
		v.SUBQ(operand.U8(8), n)
		v.JZ(operand.LabelRef("join"))
		part(1)
		v.JMP(operand.LabelRef("join"))
		v.Label("low")
	}
	v.TESTQ(n, n)
	v.JZ(operand.LabelRef("join"))
	part(0)
	v.Label("join")
	var eight reg.Register
	if len(accs) == 2 {
		eight = f.join(accs[0], accs[1])
	} else {
		high := v.YMM()
		v.VEXTRACTF64X4(operand.U8(1), accs[0], high)
		eight = f.join(accs[0].(reg.VecVirtual).AsY(), high)
	}
	half := v.XMM()
	v.VEXTRACTF128(operand.U8(1), eight, half)
	four := f.join(eight.(reg.VecVirtual).AsX(), half)
	swapped := v.XMM()
	v.VPERMILPS(operand.U8(0x4e), four, swapped)
	two := f.join(four, swapped)
	next := v.XMM()
	v.VPERMILPS(operand.U8(0xb1), two, next)
	v.Store(f.join(two, next), v.ReturnIndex(0))
	v.VZEROUPPER()
	v.RET()
}
