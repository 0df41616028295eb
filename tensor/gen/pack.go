package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pack writes what lays strips of a matrix out for the tiles.
func pack(ctx *build.Context) {
	for _, set := range []isa{avx2, avx512} {
		turn(ctx, set)
		line(ctx, set)
		flop(ctx, set)
	}
	fetch(ctx)
}

// turn writes the transposition of as many rows as a register has lanes. Four
// columns at a time: quarter l of register r gets row 4l+r from memory, so that
// what is left is a transposition of 4 x 4 within each quarter.
func turn(ctx *build.Context, set isa) {
	lanes := set.bytes / 4
	begin(ctx, "turn"+set.name, "func(dst, src *float32, dstStride, srcStride, fours int)",
		fmt.Sprintf("turn%s writes %d rows of 4 x fours columns as columns. Strides are in bytes;", set.name, lanes),
		fmt.Sprintf("a stride of dst under %d makes lines overlap, of which the later wins.", set.bytes))
	dst := ctx.Load(ctx.Param("dst"), ctx.GP64())
	src := ctx.Load(ctx.Param("src"), ctx.GP64())
	dstStride := ctx.Load(ctx.Param("dstStride"), ctx.GP64())
	stride := ctx.Load(ctx.Param("srcStride"), ctx.GP64())
	fours := ctx.Load(ctx.Param("fours"), ctx.GP64())
	// Row 4l+r is at quarter[l] + r*stride.
	three := ctx.GP64()
	ctx.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, three)
	quarter := make([]reg.GPVirtual, lanes/4)
	for l := range quarter {
		quarter[l] = ctx.GP64()
		if l == 0 {
			ctx.MOVQ(src, quarter[l])
		} else {
			ctx.LEAQ(operand.Mem{Base: quarter[l-1], Index: stride, Scale: 4}, quarter[l])
		}
	}
	row := func(l, r int) operand.Mem {
		switch r {
		case 0:
			return operand.Mem{Base: quarter[l]}
		case 1, 2:
			return operand.Mem{Base: quarter[l], Index: stride, Scale: uint8(r)}
		default:
			return operand.Mem{Base: quarter[l], Index: three, Scale: 1}
		}
	}
	ctx.TESTQ(fours, fours)
	ctx.JZ(operand.LabelRef("done"))
	ctx.Label("loop")
	var in, half, out [4]reg.Register
	for r := range in {
		in[r], half[r], out[r] = set.reg(ctx), set.reg(ctx), set.reg(ctx)
		ctx.VMOVUPS(row(0, r), in[r].(reg.VecVirtual).AsX())
		for l := 1; l < len(quarter); l++ {
			if set.bytes == 32 {
				ctx.VINSERTF128(operand.U8(l), row(l, r), in[r], in[r])
			} else {
				ctx.VINSERTF32X4(operand.U8(l), row(l, r), in[r], in[r])
			}
		}
	}
	ctx.VUNPCKLPS(in[1], in[0], half[0])
	ctx.VUNPCKHPS(in[1], in[0], half[1])
	ctx.VUNPCKLPS(in[3], in[2], half[2])
	ctx.VUNPCKHPS(in[3], in[2], half[3])
	ctx.VUNPCKLPD(half[2], half[0], out[0])
	ctx.VUNPCKHPD(half[2], half[0], out[1])
	ctx.VUNPCKLPD(half[3], half[1], out[2])
	ctx.VUNPCKHPD(half[3], half[1], out[3])
	for i := range out {
		ctx.VMOVUPS(out[i], operand.Mem{Base: dst})
		ctx.ADDQ(dstStride, dst)
	}
	for _, q := range quarter {
		ctx.ADDQ(operand.U8(16), q)
	}
	ctx.DECQ(fours)
	ctx.JNZ(operand.LabelRef("loop"))
	ctx.Label("done")
	ctx.VZEROUPPER()
	ctx.RET()
}

// line writes a copy of lines two registers wide.
func line(ctx *build.Context, set isa) {
	begin(ctx, "line"+set.name, "func(dst, src *float32, dstStride, srcStride, n int)",
		fmt.Sprintf("line%s copies n lines of %d. Strides are in bytes.", set.name, set.bytes/2))
	dst := ctx.Load(ctx.Param("dst"), ctx.GP64())
	src := ctx.Load(ctx.Param("src"), ctx.GP64())
	dstStride := ctx.Load(ctx.Param("dstStride"), ctx.GP64())
	stride := ctx.Load(ctx.Param("srcStride"), ctx.GP64())
	n := ctx.Load(ctx.Param("n"), ctx.GP64())
	ctx.TESTQ(n, n)
	ctx.JZ(operand.LabelRef("done"))
	ctx.Label("loop")
	left, right := set.reg(ctx), set.reg(ctx)
	ctx.VMOVUPS(operand.Mem{Base: src}, left)
	ctx.VMOVUPS(operand.Mem{Base: src, Disp: set.bytes}, right)
	ctx.VMOVUPS(left, operand.Mem{Base: dst})
	ctx.VMOVUPS(right, operand.Mem{Base: dst, Disp: set.bytes})
	ctx.ADDQ(stride, src)
	ctx.ADDQ(dstStride, dst)
	ctx.DECQ(n)
	ctx.JNZ(operand.LabelRef("loop"))
	ctx.Label("done")
	ctx.VZEROUPPER()
	ctx.RET()
}

// flop writes a loop of independent chains of multiply-adds on registers: what a core can do.
func flop(ctx *build.Context, set isa) {
	chains := 2 * set.rows
	begin(ctx, "flop"+set.name, "func(n int)", fmt.Sprintf("flop%s does n times %d fused multiply-adds of %d lanes.", set.name, chains, set.bytes/4))
	n := ctx.Load(ctx.Param("n"), ctx.GP64())
	x := set.reg(ctx)
	set.zero(ctx, x)
	acc := make([]reg.Register, chains)
	for i := range acc {
		acc[i] = set.reg(ctx)
		set.zero(ctx, acc[i])
	}
	ctx.Label("loop")
	for _, a := range acc {
		ctx.VFMADD231PS(x, x, a)
	}
	ctx.DECQ(n)
	ctx.JGT(operand.LabelRef("loop"))
	ctx.VZEROUPPER()
	ctx.RET()
}

// fetch writes a hint that some lines of some rows will be wanted.
func fetch(ctx *build.Context) {
	begin(ctx, "fetch", "func(src *float32, stride, rows, lines int)", "fetch asks for lines of 64 bytes of each row. The stride is in bytes.")
	src := ctx.Load(ctx.Param("src"), ctx.GP64())
	stride := ctx.Load(ctx.Param("stride"), ctx.GP64())
	rows := ctx.Load(ctx.Param("rows"), ctx.GP64())
	lines := ctx.Load(ctx.Param("lines"), ctx.GP64())
	at, n := ctx.GP64(), ctx.GP64()
	ctx.Label("row")
	ctx.SUBQ(operand.U8(1), rows)
	ctx.JLT(operand.LabelRef("done"))
	ctx.MOVQ(src, at)
	ctx.MOVQ(lines, n)
	ctx.Label("line")
	ctx.PREFETCHT0(operand.Mem{Base: at})
	ctx.ADDQ(operand.U8(64), at)
	ctx.DECQ(n)
	ctx.JGT(operand.LabelRef("line"))
	ctx.ADDQ(stride, src)
	ctx.JMP(operand.LabelRef("row"))
	ctx.Label("done")
	ctx.RET()
}

// spin writes a wait that is kind to the other thread of a core.
func spin(ctx *build.Context) {
	begin(ctx, "spin", "func(n int)",
		"spin pauses n times.")
	n := ctx.Load(ctx.Param("n"), ctx.GP64())
	ctx.Label("loop")
	ctx.PAUSE()
	ctx.DECQ(n)
	ctx.JGT(operand.LabelRef("loop"))
	ctx.RET()
}
