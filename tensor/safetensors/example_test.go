package safetensors_test

import (
	"bytes"
	"fmt"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/safetensors"
)

func Example() {
	var file bytes.Buffer
	err := safetensors.Write(&file, map[string]string{"format": "pt"}, []archive.Source{
		{Name: "mask", DType: tensor.Bool, Shape: []int{3}, Data: bytes.NewReader([]byte{1, 0, 1})},
		{Name: "step", DType: tensor.I64, Data: bytes.NewReader([]byte{7, 0, 0, 0, 0, 0, 0, 0})},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := safetensors.Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range f.Tensors() {
		data := make([]byte, t.Length)
		if err := f.Read(t.Name, data); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(t.Name, t.DType, t.Shape, data)
	}
	// Output:
	// step i64 [] [7 0 0 0 0 0 0 0]
	// mask bool [3] [1 0 1]
}
