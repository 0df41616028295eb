package state_test

import (
	"context"
	"fmt"

	"github.com/kith-mesh/kith/node/state"
)

func Example() {
	s, err := state.Open(state.Memory)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := s.Set(ctx, "name", []byte("attic")); err != nil { // durable when it returns
		fmt.Println(err)
	}
	name, err := s.Get(ctx, "name")
	fmt.Println(string(name), err)
	fmt.Println(s.Close())
	// Output:
	// attic <nil>
	// <nil>
}
