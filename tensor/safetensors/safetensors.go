// Package safetensors reads and writes safetensors files: a length of eight
// bytes, a JSON header that names tensors, and their elements one after another,
// little-endian, the last dimension contiguous.
// https://huggingface.co/docs/safetensors has the format.
//
// It takes files from strangers: a file is refused as a whole unless its header
// describes every byte of it exactly once, and no count in it is believed before
// the file has room for it. It never holds a tensor's elements in memory, never
// converts them and never opens a file itself.
package safetensors

import (
	"strings"

	"github.com/kith-mesh/kith/tensor"
)

// Bounds of a file. MaxHeader is the format's own; a tensor of more dimensions
// than maxRank is of no use to any library.
const (
	MaxHeader = 100_000_000 // bytes of JSON
	maxRank   = 64
)

// format names this package's files in errors.
const format = "safetensors"

// lengthBytes is what stands before the header.
const lengthBytes = 8

// metadataKey is the header's entry that is no tensor.
const metadataKey = "__metadata__"

// dtypes are the element types that are supported, with the format's names, in
// the order in which its own library lays tensors out: alignment descending.
var dtypes = [...]struct {
	name  string
	dtype tensor.DType
}{
	{"I64", tensor.I64}, {"F64", tensor.F64},
	{"F32", tensor.F32}, {"I32", tensor.I32},
	{"BF16", tensor.BF16}, {"F16", tensor.F16}, {"I16", tensor.I16},
	{"I8", tensor.I8}, {"U8", tensor.U8}, {"BOOL", tensor.Bool},
}

// layout gives a type's place in that order, -1 for one that the format lacks.
func layout(d tensor.DType) int {
	for i, t := range dtypes {
		if t.dtype == d {
			return i
		}
	}
	return -1
}

func dtypeNames() string {
	names := make([]string, len(dtypes))
	for i, t := range dtypes {
		names[i] = t.name
	}
	return strings.Join(names, ", ")
}
