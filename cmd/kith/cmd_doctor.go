package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/node"
)

func (a *app) idCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "id",
		Short:   "Show who this node is",
		Long:    "Shows the node's peer ID, mesh and rights: of the running node, or from the home when none runs.",
		Example: "  kith id\n  kith id --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := a.identity(cmd)
			if err != nil {
				return err
			}
			return a.show(id, func(w io.Writer) {
				fmt.Fprintf(w, "node\t%s\nmesh\t%s %s\n", id.Peer, id.Mesh, id.MeshName)
				fmt.Fprintf(w, "rights\t%s, until %s\n", dash(strings.Join(id.Rights, " ")), id.Expires.Format(time.DateOnly))
				if id.Founder {
					fmt.Fprintln(w, "founder\tholds the mesh's root key")
				}
				for _, addr := range id.Addresses {
					fmt.Fprintf(w, "listens\t%s\n", addr)
				}
			})
		},
	}
}

// identity asks the running node, and reads the home when there is none.
func (a *app) identity(cmd *cobra.Command) (api.Identity, error) {
	c, err := a.client(cmd)
	if err == nil {
		defer c.Close()
		var id api.Identity
		if id, err = c.ID(cmd.Context()); err == nil {
			return id, nil
		}
	}
	var gone *client.NotReachableError
	if !errors.As(err, &gone) || a.config.API != "" {
		return api.Identity{}, err
	}
	home, err := a.homeDir()
	if err != nil {
		return api.Identity{}, err
	}
	return node.Identify(home, time.Now())
}

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Try each step that a working node needs; name the fix",
		Long: `Has the running node try each step: listen, address, reachability, relay, clock,
disk, token, API. Without a running node it tries what the home alone shows and
says what it did not try. Exits 1 when a step fails.`,
		Example: "  kith doctor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := a.diagnose(cmd)
			if err != nil {
				return err
			}
			err = a.show(checks, func(w io.Writer) {
				for _, c := range checks {
					fmt.Fprintf(w, "%s\t%s\t%s\n", mark(c.State), c.Name, c.Detail)
					if c.Fix != "" {
						fmt.Fprintf(w, "\t\tfix: %s\n", c.Fix)
					}
				}
			})
			if err != nil {
				return err
			}
			for _, c := range checks {
				if c.State == api.CheckFail {
					return silentError{exitFailed}
				}
			}
			return nil
		},
	}
}

func mark(s api.CheckState) string {
	switch s {
	case api.CheckOK:
		return "ok"
	case api.CheckWarn:
		return "warn"
	case api.CheckSkipped:
		return "not tried"
	}
	return "FAIL"
}

// nodeSteps are what only a running node can try.
var nodeSteps = []string{"listen", "address", "reachability", "relay", "clock", "disk"}

func (a *app) diagnose(cmd *cobra.Command) ([]api.Check, error) {
	c, err := a.client(cmd)
	if err == nil {
		defer c.Close()
		var checks []api.Check
		if checks, err = c.Doctor(cmd.Context()); err == nil {
			return items(checks), nil
		}
	}
	var gone *client.NotReachableError
	var refused *api.Error
	reached := errors.As(err, &refused)
	if !errors.As(err, &gone) && !reached {
		return nil, err
	}
	home, herr := a.homeDir()
	if herr != nil {
		return nil, herr
	}
	out := []api.Check{timed("home", func() api.Check { return checkHome(home) }), timed("token", func() api.Check { return checkToken(home) })}
	out = append(out, api.Check{Name: "api", State: api.CheckFail, Detail: err.Error(), Fix: apiFix(reached)})
	for _, name := range nodeSteps {
		out = append(out, api.Check{Name: name, State: api.CheckSkipped, Detail: "needs a running node that answers"})
	}
	return out, nil
}

func apiFix(reached bool) string {
	if reached {
		return "use the token of that node: 'kith token' on its home prints it"
	}
	return "start the node with 'kith up'"
}

func timed(name string, f func() api.Check) api.Check {
	start := time.Now()
	c := f()
	c.Name, c.TookMs = name, float64(time.Since(start).Microseconds())/1000
	return c
}

// checkHome writes a file and takes it away again.
func checkHome(home node.Home) api.Check {
	if _, err := os.Stat(string(home)); errors.Is(err, fs.ErrNotExist) {
		return api.Check{State: api.CheckFail, Detail: fmt.Sprintf("%s does not exist", home), Fix: "make a mesh with 'kith init', or join one with 'kith up --join LINE'"}
	}
	f, err := os.CreateTemp(string(home), ".doctor-*")
	if err == nil {
		_, err = f.WriteString("x")
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return api.Check{State: api.CheckFail, Detail: err.Error(), Fix: "give this user the right to write there, free some space, or name another folder with --home"}
	}
	return api.Check{State: api.CheckOK, Detail: fmt.Sprintf("%s can be written", home)}
}

// checkToken reads the membership.
func checkToken(home node.Home) api.Check {
	id, err := node.Identify(home, time.Now())
	if err != nil {
		return api.Check{State: api.CheckFail, Detail: err.Error(), Fix: "join again with an invite from a member: 'kith up --join LINE'"}
	}
	return api.Check{State: api.CheckOK, Detail: fmt.Sprintf("member %s of %s, until %s", short(id.Peer), id.Mesh, id.Expires.Format(time.DateOnly))}
}
