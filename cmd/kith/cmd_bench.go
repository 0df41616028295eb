package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/testnet/bench"
)

func (a *app) benchCmd() *cobra.Command {
	var names, about []string
	for _, b := range bench.All() {
		names = append(names, b.Name)
		about = append(about, fmt.Sprintf("  %-10s %s; cases %s", b.Name, b.Short, strings.Join(b.Cases, ", ")))
	}
	var o bench.Options
	cmd := &cobra.Command{
		Use:   "bench NAME",
		Short: "Measure this machine's mesh beside its peers and limits",
		Long: `Starts real nodes of this binary on loopback and measures them, each case
interleaved with the peer or the limit that it is held against. With --json, one
object a line: bench, case, value, unit, against, againstValue, ratio, goal and ok,
or skipped with the reason. Exits with 0 only if nothing that ran missed its goal.
Run it on a machine that does nothing else. Nothing is left behind, also after
Ctrl-C.

` + strings.Join(about, "\n"),
		Example: `  kith bench ` + names[0] + `
  kith bench ` + names[0] + ` --json --case ` + bench.All()[0].Cases[0],
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			b, err := bench.Find(args[0])
			if err != nil {
				return asUsage(err)
			}
			if err := b.Check(o.Cases); err != nil {
				return asUsage(err)
			}
			if o.Exe, err = os.Executable(); err != nil {
				return err
			}
			if o.Log = a.err; a.quiet {
				o.Log = io.Discard
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			missed, broken := 0, error(nil)
			var lines []bench.Line
			err = b.Run(ctx, o, func(l bench.Line) {
				lines = append(lines, l)
				if l.Missed() {
					missed++
				}
				if a.json {
					if err := l.WriteJSON(a.out); err != nil && broken == nil {
						broken = err
					}
				}
			})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !a.json {
				broken = benchTable(a.out, lines)
			}
			if err = cmp.Or(err, broken); err != nil {
				return err
			}
			if missed > 0 {
				return fmt.Errorf("%d of %d cases missed their goal", missed, len(lines))
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&o.Cases, "case", nil, "measure only these cases")
	cmd.Flags().StringVar(&o.Kubo, "kubo", "", "a stock `ipfs` binary to measure beside ('make kubo' builds one)")
	cmd.Flags().DurationVar(&o.For, "for", 0, "how long benches that last do so (default: what their goal is meant for)")
	cmd.Flags().StringVar(&o.Dir, "dir", "", "where temporary homes go (default: the system's temporary folder)")
	return cmd
}

// benchTable prints lines for people.
func benchTable(out io.Writer, lines []bench.Line) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "CASE\tVALUE\tUNIT\tAGAINST\tITS VALUE\tRATIO\tGOAL\t")
	for _, l := range lines {
		verdict := ""
		switch {
		case l.Skipped != "":
			fmt.Fprintf(w, "%s\t-\t\t\t\t\t\tskipped: %s\n", l.Case, l.Skipped)
			continue
		case l.OK == nil:
		case *l.OK:
			verdict = "ok"
		default:
			verdict = "MISSED"
		}
		against, ratio := "", ""
		if l.Against != "" {
			against, ratio = fmt.Sprintf("%.4g", l.AgainstValue), fmt.Sprintf("%.3g", l.Ratio)
		}
		fmt.Fprintf(w, "%s\t%.4g\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Case, l.Value, l.Unit, l.Against, against, ratio, l.Goal, verdict)
		if l.Note != "" {
			fmt.Fprintf(w, "\t\t\t\t\t\t\t%s\n", l.Note)
		}
	}
	return w.Flush()
}
