package tensor

import (
	"fmt"
	"math"
)

// DType is the type of a tensor's elements, or a format of blocks of quantised
// ones. Its number is ours: files have their own.
type DType uint8

// Element types.
const (
	F32 DType = iota + 1
	F16
	BF16
	F64
	I8
	U8
	I16
	I32
	I64
	Bool

	// Blocks along the last dimension, laid out as GGUF lays them out.
	Q8_0 // 32 elements: an f16 scale and 32 int8
	Q4_0 // 32 elements: an f16 scale and 32 nibbles, each less 8
	Q4_K // 256 elements in 8 parts: f16 scale and minimum, 6-bit ones a part, nibbles
	Q6_K // 256 elements in 16 parts: an f16 scale, an int8 one a part, 6 bits each
)

var dtypes = [...]struct {
	name         string
	block, bytes int
}{
	F32: {"f32", 1, 4}, F16: {"f16", 1, 2}, BF16: {"bf16", 1, 2}, F64: {"f64", 1, 8},
	I8: {"i8", 1, 1}, U8: {"u8", 1, 1}, I16: {"i16", 1, 2}, I32: {"i32", 1, 4}, I64: {"i64", 1, 8}, Bool: {"bool", 1, 1},
	Q8_0: {"q8_0", 32, 34}, Q4_0: {"q4_0", 32, 18}, Q4_K: {"q4_k", 256, 144}, Q6_K: {"q6_k", 256, 210},
}

// Valid reports whether d is one of the types above.
func (d DType) Valid() bool { return d != 0 && int(d) < len(dtypes) }

// Quantised reports whether elements come in blocks that share a scale.
func (d DType) Quantised() bool { return d.Valid() && dtypes[d].block > 1 }

// Block is how many elements one block holds, 1 if there are no blocks, and how
// many bytes it takes. It panics on a type that is not Valid.
func (d DType) Block() (elements, bytes int) { return dtypes[d].block, dtypes[d].bytes }

func (d DType) String() string {
	if !d.Valid() {
		return fmt.Sprintf("dtype(%d)", uint8(d))
	}
	return dtypes[d].name
}

// ParseDType is the type with a name as String gives it.
func ParseDType(name string) (DType, error) {
	for d := F32; d.Valid(); d++ {
		if dtypes[d].name == name {
			return d, nil
		}
	}
	return 0, fmt.Errorf("element type %q is not known; there are f32, f16, bf16, f64, i8, u8, i16, i32, i64, bool, q8_0, q4_0, q4_k and q6_k", name)
}

// Elements is the product of a shape's dimensions, 1 for a scalar's empty one. It
// fails on a negative dimension and where the product overflows, also when
// another dimension is 0.
func Elements(shape []int) (int, error) {
	n, zero := 1, false
	for _, d := range shape {
		switch {
		case d < 0:
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		case d == 0:
			zero = true
		case n > math.MaxInt/d:
			return 0, fmt.Errorf("shape %v has more elements than fit an int", shape)
		default:
			n *= d
		}
	}
	if zero {
		return 0, nil
	}
	return n, nil
}

// Bytes is what a tensor of a type and shape takes. It fails where Elements does,
// and where the last dimension is no multiple of the type's block.
func (d DType) Bytes(shape []int) (int, error) {
	if !d.Valid() {
		return 0, fmt.Errorf("%v is no element type", d)
	}
	n, err := Elements(shape)
	if err != nil {
		return 0, err
	}
	block, bytes := d.Block()
	if block > 1 && (len(shape) == 0 || shape[len(shape)-1]%block != 0) {
		return 0, fmt.Errorf("shape %v does not end in a multiple of %d, the block of %v", shape, block, d)
	}
	if n /= block; n > math.MaxInt/bytes {
		return 0, fmt.Errorf("shape %v of %v has more bytes than fit an int", shape, d)
	}
	return n * bytes, nil
}
