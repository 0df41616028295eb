package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is a vector instruction set.
type isa struct {
	name  string
	bytes int                               // of a register
	rows  int                               // of the largest tile
	reg   func(*build.Context) reg.Register // a virtual register
	zero  func(*build.Context, reg.Register)
}

var (
	avx2 = isa{"AVX2", 32, 6,
		func(c *build.Context) reg.Register { return c.YMM() },
		func(c *build.Context, r reg.Register) { c.VXORPS(r, r, r) }}
	avx512 = isa{"AVX512", 64, 14,
		func(c *build.Context) reg.Register { return c.ZMM() },
		func(c *build.Context, r reg.Register) { c.VPXORD(r, r, r) }}
)

// gemm writes one kernel for each height of tile: two registers wide, so that
// each element of A that is broadcast meets two vectors of B.
func gemm(ctx *build.Context) {
	for _, set := range []isa{avx2, avx512} {
		for rows := 1; rows <= set.rows; rows++ {
			tile(ctx, set, rows)
		}
	}
}

// tile writes C = C + A B, or A B, of rows x 2 registers, each element one chain
// of FMA over k ascending. Meanwhile it asks the second cache for what comes next:
// a line each k, nextStride apart, and after each block of 32 from nextStep further
// on.
func tile(ctx *build.Context, set isa, rows int) {
	begin(ctx, fmt.Sprintf("gemm%s_%d", set.name, rows), "func(k int, a, b, c *float32, aStride, bStride, cStride int, load bool, next *float32, nextStride, nextStep int)",
		fmt.Sprintf("gemm%s_%d is the tile of %d rows. Strides are in bytes.", set.name, rows, rows))
	k := ctx.Load(ctx.Param("k"), ctx.GP64())
	a := ctx.Load(ctx.Param("a"), ctx.GP64())
	b := ctx.Load(ctx.Param("b"), ctx.GP64())
	c := ctx.Load(ctx.Param("c"), ctx.GP64())
	aStride := ctx.Load(ctx.Param("aStride"), ctx.GP64())
	bStride := ctx.Load(ctx.Param("bStride"), ctx.GP64())
	cStride := ctx.Load(ctx.Param("cStride"), ctx.GP64())
	load := ctx.Load(ctx.Param("load"), ctx.GP8())
	next := ctx.Load(ctx.Param("next"), ctx.GP64())
	nextStride := ctx.Load(ctx.Param("nextStride"), ctx.GP64())

	acc := make([][2]reg.Register, rows)
	for i := range acc {
		acc[i] = [2]reg.Register{set.reg(ctx), set.reg(ctx)}
		set.zero(ctx, acc[i][0])
		set.zero(ctx, acc[i][1])
	}
	ctx.TESTB(load.(reg.GPVirtual), load.(reg.GPVirtual))
	ctx.JZ(operand.LabelRef("multiply"))
	at := ctx.GP64()
	ctx.MOVQ(c, at)
	for i := range acc {
		ctx.VMOVUPS(operand.Mem{Base: at}, acc[i][0])
		ctx.VMOVUPS(operand.Mem{Base: at, Disp: set.bytes}, acc[i][1])
		if i < rows-1 {
			ctx.ADDQ(cStride, at)
		}
	}
	ctx.Label("multiply")
	ctx.TESTQ(k, k)
	ctx.JZ(operand.LabelRef("store"))
	left, right, one := set.reg(ctx), set.reg(ctx), set.reg(ctx)
	n, line := ctx.GP64(), ctx.GP64()
	ctx.Label("block")
	ctx.MOVQ(next, line)
	ctx.ADDQ(argument(ctx, "nextStep"), next)
	ctx.MOVQ(operand.U32(32), n)
	ctx.CMPQ(k, n)
	ctx.CMOVQLT(k, n)
	ctx.SUBQ(n, k)
	ctx.Label("loop")
	ctx.VMOVUPS(operand.Mem{Base: b}, left)
	ctx.VMOVUPS(operand.Mem{Base: b, Disp: set.bytes}, right)
	ctx.PREFETCHT1(operand.Mem{Base: line})
	ctx.ADDQ(nextStride, line)
	for i := range acc {
		ctx.VBROADCASTSS(operand.Mem{Base: a, Disp: 4 * i}, one)
		ctx.VFMADD231PS(left, one, acc[i][0])
		ctx.VFMADD231PS(right, one, acc[i][1])
	}
	ctx.ADDQ(aStride, a)
	ctx.ADDQ(bStride, b)
	ctx.DECQ(n)
	ctx.JNZ(operand.LabelRef("loop"))
	ctx.TESTQ(k, k)
	ctx.JNZ(operand.LabelRef("block"))
	ctx.Label("store")
	for i := range acc {
		ctx.VMOVUPS(acc[i][0], operand.Mem{Base: c})
		ctx.VMOVUPS(acc[i][1], operand.Mem{Base: c, Disp: set.bytes})
		if i < rows-1 {
			ctx.ADDQ(cStride, c)
		}
	}
	ctx.VZEROUPPER()
	ctx.RET()
}
