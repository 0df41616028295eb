package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
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
		Long: `Has the running node try each step: disk, token, listen, address, API, members,
clock, reachability, relay. Without a running node it tries what can be tried from
here, such as whether the ports are free, and says what it did not try. Exits 1
when a step fails.`,
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

// diagnose asks the running node, and examines the home when none answers.
func (a *app) diagnose(cmd *cobra.Command) ([]api.Check, error) {
	if err := a.load(cmd); err != nil {
		return nil, err
	}
	c, err := a.client(cmd)
	if err == nil {
		defer c.Close()
		var checks []api.Check
		if checks, err = c.Doctor(cmd.Context()); err == nil {
			return items(checks), nil
		}
	}
	if a.config.API != "" { // the home here is not that node's
		return nil, err
	}
	cfg, cerr := a.nodeConfig()
	if cerr != nil {
		return nil, cerr
	}
	checks := node.Examine(cmd.Context(), cfg)
	var gone *client.NotReachableError
	if !errors.As(err, &gone) && !slices.ContainsFunc(checks, func(c api.Check) bool { return c.State == api.CheckFail }) {
		return nil, err // such as a token given beside the home's own
	}
	return checks, nil
}
