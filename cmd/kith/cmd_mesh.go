package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api"
)

func (a *app) inviteCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "invite",
		Short:   "Make, list and end invites",
		Long:    "An invite is one line. Whoever holds it may join the mesh, at this node, as often as it says, until it expires or is revoked.",
		Example: "  kith invite create",
		Args:    cobra.NoArgs,
		RunE:    needSubcommand,
	}
	cmd.AddCommand(a.inviteCreateCmd(), a.inviteLsCmd(), a.inviteRevokeCmd())
	return cmd
}

func (a *app) inviteCreateCmd() *cobra.Command {
	var req api.InviteRequest
	var expires time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Print a line that another machine joins with",
		Long:  "Makes an invite and prints its line on standard output. The line is a secret: it is shown once.",
		Example: `  kith invite create
  kith invite create --uses 10 --expires 168h --name classroom`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Uses < 1 || expires <= 0 {
				return usagef("--uses %d, --expires %v: want more than 0", req.Uses, expires)
			}
			req.ExpiresIn = expires.String()
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			inv, err := c.CreateInvite(cmd.Context(), req)
			if err != nil {
				return err
			}
			a.note("good for %s until %s; on the other machine: kith up --join LINE", plural(inv.Uses, "node"), inv.Expires.Local().Format(time.DateTime))
			return a.show(inv, func(w io.Writer) { fmt.Fprintln(w, inv.Line) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&req.Uses, "uses", 1, "how many nodes may join with it")
	f.DurationVar(&expires, "expires", 24*time.Hour, "how long it is good")
	f.StringSliceVar(&req.Rights, "rights", nil, "what the new members may do (default: submit,work,host)")
	f.StringVar(&req.Name, "name", "", "a note for 'kith invite ls'")
	f.BoolVar(&req.Local, "local", false, "put loopback and bridge addresses into it, for nodes on this machine")
	return cmd
}

func (a *app) inviteLsCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the invites that this node redeems",
		Example: "  kith invite ls",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Invites(cmd.Context())
			if err != nil {
				return err
			}
			now := time.Now()
			return a.show(items(list), func(w io.Writer) {
				fmt.Fprintln(w, "ID\tNAME\tUSED\tEXPIRES\tRIGHTS")
				for _, inv := range list {
					end := until(inv.Expires, now)
					if inv.Revoked {
						end = "revoked"
					}
					fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\t%s\n", inv.ID, dash(inv.Name), inv.Used, inv.Uses, end, strings.Join(inv.Rights, " "))
				}
			})
		},
	}
}

func (a *app) inviteRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End an invite; who joined with it stays",
		Example: "  kith invite revoke 7f3a",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(func(ctx context.Context, c completer) (out []string) {
			list, _ := c.Invites(ctx) // completion has no place for errors
			for _, inv := range list {
				out = append(out, inv.ID+"\t"+inv.Name)
			}
			return out
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.RevokeInvite(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.show(map[string]string{"revoked": args[0]}, func(w io.Writer) { fmt.Fprintln(w, "revoked", args[0]) })
		},
	}
}

func (a *app) peersCmd() *cobra.Command {
	var wait int
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "Show members, how far they are and what they offer",
		Long: `Shows each member that the node knows: the round-trip time that it measured,
the one that coordinates predict, how the connection runs (direct, relayed, lan,
loopback), whether an agreed link to it exists (near or far), and what it offers.`,
		Example: `  kith peers
  kith peers --wait 4 --timeout 2m    # until four are connected`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var list []api.Peer
			connected := 0
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			err = poll(ctx, 200*time.Millisecond, func() (bool, error) {
				next, err := c.Peers(ctx)
				if err != nil {
					return false, err
				}
				list, connected = next, 0
				for _, p := range list {
					if p.Connected {
						connected++
					}
				}
				return connected >= wait, nil
			})
			if err != nil {
				if wait > 0 && ctx.Err() != nil && cmd.Context().Err() == nil {
					return fmt.Errorf("%d of %d members connected after %v: 'kith doctor' on each node tells why", connected, wait, timeout)
				}
				return err
			}
			return a.show(items(list), func(w io.Writer) { writePeers(w, list, time.Now()) })
		},
	}
	cmd.Flags().IntVar(&wait, "wait", 0, "wait until so many members are connected")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

func writePeers(w io.Writer, list []api.Peer, now time.Time) {
	fmt.Fprintln(w, "PEER\tNAME\tPATH\tRTT\tPREDICTED\tLINK\tOFFERS\tSINCE")
	for _, p := range list {
		path, offers := dash(p.Path), "-"
		if !p.Connected {
			path = "not connected"
			if p.Problem != "" {
				path += ": " + p.Problem
			}
		}
		if len(p.Capacity.Kinds) > 0 || p.Capacity.Cores > 0 {
			offers = fmt.Sprintf("%.3g cores, %s, %s", p.Capacity.Cores, size(p.Capacity.Memory), strings.Join(p.Capacity.Kinds, " "))
		}
		if p.Capacity.Paused {
			offers = "paused"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, dash(p.Name), path, millis(p.RTTMs), millis(p.PredictedMs), dash(p.Link), offers, ago(p.Since, now))
	}
}
