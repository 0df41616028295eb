package gguf_test

import (
	"bytes"
	"fmt"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/gguf"
)

func Example() {
	weights := make([]float32, 32)
	for i := range weights {
		weights[i] = float32(i)
	}
	data := make([]byte, 34)
	if err := tensor.Quantise(data, tensor.Q8_0, weights); err != nil {
		fmt.Println(err)
		return
	}
	var file bytes.Buffer
	err := gguf.Write(&file, gguf.Metadata{"general.architecture": "llama", "llama.block_count": uint32(1)}, []archive.Source{
		{Name: "output.weight", DType: tensor.Q8_0, Shape: []int{1, 32}, Data: bytes.NewReader(data)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := gguf.Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Metadata()["general.architecture"])
	for _, t := range f.Tensors() {
		data := make([]byte, t.Length)
		if err := f.Read(t.Name, data); err != nil {
			fmt.Println(err)
			return
		}
		if err := tensor.Dequantise(weights, t.DType, data); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(t.Name, t.DType, t.Shape, weights[:3])
	}
	// Output:
	// llama
	// output.weight q8_0 [1 32] [0 0.9765625 1.953125]
}
