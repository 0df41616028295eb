// Package gguf reads and writes GGUF files, versions 2 and 3, little-endian: a
// header, typed metadata, descriptions of tensors, and their elements one after
// another, each padded to an alignment. The format is described in
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; where it leaves a
// choice, what llama.cpp reads decides.
//
// It takes files from strangers: a file is refused as a whole unless every count
// in it fits the file and its tensors lie one after another in it, and no count
// is believed before the file has room for it. It knows no model: what metadata
// means is its caller's affair. It never holds a tensor's elements in memory,
// never converts them (package tensor does) and never opens a file itself.
package gguf

import (
	"fmt"

	"github.com/kith-mesh/kith/tensor"
)

// Bounds of a file. A vocabulary of 260,000 words with its merges takes some
// 20 MB of metadata.
const (
	MaxHeader = 128 << 20 // bytes before the tensors' elements
	maxKey    = 1<<16 - 1 // bytes; the format's own
	maxName   = 64        // bytes of a tensor's name; the format's own
	maxRank   = 4         // dimensions of a tensor; the format's own
	maxDepth  = 4         // arrays within each other; llama.cpp takes 1
)

// format names this package's files in errors.
const format = "gguf"

const (
	magic   = "GGUF"
	version = 3 // which is written; 2 has the same layout
)

const (
	alignmentKey     = "general.alignment"
	defaultAlignment = 32
	maxAlignment     = 1 << 20 // of what is written
)

// elementTypes are ggml's, by their number in a file. Those without a DType are
// known and not supported.
var elementTypes = [...]struct {
	name  string
	dtype tensor.DType
}{
	0: {"f32", tensor.F32}, 1: {"f16", tensor.F16}, 30: {"bf16", tensor.BF16},
	2: {"q4_0", tensor.Q4_0}, 8: {"q8_0", tensor.Q8_0}, 12: {"q4_K", tensor.Q4_K}, 14: {"q6_K", tensor.Q6_K},
	3: {name: "q4_1"}, 4: {name: "q4_2"}, 5: {name: "q4_3"}, 6: {name: "q5_0"}, 7: {name: "q5_1"}, 9: {name: "q8_1"},
	10: {name: "q2_K"}, 11: {name: "q3_K"}, 13: {name: "q5_K"}, 15: {name: "q8_K"},
	16: {name: "iq2_xxs"}, 17: {name: "iq2_xs"}, 18: {name: "iq3_xxs"}, 19: {name: "iq1_s"}, 20: {name: "iq4_nl"},
	21: {name: "iq3_s"}, 22: {name: "iq2_s"}, 23: {name: "iq4_xs"}, 29: {name: "iq1_m"},
	24: {name: "i8"}, 25: {name: "i16"}, 26: {name: "i32"}, 27: {name: "i64"}, 28: {name: "f64"},
	31: {name: "q4_0_4_4"}, 32: {name: "q4_0_4_8"}, 33: {name: "q4_0_8_8"}, 34: {name: "tq1_0"}, 35: {name: "tq2_0"},
	36: {name: "iq4_nl_4_4"}, 37: {name: "iq4_nl_4_8"}, 38: {name: "iq4_nl_8_8"},
	39: {name: "mxfp4"}, 40: {name: "nvfp4"}, 41: {name: "q1_0"}, 42: {name: "q2_0"},
}

const supported = "f32, f16, bf16, q8_0, q4_0, q4_K and q6_K"

// elementType is the supported type of a number.
func elementType(n uint32) (tensor.DType, error) {
	if n >= uint32(len(elementTypes)) {
		return 0, fmt.Errorf("type %d is not known; there are %s", n, supported)
	}
	t := elementTypes[n]
	if t.dtype == 0 {
		return 0, fmt.Errorf("type %d, ggml's %s, is not supported; there are %s", n, t.name, supported)
	}
	return t.dtype, nil
}

// number is that of a type in a file.
func number(d tensor.DType) (uint32, error) {
	for n, t := range elementTypes {
		if t.dtype == d && d != 0 {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("%v is not written into this format; there are %s", d, supported)
}

// pad is how many bytes follow n to the next multiple of an alignment, a power of
// two.
func pad(n, alignment int64) int64 { return -n & (alignment - 1) }
