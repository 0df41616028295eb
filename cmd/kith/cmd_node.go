package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/node"
)

func (a *app) initCmd() *cobra.Command {
	var name string
	var open bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a mesh, with this node as its founder",
		Long: `Makes a mesh: its root key, this node's identity and its member token, in the
home. The root key stays here; back the home up. To join a mesh that exists, use
'kith up --join LINE' instead.`,
		Example: `  kith init --name lab
  kith init --name home --open      # any machine of this LAN may join`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			home, err := a.homeDir()
			if err != nil {
				return err
			}
			m, err := node.Found(home, name, open, time.Now())
			if err != nil {
				return err
			}
			out := map[string]any{"mesh": string(m.ID), "peer": m.Peer.String(), "name": m.Name, "open": m.Open, "home": string(home)}
			return a.show(out, func(w io.Writer) {
				fmt.Fprintf(w, "mesh\t%s\nnode\t%s\nhome\t%s\n", m.ID, m.Peer, home)
				fmt.Fprintln(w, "\nstart it with 'kith up', then invite others with 'kith invite create'")
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what people call the mesh")
	cmd.Flags().BoolVar(&open, "open", false, "let machines of the same LAN join without an invite")
	return cmd
}

func (a *app) downCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "Shut the running node down",
		Long:    "Asks the node to shut down and waits until it has. What it held is on disk and goes on at the next start.",
		Example: "  kith down",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Down(cmd.Context()); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			err = poll(ctx, 50*time.Millisecond, func() (bool, error) {
				var gone *client.NotReachableError
				if !errors.As(c.Ready(ctx), &gone) || a.config.API != "" {
					return gone != nil, nil
				}
				// It no longer answers; it is down when it lets go of the home.
				home, err := a.homeDir()
				if err != nil {
					return false, err
				}
				return !home.InUse(), nil
			})
			if err != nil {
				return fmt.Errorf("the node at %s is not down after %v: %w: its log tells what it waits for", c.Address(), wait, err)
			}
			return a.show(map[string]bool{"down": true}, func(w io.Writer) { fmt.Fprintln(w, "down") })
		},
	}
	cmd.Flags().DurationVar(&wait, "timeout", 30*time.Second, "how long to wait until it is down")
	return cmd
}

// poll calls f until it is done, fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, f func() (done bool, err error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show how the node is",
		Example: "  kith status\n  kith status --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(st, func(w io.Writer) { writeStatus(w, st, time.Now()) })
		},
	}
}

func writeStatus(w io.Writer, st api.Status, now time.Time) {
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	ready := "ready"
	if !st.Ready {
		ready = "not ready: " + st.NotReady
	}
	row("state", "%s, up %s, version %s", ready, span(now.Sub(st.Started)), st.Version)
	row("mesh", "%s %s", st.Mesh, st.MeshName)
	row("node", "%s", st.Peer)
	row("rights", "%s, until %s", dash(strings.Join(st.Rights, " ")), st.Expires.Format(time.DateOnly))
	row("api", "%s", st.API)
	row("home", "%s", st.Home)
	reach := st.Reachability.State
	if st.Reachability.Detail != "" {
		reach += ": " + st.Reachability.Detail
	}
	row("reachable", "%s", reach)
	for _, addr := range st.Reachability.Addresses {
		row("", "%s", addr)
	}
	row("members", "%d connected, %d known, %s", st.Members, st.Known, plural(st.Neighbours, "neighbour"))
	full := size(st.Store.Bytes)
	if st.Store.Max > 0 {
		full += " of " + size(st.Store.Max)
	}
	row("store", "%s, %s", full, plural(int(st.Store.Pinned), "pin"))
	if st.Light {
		row("work", "light node: runs no job service")
	} else {
		owed := ""
		if st.Work.Owed > 0 {
			owed = ", " + plural(st.Work.Owed, "answer") + " not judged yet"
		}
		row("work", "%d of %s busy, %d queued%s; origin of %s", st.Work.Running, plural(st.Work.Slots, "slot"), st.Work.Queued, owed, plural(st.Work.Jobs, "open job"))
	}
	row("gives", "%s", gives(st.Policy, now))
}

func gives(p api.Policy, now time.Time) string {
	s := fmt.Sprintf("%s CPU (%.3g cores), %s memory, %s disk", p.CPU, p.Cores, size(p.Memory), size(p.Disk))
	if p.Paused {
		s += "; paused"
		if p.Until.IsZero() {
			return s + " until resumed"
		}
		return s + ", ends " + until(p.Until, now)
	}
	return s
}

func (a *app) healthCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Exit 0 when the node is ready, for container health checks",
		Long:  "Asks the node of this home whether it is ready. Needs no token and prints only what is missing.",
		Example: `  kith health && echo ready
  # in a compose file: healthcheck: {test: ["CMD", "/kith", "health"]}`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			if err := c.Ready(ctx); err != nil {
				return err
			}
			return a.show(map[string]bool{"ready": true}, func(w io.Writer) { fmt.Fprintln(w, "ready") })
		},
	}
}

func (a *app) tokenCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "token",
		Short:   "Print the local API's bearer token",
		Long:    "Prints the token that requests to this home's API need, making it at the first call. Whoever has it commands the node.",
		Example: `  curl -H "Authorization: Bearer $(kith token)" http://127.0.0.1:7770/api/v1/status`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			home, err := a.homeDir()
			if err != nil {
				return err
			}
			token, err := home.LoadAPIToken()
			if err != nil {
				return err
			}
			return a.show(map[string]string{"token": token}, func(w io.Writer) { fmt.Fprintln(w, token) })
		},
	}
}

type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildInfo tells what the toolchain noted.
func buildInfo() build {
	b := build{Version: node.Version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	return b
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print what this binary was built from",
		Example: "  kith version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := buildInfo()
			return a.show(b, func(w io.Writer) {
				fmt.Fprintln(w, strings.TrimSpace(strings.Join([]string{"kith", b.Version, b.Revision, b.Go, b.Platform}, " ")))
			})
		},
	}
}

func (a *app) pauseCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "pause [TIME]",
		Short: "Take no new work, for a time or until resumed",
		Long:  "The node takes no new tasks. What it runs, it finishes; its own jobs go on at other nodes.",
		Example: `  kith pause 2h
  kith pause          # until 'kith resume'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if len(args) == 1 {
				var err error
				if d, err = time.ParseDuration(args[0]); err != nil || d <= 0 {
					return usagef("pause: %q is not a time such as 30m or 2h", args[0])
				}
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := c.Pause(cmd.Context(), d)
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { fmt.Fprintln(w, "gives "+gives(p, time.Now())) })
		},
	}
}

func (a *app) resumeCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "Take work again",
		Example: "  kith resume",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := c.Resume(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { fmt.Fprintln(w, "gives "+gives(p, time.Now())) })
		},
	}
}
