package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kith-mesh/kith/api"
)

func (a *app) carCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "car",
		Short:   "Move content as CAR files",
		Example: "  kith car export bafy... --out books.car",
		Args:    cobra.NoArgs,
		RunE:    needSubcommand,
	}
	cmd.AddCommand(a.carExportCmd(), a.carImportCmd())
	return cmd
}

func (a *app) carExportCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export CID",
		Short: "Write content as a CARv1 file",
		Example: `  kith car export bafy... --out books.car
  kith car export bafy... | ssh other kith car import -`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.pinned(),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, inside, err := content(args[0])
			if err != nil {
				return err
			}
			if inside != "" {
				return usagef("a CAR holds whole roots: leave /%s out", inside)
			}
			if f, ok := a.out.(*os.File); ok && out == "" && term.IsTerminal(int(f.Fd())) {
				return usagef("a CAR file is not for terminals: name one with --out, or redirect")
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if out == "" || out == "-" {
				_, err := c.ExportCAR(cmd.Context(), root, a.out)
				return err
			}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			w := bufio.NewWriterSize(f, 1<<20)
			n, err := c.ExportCAR(cmd.Context(), root, w)
			if err = errors.Join(err, w.Flush(), f.Close()); err != nil {
				return errors.Join(err, os.Remove(out))
			}
			return a.show(map[string]any{"cid": string(root), "out": out, "bytes": n}, func(w io.Writer) { fmt.Fprintf(w, "%s (%s)\n", out, size(n)) })
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write (default: standard output)")
	return cmd
}

func (a *app) carImportCmd() *cobra.Command {
	var public bool
	cmd := &cobra.Command{
		Use:     "import FILE",
		Short:   "Store the blocks of a CAR file and pin its roots",
		Long:    `Stores the blocks, checking each against its CID, and pins the roots. "-" reads standard input.`,
		Example: "  kith car import books.car",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			r, length := a.in, int64(-1)
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				info, err := f.Stat()
				if err != nil {
					return err
				}
				r, length = f, info.Size()
			}
			roots, err := c.ImportCAR(cmd.Context(), r, length, api.AddOptions{Audience: audience(public), Pin: true})
			if err != nil {
				return err
			}
			return a.show(items(roots), func(w io.Writer) {
				for _, root := range roots {
					fmt.Fprintf(w, "%s\t%s\n", root.CID, size(root.Size))
				}
			})
		},
	}
	cmd.Flags().BoolVar(&public, "public", false, "let anyone fetch it, not only members")
	return cmd
}
