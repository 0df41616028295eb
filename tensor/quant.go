package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Quantisation as ggml defines it, to the bit: Dequantise is its dequantize_row_*
// and Quantise its quantize_row_*_ref (src/ggml-quants.c), built without
// contraction and fast math, on x86. Every product that is added to something is
// rounded first, since the compiler may fuse the two otherwise.

// Dequantise widens elements of type d, F32, F16, BF16 or a quantised one, to
// float32. src is as many bytes, little-endian, as Bytes says of a row of
// len(dst).
func Dequantise(dst []float32, d DType, src []byte) error {
	if err := checkRow("dequantise", d, len(dst), len(src)); err != nil {
		return err
	}
	elements, bytes := d.Block()
	var block func(dst []float32, src []byte)
	switch d {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
		return nil
	case F16:
		for i := range dst {
			dst[i] = FromF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
		return nil
	case BF16:
		for i := range dst {
			dst[i] = FromBF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
		return nil
	case Q8_0:
		block = dequantQ8_0
	case Q4_0:
		block = dequantQ4_0
	case Q4_K:
		block = dequantQ4_K
	case Q6_K:
		block = dequantQ6_K
	}
	for len(dst) > 0 {
		block(dst[:elements], src[:bytes])
		dst, src = dst[elements:], src[bytes:]
	}
	return nil
}

// Quantise narrows float32 to elements of type d, F32, F16, BF16 or a quantised
// one. dst is as many bytes as Bytes says of a row of len(src). A quantised type
// has no place for NaN and infinities: they are refused, and dst is as it was.
func Quantise(dst []byte, d DType, src []float32) error {
	if err := checkRow("quantise", d, len(src), len(dst)); err != nil {
		return err
	}
	if d.Quantised() {
		for i, x := range src {
			if x-x != 0 {
				return fmt.Errorf("quantise: element %d is %g, which %v can't hold", i, x, d)
			}
		}
	}
	elements, bytes := d.Block()
	var block func(dst []byte, src []float32)
	switch d {
	case F32:
		for i, x := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
		}
		return nil
	case F16:
		for i, x := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], ToF16(x))
		}
		return nil
	case BF16:
		for i, x := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], ToBF16(x))
		}
		return nil
	case Q8_0:
		block = quantQ8_0
	case Q4_0:
		block = quantQ4_0
	case Q4_K:
		block = quantQ4_K
	case Q6_K:
		block = quantQ6_K
	}
	for len(src) > 0 {
		block(dst[:bytes], src[:elements])
		dst, src = dst[bytes:], src[elements:]
	}
	return nil
}

func checkRow(what string, d DType, elements, bytes int) error {
	switch {
	case d == F32 || d == F16 || d == BF16 || d.Quantised():
	case d.Valid():
		return fmt.Errorf("%s: %v holds whole numbers or doubles; there are f32, f16, bf16 and the quantised types", what, d)
	}
	want, err := d.Bytes([]int{elements})
	if err == nil && bytes != want {
		err = fmt.Errorf("%d elements of %v take %d bytes, not %d", elements, d, want, bytes)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func dequantQ8_0(dst []float32, src []byte) {
	d := FromF16(binary.LittleEndian.Uint16(src))
	for i, q := range src[2:34] {
		dst[i] = float32(int8(q)) * d
	}
}

func quantQ8_0(dst []byte, src []float32) {
	most := float32(0)
	for _, x := range src {
		most = max(most, abs(x))
	}
	d := most / 127
	inverse := invert(d)
	binary.LittleEndian.PutUint16(dst, ToF16(d))
	for i, x := range src {
		dst[2+i] = byte(truncate(float32(math.Round(float64(x * inverse)))))
	}
}

func dequantQ4_0(dst []float32, src []byte) {
	d := FromF16(binary.LittleEndian.Uint16(src))
	for i, q := range src[2:18] {
		dst[i] = float32(int(q&15)-8) * d
		dst[i+16] = float32(int(q>>4)-8) * d
	}
}

func quantQ4_0(dst []byte, src []float32) {
	most, at := float32(0), float32(0) // the largest magnitude, and who has it
	for _, x := range src {
		if most < abs(x) {
			most, at = abs(x), x
		}
	}
	d := at / -8
	inverse := invert(d)
	binary.LittleEndian.PutUint16(dst, ToF16(d))
	nibble := func(x float32) byte {
		return byte(min(15, truncate(float32(x*inverse)+8.5)))
	}
	for i := range 16 {
		dst[2+i] = nibble(src[i]) | nibble(src[i+16])<<4
	}
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// invert gives 0 for no scale. It is infinite for one below 2^-128.
func invert(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// truncate is C's conversion to int8 as x86 does it: by way of an int32, 0 for
// what that can't hold.
func truncate(x float32) int8 {
	if !(x >= math.MinInt32 && x < 1<<31) {
		return 0
	}
	return int8(int32(x))
}
