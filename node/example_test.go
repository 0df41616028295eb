package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/kith-mesh/kith/node"
)

// A node founds a mesh in an empty home, runs, and stops when its context ends.
func Example() {
	dir, err := os.MkdirTemp("", "kith-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	cfg := node.Config{
		Home: node.Home(dir), Init: true, MeshName: "lab", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, APIListen: "127.0.0.1:0",
		Notify: func(s node.Started) {
			fmt.Println("up, may invite:", s.Invites)
			cancel()
		},
	}
	n, err := node.New(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := n.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Println(err)
		return
	}
	id, err := node.Identify(node.Home(dir), time.Now())
	fmt.Println("mesh", id.MeshName, err)
	// Output:
	// up, may invite: true
	// mesh lab <nil>
}
