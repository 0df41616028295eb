package safetensors_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/safetensors"
)

// FuzzOpen: no input panics; what is opened covers the file, is JSON to another
// parser too, and written again opens as the same.
func FuzzOpen(f *testing.F) {
	f.Add(file(`{}`, 0))
	f.Add(file(`{"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}`, 8))
	f.Add(file(`{"__metadata__":{"format":"pt","\u00e9":"\n"},"a":{"dtype":"U8","shape":[],"data_offsets":[2,3]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}  `, 3))
	f.Add(file(`{"a":{"dtype":"I64","shape":[0,7],"data_offsets":[0,0]}}`, 0))
	f.Add(file(`{"a":{"dtype":"BOOL","shape":[9223372036854775807,2],"data_offsets":[0,0]}}`, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := open(b)
		if err != nil {
			return
		}
		var sources []archive.Source
		total := int64(0)
		for _, x := range file.Tensors() {
			s, err := file.Section(x.Name)
			if err != nil {
				t.Fatal(err)
			}
			total += x.Length
			if x.Offset < 8 || x.Offset+x.Length > int64(len(b)) {
				t.Fatalf("%+v lies outside of %d bytes", x, len(b))
			}
			sources = append(sources, archive.Source{Name: x.Name, DType: x.DType, Shape: x.Shape, Data: archive.From(s)})
		}
		var header map[string]any
		if err := json.Unmarshal(b[8:int64(len(b))-total], &header); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := safetensors.Write(&out, file.Metadata(), sources); err != nil {
			t.Fatal(err)
		}
		again, err := open(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(again.Metadata()) != fmt.Sprint(file.Metadata()) || len(again.Tensors()) != len(sources) {
			t.Fatalf("%v %v; want %v %v", again.Metadata(), again.Tensors(), file.Metadata(), file.Tensors())
		}
		for _, x := range file.Tensors() {
			y, ok := again.Tensor(x.Name)
			if !ok || y.DType != x.DType || fmt.Sprint(y.Shape) != fmt.Sprint(x.Shape) ||
				!bytes.Equal(out.Bytes()[y.Offset:y.Offset+y.Length], b[x.Offset:x.Offset+x.Length]) {
				t.Fatalf("%+v; want %+v", y, x)
			}
		}
	})
}
