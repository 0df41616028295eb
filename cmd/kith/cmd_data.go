package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/tasks"
)

// content splits CID/path as data commands take it.
func content(arg string) (tasks.CID, string, error) {
	root, inside, _ := strings.Cut(strings.TrimSuffix(arg, "/"), "/")
	if _, err := cid.Decode(root); err != nil {
		return "", "", usagef("%q is not a CID: %v: copy it from what 'kith add' printed", root, err)
	}
	return tasks.CID(root), inside, nil
}

func audience(public bool) api.Audience {
	if public {
		return api.AudiencePublic
	}
	return api.AudienceMesh
}

func (a *app) addCmd() *cobra.Command {
	var public, noPin bool
	var name, chunk string
	cmd := &cobra.Command{
		Use:   "add PATH...",
		Short: "Store files and folders; print their CIDs",
		Long: `Stores each file or folder on the node, pins it, and prints its CID, with --quiet
nothing else. Members of the mesh may fetch it; --public lets anyone. "-" reads
standard input.`,
		Example: `  kith add books/
  kith add --public paper.pdf
  tar c src | kith add --name src.tar -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := api.AddOptions{Audience: audience(public), Pin: !noPin, Name: name}
			if chunk != "" {
				n, err := tasks.ParseSize(chunk)
				if err != nil {
					return usagef("--chunk: %w", err)
				}
				opts.Chunk = n
			}
			if name != "" && len(args) > 1 {
				return usagef("--name is for one path, not %d", len(args))
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			roots := []api.Root{}
			for _, p := range args {
				root, err := a.addOne(cmd.Context(), c, p, opts)
				if err != nil {
					return fmt.Errorf("add %s: %w", p, err)
				}
				roots = append(roots, root)
				switch {
				case a.json:
				case a.quiet:
					fmt.Fprintln(a.out, root.CID)
				default:
					fmt.Fprintf(a.out, "%s  %s  %s\n", root.CID, root.Name, size(root.Size))
				}
			}
			if a.json {
				return a.printJSON(roots)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&public, "public", false, "let anyone fetch it, not only members")
	f.BoolVar(&noPin, "no-pin", false, "let gc take it when nothing else uses it")
	f.StringVar(&name, "name", "", "what to call it in listings (default: the path's last part)")
	f.StringVar(&chunk, "chunk", "", "bytes a block, such as 256Ki (default 1Mi)")
	return cmd
}

func (a *app) addOne(ctx context.Context, c *client.Client, p string, opts api.AddOptions) (api.Root, error) {
	bar := a.progress("add "+filepath.Base(p), true)
	defer bar.end()
	if p != "-" {
		return c.AddPath(ctx, p, opts, bar.transfer())
	}
	if opts.Name == "" {
		opts.Name = "stdin"
	}
	return c.AddFile(ctx, a.in, -1, opts)
}

func (a *app) getCmd() *cobra.Command {
	var out string
	var from []string
	cmd := &cobra.Command{
		Use:   "get CID[/PATH]",
		Short: "Write a file or folder to disk",
		Long: `Has the node fetch the content whole, from several peers at once, going on where
an earlier try ended, and writes it to --out (default: the path's last part, or
the CID). The destination must not exist; it appears whole or not at all. --from
names a peer to ask first, by an address that ends in its ID. It need not be a
member: any IPFS node will do, or a node of another mesh that has it public.`,
		Example: `  kith get bafy... --out books
  kith get bafy.../chapter1.txt
  kith get bafy... --from /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo...`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.pinned(),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, inside, err := content(args[0])
			if err != nil {
				return err
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if out == "" {
				out = path.Base(strings.TrimSuffix(args[0], "/"))
			}
			if err := a.get(cmd.Context(), c, api.Content{Root: root, Path: inside, From: from}, out); err != nil {
				return err
			}
			return a.show(map[string]string{"cid": string(root), "path": inside, "out": out}, func(w io.Writer) { fmt.Fprintln(w, out) })
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "where to write it")
	fromFlag(cmd, &from)
	return cmd
}

// fromFlag names peers that a fetch asks first.
func fromFlag(cmd *cobra.Command, from *[]string) {
	cmd.Flags().StringArrayVar(from, "from", nil, "address of a peer to ask first, member or not; may be repeated")
}

// get writes a file as it comes to the node. A folder is fetched first: how much
// it is shows when all its nodes are there.
func (a *app) get(ctx context.Context, c *client.Client, of api.Content, out string) error {
	if _, err := os.Lstat(out); err == nil {
		return usagef("%s exists: remove it or name another with --out", out)
	}
	e, err := c.Stat(ctx, of)
	if err != nil {
		return err
	}
	doing := "get"
	if e.Dir {
		bar := a.progress("fetch", true)
		got, err := c.Fetch(ctx, of, bar.transfer())
		bar.end()
		if err != nil {
			return err
		}
		e.Size, doing = got.Size, "write"
	}
	bar := a.progress(doing, true)
	defer bar.end()
	return c.Get(ctx, of, out, func(done, _ int64) { bar.report(done, e.Size) })
}

func (a *app) catCmd() *cobra.Command {
	var offset, length int64
	cmd := &cobra.Command{
		Use:   "cat CID[/PATH]",
		Short: "Write a file to standard output",
		Long:  "Writes a file, or a span of it, fetching only the blocks that this needs.",
		Example: `  kith cat bafy.../chapter1.txt
  kith cat bafy... --offset 1000 --length 80`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.pinned(),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, inside, err := content(args[0])
			if err != nil {
				return err
			}
			if offset < 0 || length < -1 {
				return usagef("--offset %d, --length %d: want 0 or more", offset, length)
			}
			if a.json {
				return usagef("cat writes bytes and has no JSON: leave --json out")
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			return a.cat(cmd.Context(), c, root, inside, offset, length)
		},
	}
	cmd.Flags().Int64Var(&offset, "offset", 0, "first byte")
	cmd.Flags().Int64Var(&length, "length", -1, "how many bytes (-1: to the end)")
	return cmd
}

func (a *app) cat(ctx context.Context, c *client.Client, root tasks.CID, inside string, offset, length int64) error {
	r, err := c.Cat(ctx, root, inside, offset, length)
	if err != nil {
		return err
	}
	_, err = io.Copy(a.out, r)
	return errors.Join(err, r.Close())
}

func (a *app) lsCmd() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "ls [CID[/PATH]]",
		Short: "List a folder, or what is pinned here",
		Long:  "Lists what is in a folder. Without a CID it lists the roots that gc leaves alone, and who keeps them.",
		Example: `  kith ls
  kith ls -r bafy...`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.pinned(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if len(args) == 0 {
				return a.listPins(cmd.Context(), c)
			}
			root, inside, err := content(args[0])
			if err != nil {
				return err
			}
			list := []api.Entry{}
			err = c.List(cmd.Context(), root, inside, recursive, func(e api.Entry) error {
				if e.Path != "" || !e.Dir {
					list = append(list, e)
				}
				return nil
			})
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) {
				for _, e := range list {
					name := e.Path
					if name == "" {
						name = path.Base(args[0])
					}
					if e.Dir {
						name += "/"
					}
					if e.Link != "" {
						name += " -> " + e.Link
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", e.CID, size(e.Size), name)
				}
			})
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "all below it")
	return cmd
}

func (a *app) listPins(ctx context.Context, c *client.Client) error {
	pins, err := c.Pins(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	return a.show(items(pins), func(w io.Writer) {
		fmt.Fprintln(w, "CID\tSIZE\tNAME\tAUDIENCE\tOWNER\tUNTIL")
		for _, p := range pins {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.CID, size(p.Size), dash(p.Name), dash(string(p.Audience)), p.Owner, until(p.Until, now))
		}
	})
}

func (a *app) pinCmd() *cobra.Command {
	var keep time.Duration
	var from []string
	cmd := &cobra.Command{
		Use:   "pin CID",
		Short: "Fetch content whole and keep it",
		Example: `  kith pin bafy...
  kith pin bafy... --for 72h`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.pinned(),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, inside, err := content(args[0])
			switch {
			case err != nil:
				return err
			case inside != "":
				return usagef("pin keeps whole roots: leave /%s out", inside)
			case keep < 0:
				return usagef("--for %v: want more than 0", keep)
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			bar := a.progress("fetch", true)
			_, err = c.Fetch(cmd.Context(), api.Content{Root: root, From: from}, bar.transfer())
			bar.end()
			if err != nil {
				return err
			}
			got, err := c.Pin(cmd.Context(), root, keep)
			if err != nil {
				return err
			}
			return a.show(got, func(w io.Writer) { fmt.Fprintf(w, "pinned %s (%s)\n", got.CID, size(got.Size)) })
		},
	}
	cmd.Flags().DurationVar(&keep, "for", 0, "how long (default: until unpinned)")
	fromFlag(cmd, &from)
	return cmd
}

func (a *app) unpinCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "unpin CID",
		Short:             "Let gc take content",
		Long:              "Ends your pin. What was public is the members' alone from then on.",
		Example:           "  kith unpin bafy... && kith gc",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.pinned(),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, inside, err := content(args[0])
			if err != nil {
				return err
			}
			if inside != "" {
				return usagef("pins are on whole roots: leave /%s out", inside)
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Unpin(cmd.Context(), root); err != nil {
				return err
			}
			return a.show(map[string]string{"unpinned": string(root)}, func(w io.Writer) { fmt.Fprintln(w, "unpinned", root) })
		},
	}
}

func (a *app) gcCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "gc",
		Short:   "Remove what is neither pinned nor in use",
		Example: "  kith gc",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			rep, err := c.GC(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(rep, func(w io.Writer) {
				fmt.Fprintf(w, "removed %s (%s), kept %d\n", plural(int(rep.Blocks), "block"), size(rep.Bytes), rep.Kept)
			})
		},
	}
}
