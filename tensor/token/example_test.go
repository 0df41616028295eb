package token_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kith-mesh/kith/tensor/token"
)

func ExampleTrain() {
	texts := slices.Values([]string{strings.Repeat("low lower lowest ", 9)})
	tok, err := token.Train(texts, token.TrainConfig{Vocab: 270, Split: token.GPT2, Special: []string{"<end>"}})
	if err != nil {
		panic(err)
	}
	ids, err := tok.Encode("lowest <end>")
	if err != nil {
		panic(err)
	}
	for _, id := range ids {
		fmt.Printf("%d %q\n", id, tok.Bytes(id))
	}
	// Output:
	// 257 "low"
	// 101 "e"
	// 260 "st"
	// 32 " "
	// 60 "<"
	// 101 "e"
	// 110 "n"
	// 100 "d"
	// 62 ">"
}

func ExampleShard() {
	tok, err := token.Bytes(token.ChatStart, token.ChatEnd)
	if err != nil {
		panic(err)
	}
	var file bytes.Buffer
	w, err := token.NewShardWriter(&file, token.HeaderOf(tok, true))
	if err != nil {
		panic(err)
	}
	line := `{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}`
	if _, err := token.PackChat(w, tok, strings.NewReader(line)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	s, err := token.OpenShard(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		panic(err)
	}
	ids, loss := make([]token.ID, 4), make([]bool, 4)
	if err := errors.Join(s.Read(s.Len()-4, ids), s.ReadMask(s.Len()-4, loss)); err != nil {
		panic(err)
	}
	for i, id := range ids {
		fmt.Printf("%q %v\n", tok.Bytes(id), loss[i])
	}
	// Output:
	// "\n" false
	// "4" true
	// "<|im_end|>" true
	// "\n" false
}
