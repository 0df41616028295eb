package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api/client"
)

// completer is what completion asks a node.
type completer = *client.Client

// complete makes a completion of first arguments out of what a node answers
// within a second; without a node there is none.
func (a *app) complete(list func(context.Context, completer) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.client(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var out []string
		for _, s := range list(ctx, c) {
			if strings.HasPrefix(s, prefix) {
				out = append(out, s)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// jobIDs completes jobs.
func (a *app) jobIDs() cobra.CompletionFunc {
	return a.complete(func(ctx context.Context, c completer) (out []string) {
		jobs, _ := c.Jobs(ctx, "", 100) // completion has no place for errors
		for _, j := range jobs {
			out = append(out, j.ID[:min(12, len(j.ID))]+"\t"+j.Name+", "+j.State)
		}
		return out
	})
}

// pinned completes CIDs.
func (a *app) pinned() cobra.CompletionFunc {
	return a.complete(func(ctx context.Context, c completer) (out []string) {
		pins, _ := c.Pins(ctx) // as above
		for _, p := range pins {
			out = append(out, p.CID+"\t"+p.Name)
		}
		return out
	})
}
