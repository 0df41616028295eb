package tensor

import "math"

// The one NaN that conversions make, whatever the sign and payload they meet.
const (
	nanF16  = 0x7e00
	nanBF16 = 0x7fc0
)

// FromF16 widens an IEEE 754 half. It is exact; a NaN becomes the canonical one.
func FromF16(h uint16) float32 {
	sign, rest := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case rest > 0x7c00:
		return float32(math.NaN())
	case rest == 0x7c00:
		return math.Float32frombits(sign | 0x7f800000)
	case rest >= 0x0400:
		return math.Float32frombits(sign | (rest<<13 + (127-15)<<23))
	}
	// A denormal counts steps of 2^-24.
	return math.Float32frombits(sign | math.Float32bits(float32(rest)*0x1p-24))
}

// ToF16 rounds to the nearest half, to the even one of two as near; what is over
// 65504 by half a step or more becomes infinite. A NaN becomes the canonical one.
func ToF16(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b>>16) & 0x8000
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return nanF16
	case b >= 0x477ff000: // 65520
		return sign | 0x7c00
	case b < (127-14)<<23:
		// Below 2^-14 the step is 2^-24, which is that of floats from 0.5 to 1.
		const half = 0.5
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+half)-math.Float32bits(half))
	}
	b += 0xfff + b>>13&1
	return sign | uint16((b-(127-15)<<23)>>13)
}

// FromBF16 widens a bfloat16. It is exact and keeps a NaN's bits.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// ToBF16 rounds to the nearest bfloat16, to the even one of two as near. Denormals
// are kept; a NaN becomes the canonical one.
func ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return nanBF16
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
