package main

import (
	"fmt"

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
		one := func(name, doc string, f func(reg.Register) reg.Register) {
			v.loop(name, doc, tails, 1, func(x []reg.Register) reg.Register { return f(x[0]) })
		}
		two := func(name, doc string, f func(x, y reg.Register) reg.Register) {
			v.loop(name, doc, tails, 2, func(x []reg.Register) reg.Register { return f(x[0], x[1]) })
		}
		one("exp", "e^x", v.exp)
		one("tanh", "tanh x", v.tanh)
		one("gelu", "GELU of x", v.gelu)
		one("silu", "x / (1 + e^-x)", v.silu)
		two("geluGrad", "y times GELU' of x", v.geluGrad)
		two("siluGrad", "y times silu' of x", v.siluGrad)
		two("add", "x + y", func(x, y reg.Register) reg.Register { return v.add(x, y) })
		two("mul", "x y", func(x, y reg.Register) reg.Register { return v.mul(x, y) })
	}
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

// loop writes a function over n elements of so many inputs. What is left after
// whole registers is done under a mask.
func (v vec) loop(name, doc string, tails operand.Mem, inputs int, f func([]reg.Register) reg.Register) {
	args := "dst, x"
	if inputs == 2 {
		args += ", y"
	}
	name += v.name
	begin(v.Context, name, fmt.Sprintf("func(n int, %s *float32)", args), fmt.Sprintf("%s makes dst %s, of n elements.", name, doc))
	n := v.Load(v.Param("n"), v.GP64())
	dst := v.Load(v.Param("dst"), v.GP64())
	var in []reg.Register
	for _, p := range []string{"x", "y"}[:inputs] {
		in = append(in, v.Load(v.Param(p), v.GP64()))
	}
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
