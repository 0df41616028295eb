package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/testnet"
)

func (a *app) demoCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Run a mesh of five nodes on this machine, and a real job on it",
		Long: `Starts five nodes, each a process with its own identity, store and ports, with
delays on the links between them; counts the words of a text with two replicas of
every task; kills one worker half-way with SIGKILL; and checks the counts against
a plain count. Exits with 0 only if they match and something was leased again.
Nothing is left behind, also after Ctrl-C.`,
		Example: `  kith demo
  kith demo --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			d := testnet.Demo{Exe: exe, Out: a.out}
			if a.json {
				d.Out = a.err
			}
			out, err := d.Run(ctx)
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return err
			}
			return a.show(out, func(io.Writer) {})
		},
	}
}
