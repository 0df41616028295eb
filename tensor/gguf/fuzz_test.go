package gguf_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/gguf"
)

// FuzzOpen: no input panics; what is opened lies within the file, and written
// again opens as the same.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(head(0, 0)))
	b, err := write(gguf.Metadata{"a": uint8(1), "b": []string{"x", "yz"}, "c": []any{[]float32{1}, []any{[]bool{true}}}, "d": 0.5, "e": "f", "general.alignment": uint32(8)},
		source("v", tensor.F16, "ab", 1), source("w", tensor.Q8_0, string(make([]byte, 68)), 1, 2, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(padded(raw(head(1, 0), w(0)), 32))
	f.Add(padded(raw(head(2, 0), w(0), "v", uint32(2), 0, 5, uint32(0), 32), 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := open(b)
		if err != nil {
			return
		}
		var sources []archive.Source
		for _, e := range file.Tensors() {
			s, err := file.Section(e.Name)
			if err != nil {
				t.Fatal(err)
			}
			if e.Offset < 24 || e.Length < 0 || e.Length > 0 && e.Offset+e.Length > int64(len(b)) {
				t.Fatalf("%+v lies outside of %d bytes", e, len(b))
			}
			sources = append(sources, archive.Source{Name: e.Name, DType: e.DType, Shape: e.Shape, Data: archive.From(s)})
		}
		again, err := write(file.Metadata(), sources...)
		if err != nil {
			// What is written is a little less than what is read.
			for _, e := range file.Tensors() {
				if len(e.Name) > 63 {
					return
				}
			}
			if a := file.Alignment(); a < 8 || a > 1<<20 {
				return
			}
			t.Fatal(err)
		}
		same, err := open(again)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%#v", same.Metadata()) != fmt.Sprintf("%#v", file.Metadata()) || len(same.Tensors()) != len(sources) {
			t.Fatalf("%#v %v; want %#v %v", same.Metadata(), same.Tensors(), file.Metadata(), file.Tensors())
		}
		for _, x := range file.Tensors() {
			y, ok := same.Tensor(x.Name)
			if !ok || y.DType != x.DType || fmt.Sprint(y.Shape) != fmt.Sprint(x.Shape) || y.Length != x.Length ||
				!bytes.Equal(again[y.Offset:y.Offset+y.Length], b[x.Offset:][:x.Length]) {
				t.Fatalf("%+v; want %+v", y, x)
			}
		}
	})
}
