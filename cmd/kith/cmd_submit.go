package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
)

const specHelp = `A job file is YAML:

  name: wordcount
  program: ./wordcount.wasm            # path or CID
  inputs: [{source: ./books, split: {by: lines, size: 1000}}]
  reduce: {program: ./sum.wasm}        # optional second stage
  resources: {cpu: 1, memory: 256Mi, timeout: 60s}
  locality: {maxRTT: 80ms}
  verify: {mode: quorum, replicas: 2}  # none (default) or quorum
  retry: {max: 5}
  retention: 24h

Paths are relative to the file. Unknown keys are errors.`

func (a *app) submitCmd() *cobra.Command {
	var then after
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "Submit a job file to this node; print the job's ID",
		Long: `Stores what the file names by paths and makes this node the job's origin. The
job is durable before its ID is printed. "-" reads standard input.

` + specHelp,
		Example: `  kith submit job.yaml
  kith submit job.yaml --wait --out counts`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, dir, err := a.readSpec(args[0])
			if err != nil {
				return err
			}
			return a.submit(cmd, spec, dir, then, (*client.Client).Submit)
		},
	}
	then.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&then.wait, "wait", "w", false, "wait and write the result")
	return cmd
}

func (a *app) publishCmd() *cobra.Command {
	var then after
	var opts api.PublishOptions
	cmd := &cobra.Command{
		Use:   "publish FILE",
		Short: "Publish a job file for any node of the mesh to take up",
		Long: `Signs the job and sends it over the mesh's jobs topic until a node has taken it
up and answered. Programs and inputs travel inline when they are small, and by CID
otherwise. Uses the running node of this home; when none runs, it runs a light one
until the answer is here, and then writes the result. When that one is ended before,
the job goes on: a node of the same home ('kith up --light') takes its answer.

` + specHelp,
		Example: `  kith publish job.yaml --wait
  kith publish job.yaml --by-cid`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, dir, err := a.readSpec(args[0])
			if err != nil {
				return err
			}
			give := func(c *client.Client, ctx context.Context, s tasks.Spec) (tasks.JobID, error) {
				return c.Publish(ctx, s, opts)
			}
			if err := a.load(cmd); err != nil {
				return err
			}
			home, err := a.homeDir()
			if err != nil {
				return err
			}
			if _, err := home.ReadAPIAddress(); a.config.API != "" || !errors.Is(err, fs.ErrNotExist) {
				return a.submit(cmd, spec, dir, then, give)
			}
			if err := checkSpec(spec); err != nil {
				return err
			}
			then.wait = true
			return a.withLight(cmd.Context(), home, func(ctx context.Context, c *client.Client) error {
				return a.submitTo(ctx, c, spec, dir, then, give)
			})
		},
	}
	then.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&then.wait, "wait", "w", false, "wait and write the result")
	cmd.Flags().BoolVar(&opts.ByCID, "by-cid", false, "send nothing inline, however small")
	return cmd
}

// withLight runs a light node of this home while f works with it.
func (a *app) withLight(ctx context.Context, home node.Home, f func(context.Context, *client.Client) error) error {
	cfg, err := a.nodeConfig()
	if err != nil {
		return err
	}
	cfg.Light, cfg.APIListen = true, "127.0.0.1:0"
	if a.config.LogLevel == "info" { // the node is a means here
		cfg.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	started := make(chan node.Started, 1)
	cfg.Notify = func(s node.Started) { started <- s }
	n, err := node.New(ctx, cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- n.Run(ctx) }()
	select {
	case err := <-ran:
		if err == nil {
			err = ctx.Err()
		}
		return fmt.Errorf("light node: %w", err)
	case s := <-started:
		a.note("light node %s is up", s.Peer)
		err = a.useLight(ctx, home, s.API, f)
	}
	stop()
	return errors.Join(err, <-ran)
}

func (a *app) useLight(ctx context.Context, home node.Home, address string, f func(context.Context, *client.Client) error) error {
	token, err := home.LoadAPIToken()
	if err != nil {
		return err
	}
	c, err := client.New(address, token)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}
