package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/tasks"
)

// after says what to do once a job is taken.
type after struct {
	wait bool
	out  string
}

func (w *after) flags(f *pflag.FlagSet) {
	f.StringVarP(&w.out, "out", "o", "", "write the result there instead of to standard output")
}

func (a *app) runCmd() *cobra.Command {
	var o runOptions
	var detach bool
	then := after{wait: true}
	cmd := &cobra.Command{
		Use:   "run PROGRAM [-- ARGS...]",
		Short: "Run a program over data on the mesh; wait for the result",
		Long: `Stores the program and its inputs on the node, which splits the work, leases it
to near members, checks and assembles what they answer. Waits, shows progress and
writes the result to standard output, or to --out.

PROGRAM is a WASI preview 1 module: a file, a CID, or example:NAME for one that is
built in (wordcount, wcsum, pi, pisum, primes, grep). An --input is a file, folder
CID or example:text, whose parts come on the program's standard input; --split says how it is
cut (default: files, one task a file). NAME=SOURCE is not cut: every task sees it
whole as /in/NAME. Without split inputs, --tasks says how many tasks run; each
knows its number by KITH_TASK. With --tasks and no --split, or --split none, an
--input without a NAME is seen whole under its own.

Interrupting ends the waiting, not the job.`,
		Example: `  kith run count.wasm --input book.txt --split lines:1000 --reduce sum.wasm
  kith run example:wordcount --input example:text --split lines:1000 --reduce example:wcsum
  kith run grep.wasm --input logs/ --split files --replicas 2 -- -i error
  kith run pi.wasm --tasks 20 --detach -- 1000000`,
		Args: func(cmd *cobra.Command, args []string) error {
			n := cmd.ArgsLenAtDash()
			if n < 0 {
				n = len(args)
			}
			switch {
			case n == 0:
				return usagef("name a program: kith run PROGRAM.wasm")
			case n > 1:
				return usagef("%q after the program: its arguments come after --", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, n := range map[string]uint32{"tasks": o.tasks, "replicas": o.replicas, "retries": o.retries} {
				if n == 0 && cmd.Flags().Changed(name) {
					return usagef("--%s 0: want 1 or more", name)
				}
			}
			spec, err := o.spec(args[0], args[1:])
			if err != nil {
				return err
			}
			then.wait = !detach
			return a.submit(cmd, spec, "", then, (*client.Client).Submit)
		},
	}
	o.flags(cmd.Flags())
	then.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "print the job's ID and don't wait")
	return cmd
}

// runOptions are a job spec as flags.
type runOptions struct {
	name, split, reduce            string
	inputs, reduceArgs, env        []string
	tasks, replicas, retries       uint32
	cpu                            float64
	memory, output                 string
	timeout, cpuTime, rtt, retains time.Duration
	nondeterministic               bool
}

func (o *runOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.name, "name", "", "what to call the job (default: the program's name)")
	f.StringArrayVarP(&o.inputs, "input", "i", nil, "file, folder or CID; NAME=SOURCE gives it whole to every task; may be repeated")
	f.StringVar(&o.split, "split", "", "how inputs are cut: lines:N, bytes:N, files, or none")
	f.Uint32Var(&o.tasks, "tasks", 0, "how many tasks, when no input is split")
	f.Uint32Var(&o.replicas, "replicas", 1, "run each task on so many peers and compare")
	f.StringVar(&o.reduce, "reduce", "", "program for a second stage over all outputs")
	f.StringArrayVar(&o.reduceArgs, "reduce-arg", nil, "argument for it; may be repeated")
	f.StringArrayVarP(&o.env, "env", "e", nil, "NAME=VALUE for the program; may be repeated")
	f.Float64Var(&o.cpu, "cpu", 0, "cores a task may use (default 1)")
	f.StringVar(&o.memory, "memory", "", "memory a task may use, such as 256Mi")
	f.StringVar(&o.output, "max-output", "", "bytes a task may write, such as 64Mi")
	f.DurationVar(&o.timeout, "timeout", 0, "wall time a task may take (default 60s)")
	f.DurationVar(&o.cpuTime, "cpu-time", 0, "CPU time a task may take")
	f.DurationVar(&o.rtt, "max-rtt", 0, "only peers nearer than this round-trip time")
	f.Uint32Var(&o.retries, "retries", 0, "how often a failing task is tried again (default 5)")
	f.DurationVar(&o.retains, "retention", 0, "how long the job and its result are kept (default 24h)")
	f.BoolVar(&o.nondeterministic, "nondeterministic", false, "real clock and randomness; replicas then differ")
}

// spec is the job that the flags describe, with paths in it.
func (o *runOptions) spec(program string, args []string) (tasks.Spec, error) {
	s := tasks.Spec{
		Name: o.name, Kind: tasks.KindWasm, Program: tasks.CID(program), Args: args, Tasks: o.tasks,
		Resources:        tasks.Resources{CPU: o.cpu, Timeout: o.timeout, CPUTime: o.cpuTime},
		Locality:         tasks.Locality{MaxRTT: o.rtt},
		Verify:           tasks.Verify{Mode: tasks.VerifyNone, Replicas: o.replicas},
		Retry:            tasks.Retry{Max: o.retries},
		Retention:        o.retains,
		Nondeterministic: o.nondeterministic,
	}
	if o.replicas > 1 {
		s.Verify.Mode = tasks.VerifyQuorum
	}
	if s.Name == "" && !tasks.IsCID(program) {
		s.Name = jobName(program)
	}
	if o.reduce != "" {
		s.Reduce = &tasks.Reduce{Program: tasks.CID(o.reduce), Args: o.reduceArgs}
	} else if len(o.reduceArgs) > 0 {
		return s, usagef("--reduce-arg without --reduce")
	}
	var faults []error
	sizes := []struct {
		name, text string
		to         *int64
	}{{"--memory", o.memory, &s.Resources.Memory}, {"--max-output", o.output, &s.Resources.Output}}
	for _, z := range sizes {
		if z.text == "" {
			continue
		}
		n, err := tasks.ParseSize(z.text)
		faults = append(faults, named(z.name, err))
		*z.to = n
	}
	for _, e := range o.env {
		k, v, ok := strings.Cut(e, "=")
		if !ok || k == "" {
			faults = append(faults, fmt.Errorf("--env %q: want NAME=VALUE", e))
			continue
		}
		if s.Env == nil {
			s.Env = map[string]string{}
		}
		s.Env[k] = v
	}
	faults = append(faults, o.addInputs(&s))
	return s, asUsage(errors.Join(faults...))
}

func (o *runOptions) addInputs(s *tasks.Spec) error {
	var split tasks.Split
	switch {
	case o.split == "none", o.split == "" && o.tasks > 0:
	case o.split == "":
		split.By = tasks.SplitFiles
	default:
		var err error
		if split, err = tasks.ParseSplit(o.split); err != nil {
			return fmt.Errorf("--split: %w", err)
		}
	}
	for _, text := range o.inputs {
		in := tasks.Input{Source: tasks.CID(text), Split: split}
		if name, source, ok := strings.Cut(text, "="); ok && !exists(text) {
			in = tasks.Input{Name: name, Source: tasks.CID(source)}
		} else if split.By == tasks.SplitNone && !tasks.IsCID(text) {
			in.Name = filepath.Base(text)
		}
		s.Inputs = append(s.Inputs, in)
	}
	if len(o.inputs) == 0 && o.split != "" && o.split != "none" {
		return fmt.Errorf("--split %s without --input", o.split)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// jobName makes a job's name out of a program's path.
func jobName(path string) string {
	base := strings.TrimPrefix(strings.TrimSuffix(filepath.Base(path), ".wasm"), examplePrefix)
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, base)
	name = strings.TrimLeft(name, "-_.")
	return name[:min(len(name), 63)]
}

// readSpec reads a job file; "-" is standard input. Paths in it are relative to
// its folder.
func (a *app) readSpec(path string) (spec tasks.Spec, dir string, err error) {
	r, dir := a.in, ""
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return spec, "", asUsage(err)
		}
		defer f.Close()
		r, dir = f, filepath.Dir(path)
	}
	text, err := io.ReadAll(io.LimitReader(r, tasks.MaxSpecBytes+1))
	if err != nil {
		return spec, "", err
	}
	if spec, err = tasks.ParseSpec(text); err != nil {
		return spec, "", usagef("%s: %w", path, err)
	}
	return spec, dir, nil
}

// checkSpec finds the faults that need no node, before anything is stored.
func checkSpec(spec tasks.Spec) error {
	const stand = tasks.CID("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku") // of nothing: stands for paths
	put := func(c *tasks.CID) {
		if *c != "" && !tasks.IsCID(string(*c)) {
			*c = stand
		}
	}
	spec = spec.WithDefaults()
	put(&spec.Program)
	if spec.Reduce != nil {
		r := *spec.Reduce
		put(&r.Program)
		spec.Reduce = &r
	}
	spec.Inputs = append([]tasks.Input(nil), spec.Inputs...)
	for i := range spec.Inputs {
		put(&spec.Inputs[i].Source)
	}
	return asUsage(spec.Validate())
}

// submit checks, stores what the spec names, hands the job over, and waits if
// asked to.
func (a *app) submit(cmd *cobra.Command, spec tasks.Spec, dir string, then after, give func(*client.Client, context.Context, tasks.Spec) (tasks.JobID, error)) error {
	if err := checkSpec(spec); err != nil {
		return err
	}
	if then.out != "" && exists(then.out) {
		return usagef("%s exists: remove it or name another with --out", then.out)
	}
	c, err := a.client(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	return a.submitTo(cmd.Context(), c, spec, dir, then, give)
}

func (a *app) submitTo(ctx context.Context, c *client.Client, spec tasks.Spec, dir string, then after, give func(*client.Client, context.Context, tasks.Spec) (tasks.JobID, error)) error {
	spec, err := a.resolve(ctx, c, spec, dir)
	if err != nil {
		return err
	}
	id, err := give(c, ctx, spec.WithDefaults())
	if err != nil {
		return err
	}
	if !then.wait {
		return a.show(api.Submitted{ID: string(id)}, func(w io.Writer) { fmt.Fprintln(w, id) })
	}
	a.note("job %s", id)
	return a.follow(ctx, c, id, then.out)
}

// resolve stores what the spec names by paths, with progress.
func (a *app) resolve(ctx context.Context, c *client.Client, spec tasks.Spec, dir string) (tasks.Spec, error) {
	var bar *progress
	defer func() {
		if bar != nil {
			bar.end()
		}
	}()
	started := func(_, path string) {
		if bar != nil {
			bar.end()
		}
		bar = a.progress("store "+filepath.Base(path), true)
	}
	spec, err := storeExamples(ctx, c, spec)
	if err != nil {
		return spec, err
	}
	return c.Resolve(ctx, spec, dir, started, func(done, total int64) { bar.report(done, total) })
}
