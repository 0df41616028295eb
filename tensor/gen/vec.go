package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vec writes arithmetic on registers of one instruction set. What it returns is a
// new register; its arguments stay as they are. Each operation rounds once.
type vec struct {
	*build.Context
	isa
	consts map[uint32]operand.Mem // 64 bytes of one value each, of the whole file
}

func (v vec) new() reg.Register { return v.isa.reg(v.Context) }

// like is a new register as wide as another.
func (v vec) like(a reg.Register) reg.Register {
	switch a.Size() {
	case 64:
		return v.ZMM()
	case 32:
		return v.YMM()
	default:
		return v.XMM()
	}
}

// bits is a constant, as an operand.
func (v vec) bits(b uint32) operand.Mem {
	m, ok := v.consts[b]
	if !ok {
		m = v.StaticGlobal(fmt.Sprintf("all_%08x", b))
		v.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range 16 {
			v.AddDatum(4*i, operand.U32(b))
		}
		v.consts[b] = m
	}
	return m
}

func (v vec) c(f float32) operand.Mem { return v.bits(math.Float32bits(f)) }

// reg is a constant in a register.
func (v vec) load(m operand.Mem) reg.Register {
	r := v.new()
	v.VMOVUPS(m, r)
	return r
}

func (v vec) add(a reg.Register, b operand.Op) reg.Register {
	r := v.like(a)
	v.VADDPS(b, a, r)
	return r
}

func (v vec) sub(a reg.Register, b operand.Op) reg.Register { // a - b
	r := v.new()
	v.VSUBPS(b, a, r)
	return r
}

func (v vec) mul(a reg.Register, b operand.Op) reg.Register {
	r := v.new()
	v.VMULPS(b, a, r)
	return r
}

func (v vec) div(a reg.Register, b operand.Op) reg.Register { // a / b
	r := v.new()
	v.VDIVPS(b, a, r)
	return r
}

// fma is a*b + c.
func (v vec) fma(a, b reg.Register, c operand.Op) reg.Register {
	r := v.new()
	v.VMOVAPS(a, r)
	v.VFMADD213PS(c, b, r)
	return r
}

// fmaBy is a*b + c with b from memory.
func (v vec) fmaBy(a reg.Register, b operand.Mem, c reg.Register) reg.Register {
	r := v.new()
	v.VMOVAPS(c, r)
	v.VFMADD231PS(b, a, r)
	return r
}

// atMost is limit where limit < x, else x, also if that is NaN.
func (v vec) atMost(limit operand.Mem, x reg.Register) reg.Register {
	r := v.new()
	v.VMINPS(x, v.load(limit), r)
	return r
}

func (v vec) atLeast(limit operand.Mem, x reg.Register) reg.Register {
	r := v.new()
	v.VMAXPS(x, v.load(limit), r)
	return r
}

func (v vec) and(a reg.Register, m operand.Mem) reg.Register {
	r := v.new()
	if v.bytes == 64 {
		v.VPANDD(m, a, r)
	} else {
		v.VPAND(m, a, r)
	}
	return r
}

func (v vec) xor(a reg.Register, b operand.Op) reg.Register {
	r := v.new()
	if v.bytes == 64 {
		v.VPXORD(b, a, r)
	} else {
		v.VPXOR(b, a, r)
	}
	return r
}

// ifLess is yes where a < b, else no, also if a or b is NaN.
func (v vec) ifLess(a reg.Register, b operand.Mem, yes, no reg.Register) reg.Register {
	const less = 1 // LT, ordered, signalling
	r := v.new()
	if v.bytes == 64 {
		k := v.K()
		v.VCMPPS(operand.U8(less), b, a, k)
		v.VBLENDMPS(yes, no, k, r)
	} else {
		mask := v.YMM()
		v.VCMPPS(operand.U8(less), b, a, mask)
		v.VBLENDVPS(mask, yes, no, r)
	}
	return r
}

// power is 2^n for the integer in the low bits of n + 127.
func (v vec) power(n reg.Register) reg.Register {
	r := v.new()
	v.VPADDD(v.bits(127), n, r)
	v.VPSLLD(operand.U8(23), r, r)
	return r
}

// exp is e^x. Argument by multiples of ln 2 in two parts, polynomial after
// S. Moshier's Cephes (expf.c), and scaling in two steps, since 2^n of the least
// results is no normal number.
func (v vec) exp(x reg.Register) reg.Register {
	const rounds = 0x1.8p23 // what is added to it is rounded to an integer
	x = v.atMost(v.c(89), x)
	x = v.atLeast(v.c(-104.5), x)
	shifted := v.fmaBy(x, v.c(float32(math.Log2E)), v.load(v.c(rounds)))
	n := v.sub(shifted, v.c(rounds))
	r := v.fmaBy(n, v.c(-0.693359375), x)
	r = v.fmaBy(n, v.c(2.12194440e-4), r)
	p := v.load(v.c(1.9875691500e-4))
	for _, c := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		p = v.fma(p, r, v.c(c))
	}
	p = v.fma(p, v.mul(r, r), r)
	p = v.add(p, v.c(1))

	whole, half, rest := v.new(), v.new(), v.new()
	v.VPSUBD(v.c(rounds), shifted, whole)
	v.VPSRAD(operand.U8(1), whole, half)
	v.VPSUBD(half, whole, rest)
	return v.mul(v.mul(p, v.power(half)), v.power(rest))
}

// tanh is by an odd polynomial for small arguments (Cephes, tanhf.c), else
// 1 - 2/(e^2x + 1) of the absolute value.
func (v vec) tanh(x reg.Register) reg.Register {
	const sign = 1 << 31
	a := v.and(x, v.bits(^uint32(sign)))
	e := v.exp(v.add(a, a))
	large := v.sub(v.load(v.c(1)), v.div(v.load(v.c(2)), v.add(e, v.c(1))))
	s := v.mul(a, a)
	p := v.load(v.c(-5.70498872745e-3))
	for _, c := range []float32{2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1} {
		p = v.fma(p, s, v.c(c))
	}
	small := v.fma(v.mul(p, s), a, a)
	return v.xor(v.ifLess(a, v.c(0.625), small, large), v.and(x, v.bits(sign)))
}

// What GELU's approximation by tanh (Hendrycks and Gimpel, 2016) comes to:
// x / (1 + e^(-2u)), with 2u = x (2 sqrt(2/pi) + 2 sqrt(2/pi) 0.044715 x^2).
const (
	geluOne  = 2 * 0.7978845608028654
	geluCube = geluOne * 0.044715
)

// geluExp is e^(-2u).
func (v vec) geluExp(x reg.Register) reg.Register {
	q := v.fma(v.mul(x, x), v.load(v.c(-geluCube)), v.c(-geluOne))
	return v.exp(v.mul(x, q))
}

func (v vec) gelu(x reg.Register) reg.Register {
	return v.div(x, v.add(v.geluExp(x), v.c(1)))
}

// geluGrad is dy (s + x s (1-s) (2u)'), s = 1/(1 + e^(-2u)).
func (v vec) geluGrad(x, dy reg.Register) reg.Register {
	x = v.atLeast(v.c(-16), v.atMost(v.c(16), x))
	s := v.div(v.load(v.c(1)), v.add(v.geluExp(x), v.c(1)))
	du := v.fma(v.mul(x, x), v.load(v.c(3*geluCube)), v.c(geluOne))
	slope := v.mul(s, v.sub(v.load(v.c(1)), s))
	return v.mul(dy, v.fma(v.mul(x, slope), du, s))
}

// silu is x / (1 + e^-x).
func (v vec) silu(x reg.Register) reg.Register {
	return v.div(x, v.add(v.exp(v.xor(x, v.bits(1<<31))), v.c(1)))
}

// siluGrad is dy (s + x s (1-s)), s = 1/(1 + e^-x).
func (v vec) siluGrad(x, dy reg.Register) reg.Register {
	x = v.atLeast(v.c(-120), v.atMost(v.c(120), x))
	s := v.div(v.load(v.c(1)), v.add(v.exp(v.xor(x, v.bits(1<<31))), v.c(1)))
	slope := v.mul(s, v.sub(v.load(v.c(1)), s))
	return v.mul(dy, v.fma(x, slope, s))
}
