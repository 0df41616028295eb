package token_test

import (
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
