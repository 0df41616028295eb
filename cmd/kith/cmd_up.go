package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/node"
)

func (a *app) upCmd() *cobra.Command {
	var delays []string
	var whileStdin bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run this node, in the foreground",
		Long: `Runs the node until SIGINT or SIGTERM: it joins the mesh of its home, takes work,
and serves the local API. When the home belongs to no mesh yet, --join, --join-file
or --init say which one. Every flag but --delay may stand in config.yaml instead,
as apiListen for --api-listen.`,
		Example: `  kith up
  kith up --join kith1...                      # first start of a second machine
  kith up --join lan                           # a mesh of this network that is open
  kith up --cpu 50% --memory 2GiB --disk 20GiB
  kith up --init --invite-out /shared/invite --api-listen 0.0.0.0:7770`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.load(cmd); err != nil {
				return err
			}
			cfg, err := a.nodeConfig()
			if err != nil {
				return err
			}
			if cfg.Delays, err = parseDelays(delays); err != nil {
				return err
			}
			if err := crashSeams(&cfg.Seams); err != nil {
				return err
			}
			ctx := cmd.Context()
			if whileStdin {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				defer cancel()
				go func() {
					// Reads until the end of the process if nobody closes it.
					_, _ = io.Copy(io.Discard, a.in)
					cancel()
				}()
			}
			return a.up(ctx, cfg)
		},
	}
	addSettings(cmd.Flags(), upSettings)
	cmd.Flags().StringArrayVar(&delays, "delay", nil, "host:port=DURATION, one-way delay to the peer at that address, for tests on one machine; may be repeated")
	cmd.Flags().BoolVar(&whileStdin, "while-stdin", false, "shut down when standard input ends")
	return cmd
}

// nodeConfig is what the settings come to.
func (a *app) nodeConfig() (node.Config, error) {
	home, err := a.homeDir()
	if err != nil {
		return node.Config{}, err
	}
	s := a.config
	log, err := a.logger()
	if err != nil {
		return node.Config{}, err
	}
	cfg := node.Config{
		Home: home, Listen: s.Listen, NoQUIC: s.NoQUIC, APIListen: s.APIListen, APIHosts: s.APIHosts,
		Join: s.Join, JoinFile: s.JoinFile, InviteOut: s.InviteOut, Light: s.Light, Log: log,
	}
	if s.Init && (s.Join != "" || s.JoinFile != "") {
		return cfg, usagef("--init makes a mesh and --join takes one: give one of them")
	}
	err = errors.Join(named("cpu", cfg.Policy.CPU.Set(s.CPU)), named("memory", cfg.Policy.Memory.Set(s.Memory)), named("disk", cfg.Policy.Disk.Set(s.Disk)))
	return cfg, asUsage(err)
}

func named(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// logger writes to standard error.
func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.config.LogLevel)); err != nil {
		return nil, usagef("log-level: %q is none of debug, info, warn, error", a.config.LogLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch a.config.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(a.err, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.err, opts)), nil
	}
	return nil, usagef("log-format: %q is none of text, json", a.config.LogFormat)
}

func parseDelays(list []string) (map[string]time.Duration, error) {
	out := map[string]time.Duration{}
	for _, text := range list {
		addr, rest, ok := strings.Cut(text, "=")
		d, err := time.ParseDuration(rest)
		if _, _, aerr := net.SplitHostPort(addr); !ok || err != nil || d < 0 || aerr != nil {
			return nil, usagef("--delay %q: want host:port=DURATION such as 127.0.0.1:4102=20ms", text)
		}
		out[addr] = d
	}
	return out, nil
}

// up makes the mesh if asked to, runs the node until ctx ends, and says when it
// is up.
func (a *app) up(ctx context.Context, cfg node.Config) error {
	if a.config.Init && !cfg.Home.HasMesh() {
		if _, err := node.Found(cfg.Home, "", false, time.Now()); err != nil {
			return err
		}
	}
	started := make(chan node.Started, 1)
	cfg.Notify = func(s node.Started) { started <- s }
	n, err := node.New(ctx, cfg)
	if err != nil {
		return err
	}
	told := make(chan error, 1)
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	var pacing sync.WaitGroup
	pacing.Go(func() { paceCollector(runCtx) })
	go func() {
		select {
		case s := <-started:
			told <- a.tellUp(runCtx, cfg.Home, s)
		case <-runCtx.Done():
			told <- nil
		}
	}()
	err = n.Run(runCtx)
	stop()
	pacing.Wait()
	err = errors.Join(err, <-told)
	if err == nil && !a.json {
		fmt.Fprintln(a.out, "down")
	}
	return err
}

// tellUp prints what a user needs next.
func (a *app) tellUp(ctx context.Context, home node.Home, s node.Started) error {
	if a.json {
		b, err := json.Marshal(map[string]any{"mesh": s.Mesh, "peer": s.Peer, "api": s.API, "listen": s.Listen, "home": string(home)})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, string(b))
		return err
	}
	return a.show(nil, func(w io.Writer) {
		fmt.Fprintln(w, "kith is up")
		fmt.Fprintf(w, "  mesh\t%s\n  node\t%s\n", s.Mesh, s.Peer)
		for _, l := range s.Listen {
			fmt.Fprintf(w, "  peers\t%s\n", l)
		}
		fmt.Fprintf(w, "  api\thttp://%s (token: kith token)\n", s.API)
		fmt.Fprintf(w, "  reach\t%s\n", a.reach(ctx, home, s.API))
		if s.Invites {
			fmt.Fprintf(w, "  invite\tkith invite create\n")
		}
	})
}

// reach asks the node how others reach it; at the start it may not know yet.
func (a *app) reach(ctx context.Context, home node.Home, address string) string {
	const unknown = "not known yet; 'kith status' tells later"
	token, err := home.LoadAPIToken()
	if err != nil {
		return unknown
	}
	c, err := client.New(address, token)
	if err != nil {
		return unknown
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil || st.Reachability.State == "unknown" || st.Reachability.State == "" {
		return unknown
	}
	if st.Reachability.Detail != "" {
		return st.Reachability.State + ": " + st.Reachability.Detail
	}
	return st.Reachability.State
}
