// Command kith runs a node of a peer-to-peer compute mesh, and asks one to work.
//
// All but init, up, id, token, version and doctor talk to a running node through
// its local API. The command itself holds no state: flags, environment and the
// config file say which node is meant.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/kith-mesh/kith/tasks/runner"
	"github.com/kith-mesh/kith/testnet/bench"
)

//go:generate go test -run TestDocs -update .

func main() { os.Exit(kith()) }

func kith() int {
	if len(os.Args) > 1 && os.Args[1] == runner.ChildArg {
		return runner.ChildMain(os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == bench.ChildArg {
		return bench.ChildMain()
	}
	if len(os.Args) == 2 && os.Args[1] == bench.EchoArg {
		return bench.EchoMain()
	}
	// What waits or writes ends in order; a second signal ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], system())
}
