package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// each writes the loops over elements.
func each(ctx *build.Context) {
	consts := map[uint32]operand.Mem{}
	tails := tailMasks(ctx)
	for _, set := range []isa{avx2, avx512} {
		v := vec{ctx, set, consts}
		for _, l := range []loop{
			{"exp", "e^x", []string{"x"}, nil, func(x, _ []reg.Register) reg.Register { return v.exp(x[0]) }},
			{"tanh", "tanh x", []string{"x"}, nil, func(x, _ []reg.Register) reg.Register { return v.tanh(x[0]) }},
			{"gelu", "GELU of x", []string{"x"}, nil, func(x, _ []reg.Register) reg.Register { return v.gelu(x[0]) }},
			{"silu", "x / (1 + e^-x)", []string{"x"}, nil, func(x, _ []reg.Register) reg.Register { return v.silu(x[0]) }},
			{"geluGrad", "y times GELU' of x", []string{"x", "y"}, nil, func(x, _ []reg.Register) reg.Register { return v.geluGrad(x[0], x[1]) }},
			{"siluGrad", "y times silu' of x", []string{"x", "y"}, nil, func(x, _ []reg.Register) reg.Register { return v.siluGrad(x[0], x[1]) }},
			{"add", "x + y", []string{"x", "y"}, nil, func(x, _ []reg.Register) reg.Register { return v.add(x[0], x[1]) }},
			{"mul", "x y", []string{"x", "y"}, nil, func(x, _ []reg.Register) reg.Register { return v.mul(x[0], x[1]) }},
			{"scale", "x s", []string{"x"}, []string{"s"}, func(x, s []reg.Register) reg.Register { return v.mul(x[0], s[0]) }},
			{"divide", "x / s", []string{"x"}, []string{"s"}, func(x, s []reg.Register) reg.Register { return v.div(x[0], s[0]) }},
			{"addScaled", "x s + y", []string{"x", "y"}, []string{"s"}, func(x, s []reg.Register) reg.Register { return v.fma(x[0], s[0], x[1]) }},
			{"affine", "(x-c) s w + b", []string{"x", "w", "b"}, []string{"c", "s"}, func(x, s []reg.Register) reg.Register {
				return v.fma(v.mul(v.sub(x[0], s[0]), s[1]), x[1], x[2])
			}},
			{"weigh", "x s w", []string{"x", "w"}, []string{"s"}, func(x, s []reg.Register) reg.Register { return v.mul(v.mul(x[0], s[0]), x[1]) }},
		} {
			v.loop(l, tails)
		}
	}
}

// loop is a function of each element of some vectors, and of some numbers.
type loop struct {
	name, doc        string
	vectors, scalars []string
	f                func(x, s []reg.Register) reg.Register
}

// tailMasks are eight lanes on, then eight off, for AVX2.
func tailMasks(ctx *build.Context) operand.Mem {
	tails := ctx.StaticGlobal("tails")
	ctx.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		on := operand.U32(0)
		if i < 8 {
			on = ^on
		}
		ctx.AddDatum(4*i, on)
	}
	return tails
}

// number is a float32 argument in each lane.
func (v vec) number(name string) reg.Register {
	r := v.new()
	v.VBROADCASTSS(argument(v.Context, name), r)
	return r
}

// tailMask has the first n lanes on.
func (v vec) tailMask(n reg.Register) reg.Register {
	ones, k := v.GP64(), v.K()
	v.MOVQ(operand.U32(1), ones)
	v.SHLXQ(n, ones, ones)
	v.DECQ(ones)
	v.KMOVW(ones.As32(), k)
	return k
}

// tailVector is tailMask for AVX2.
func (v vec) tailVector(n reg.Register, tails operand.Mem) reg.Register {
	at, bytes, mask := v.GP64(), v.GP64(), v.YMM()
	v.LEAQ(tails.Offset(32), at)
	v.MOVQ(n, bytes)
	v.SHLQ(operand.U8(2), bytes)
	v.SUBQ(bytes, at)
	v.VMOVUPS(operand.Mem{Base: at}, mask)
	return mask
}

// loop writes a function over n elements. What is left after whole registers is
// done under a mask.
func (v vec) loop(l loop, tails operand.Mem) {
	args := "dst, " + strings.Join(l.vectors, ", ") + " *float32"
	if len(l.scalars) > 0 {
		args += ", " + strings.Join(l.scalars, ", ") + " float32"
	}
	name := l.name + v.name
	begin(v.Context, name, fmt.Sprintf("func(n int, %s)", args), fmt.Sprintf("%s makes dst %s, of n elements.", name, l.doc))
	n := v.Load(v.Param("n"), v.GP64())
	dst := v.Load(v.Param("dst"), v.GP64())
	var in, numbers []reg.Register
	for _, p := range l.vectors {
		in = append(in, v.Load(v.Param(p), v.GP64()))
	}
	for _, p := range l.scalars {
		numbers = append(numbers, v.number(p))
	}
	f := func(x []reg.Register) reg.Register { return l.f(x, numbers) }
	lanes := v.bytes / 4
	v.SUBQ(operand.U8(lanes), n)
	v.JLT(operand.LabelRef("tail"))
	v.Label("loop")
	var x []reg.Register
	for _, p := range in {
		x = append(x, v.load(operand.Mem{Base: p}))
	}
	v.VMOVUPS(f(x), operand.Mem{Base: dst})
	for _, p := range append(in, dst) {
		v.ADDQ(operand.U8(v.bytes), p)
	}
	v.SUBQ(operand.U8(lanes), n)
	v.JGE(operand.LabelRef("loop"))
	v.Label("tail")
	v.ADDQ(operand.U8(lanes), n)
	v.JZ(operand.LabelRef("done"))
	x = nil
	if v.bytes == 64 {
		k := v.tailMask(n)
		for _, p := range in {
			r := v.new()
			v.VMOVUPS_Z(operand.Mem{Base: p}, k, r)
			x = append(x, r)
		}
		v.VMOVUPS(f(x), k, operand.Mem{Base: dst})
	} else {
		mask := v.tailVector(n, tails)
		for _, p := range in {
			r := v.new()
			v.VMASKMOVPS(operand.Mem{Base: p}, mask, r)
			x = append(x, r)
		}
		v.VMASKMOVPS(f(x), mask, operand.Mem{Base: dst})
	}
	v.Label("done")
	v.VZEROUPPER()
	v.RET()
}
