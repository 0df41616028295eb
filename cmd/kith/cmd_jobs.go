package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/tasks"
)

// tellWaits is how long a job may stand still before the user hears why.
const tellWaits = 10 * time.Second

// follow shows a job's progress and then writes its result.
func (a *app) follow(ctx context.Context, c *client.Client, id tasks.JobID, out string) error {
	bar := a.progress("tasks", false)
	quiet := time.Now() // since when nothing runs and nothing was said
	job, err := c.Follow(ctx, id, func(j api.Job) {
		if j.Tasks > 0 {
			bar.reportMore(int64(j.Done), int64(j.Tasks), progressNote(j))
		}
		switch {
		case j.Leased > 0 || j.Over():
			quiet = time.Now()
		case time.Since(quiet) > tellWaits:
			quiet = time.Now()
			if waits, err := c.Why(ctx, j.ID); err == nil && len(waits) > 0 { // a hint only: Follow tells of failures
				bar.end()
				a.note("waits: %s", waits[0].Reason)
			}
		}
	})
	bar.end()
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("no longer waiting: the job goes on: see it with 'kith job %s', stop it with 'kith cancel %s'", id, id)
		}
		return err
	}
	if job.State != "done" {
		if a.json {
			if err := a.printJSON(job); err != nil {
				return err
			}
		}
		return jobFailed(job)
	}
	what := plural(job.Tasks, "task")
	if job.Tasks == 0 { // published: its origin alone counts them
		what = "job"
	}
	a.note("%s done in %s%s", what, job.Finished.Sub(job.Created).Round(10*time.Millisecond), again(job))
	return a.result(ctx, c, string(id), out)
}

func progressNote(j api.Job) string {
	parts := []string{j.State}
	if j.Stage == "reduce" {
		parts = append(parts, "reduce")
	}
	for _, p := range []struct {
		n    int
		what string
	}{{j.Leased, "leased"}, {j.Waiting, "waiting"}, {j.Releases, "leased again"}, {j.Failures, "failed"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

func again(j api.Job) string {
	if j.Releases == 0 {
		return ""
	}
	return fmt.Sprintf(", %d leased again", j.Releases)
}

func jobFailed(j api.Job) error {
	why := j.Detail
	if j.Reason != nil {
		why = fmt.Sprintf("%s (reason %d)", j.Reason.Text, j.Reason.Code)
		if j.Detail != "" {
			why += ": " + j.Detail
		}
	}
	return fmt.Errorf("job %s %s: %s: 'kith logs %s --failed' shows what its tasks said", j.ID, j.State, dash(why), j.ID[:min(8, len(j.ID))])
}

// result writes a done job's output: to standard output, or whole to out.
func (a *app) result(ctx context.Context, c *client.Client, id, out string) error {
	res, err := c.Results(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case res.CID == "" && (res.State == "failed" || res.State == "cancelled"):
		return fmt.Errorf("job %s is %s and has no result: 'kith job %s' tells why", id, res.State, id)
	case res.CID == "":
		return fmt.Errorf("job %s is %s and has no result yet: 'kith why %s' tells what it waits for", id, res.State, id)
	}
	switch {
	case out != "":
		if err := a.get(ctx, c, api.Content{Root: tasks.CID(res.CID)}, out); err != nil {
			return err
		}
		a.note("result in %s", out)
	case !a.json && !res.Dir:
		return a.cat(ctx, c, tasks.CID(res.CID), "", 0, -1)
	}
	if a.json {
		return a.printJSON(res)
	}
	if out == "" {
		return a.catOutputs(ctx, c, tasks.CID(res.CID))
	}
	return nil
}

// catOutputs writes the standard output of each task of a result that is a
// folder, in task order: entries 000000 and on for many tasks, or the one task's
// own folder with stdout in it.
func (a *app) catOutputs(ctx context.Context, c *client.Client, root tasks.CID) error {
	var names []string
	more := 0 // files that standard output can't show
	err := c.List(ctx, root, "", false, func(e api.Entry) error {
		switch {
		case e.Path == "":
		case taskOutput.MatchString(e.Path) && e.Dir:
			more++
			names = append(names, e.Path+"/stdout")
		case taskOutput.MatchString(e.Path), e.Path == "stdout":
			names = append(names, e.Path)
		default:
			more++
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := a.cat(ctx, c, root, name, 0, -1); err != nil {
			return fmt.Errorf("%s/%s: %w", root, name, err)
		}
	}
	if more > 0 {
		a.note("tasks wrote files as well: 'kith get %s' writes all, 'kith ls -r %s' lists them", root, root)
	}
	return nil
}

var taskOutput = regexp.MustCompile(`^[0-9]{6}$`)

func (a *app) jobsCmd() *cobra.Command {
	var state string
	var limit int
	cmd := &cobra.Command{
		Use:     "jobs",
		Short:   "List jobs that this node holds or published",
		Example: "  kith jobs\n  kith jobs --state running",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Jobs(cmd.Context(), state, limit)
			if err != nil {
				return err
			}
			now := time.Now()
			return a.show(items(list), func(w io.Writer) {
				fmt.Fprintln(w, "JOB\tNAME\tSTATE\tTASKS\tAGAIN\tCREATED")
				for _, j := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%d/%d\t%d\t%s\n", j.ID[:min(12, len(j.ID))], dash(j.Name), j.State, j.Done, j.Tasks, j.Releases, ago(j.Created, now))
				}
			})
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only jobs in this state: published, kept, splitting, running, assembling, done, failed or cancelled")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many, newest first")
	return cmd
}

func (a *app) jobCmd() *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "job ID",
		Short: "Show one job, and with --tasks where each task ran",
		Example: `  kith job 7f3a
  kith job 7f3a --tasks`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.jobIDs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			j, err := c.Job(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !list {
				return a.show(j, func(w io.Writer) { writeJob(w, j, time.Now()) })
			}
			all, err := c.AllTasks(cmd.Context(), j.ID)
			if err != nil {
				return err
			}
			out := struct {
				api.Job
				List []api.Task `json:"taskList"`
			}{j, items(all)}
			return a.show(out, func(w io.Writer) {
				writeJob(w, j, time.Now())
				writeTasks(w, all)
			})
		},
	}
	cmd.Flags().BoolVarP(&list, "tasks", "t", false, "list tasks and their attempts")
	return cmd
}

// stateLine is a job's state and why it is in it.
func stateLine(j api.Job) string {
	state := j.State
	if j.Reason != nil {
		state += fmt.Sprintf(": %s (reason %d)", j.Reason.Text, j.Reason.Code)
	}
	if j.Detail != "" {
		state += ": " + j.Detail
	}
	return state
}

func writeJob(w io.Writer, j api.Job, now time.Time) {
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("job", "%s", j.ID)
	row("name", "%s", dash(j.Name))
	row("state", "%s", stateLine(j))
	row("created", "%s", ago(j.Created, now))
	if !j.Finished.IsZero() {
		row("took", "%s", j.Finished.Sub(j.Created).Round(time.Millisecond))
	}
	row("origin", "%s, term %d", dash(j.Origin), j.Term)
	row("tasks", "%d: %d done, %d leased, %d waiting; %s", j.Tasks, j.Done, j.Leased, j.Waiting, plural(j.Replicas, "replica"))
	row("again", "%d leased again, %d tail copies, %d failed runs", j.Releases, j.Copies, j.Failures)
	row("offers", "%d, the last to %s", j.Rounds, millis(j.RadiusMs))
	if j.Output != "" {
		row("output", "%s (%s)", j.Output, size(j.Size))
	}
	if len(j.Workers) > 0 {
		fmt.Fprintln(w, "\nWORKER\tRTT\tHOLDS\tACCEPTED\tFAILED\tREJECTED")
		for _, p := range j.Workers {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\n", p.Peer, millis(p.RTTMs), p.Holds, p.Accepted, p.Failed, p.Rejected)
		}
	}
}

func writeTasks(w io.Writer, all []api.Task) {
	fmt.Fprintln(w, "\nTASK\tSTATE\tWORKER\tREPLICA\tRTT\tATTEMPT\tTOOK")
	for _, t := range all {
		name := t.Stage + " " + strconv.FormatUint(uint64(t.Index), 10)
		if len(t.Attempts) == 0 {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t-\n", name, t.State)
		}
		for _, at := range t.Attempts {
			took, how := "-", at.State
			if !at.Ended.IsZero() && !at.Started.IsZero() {
				took = at.Ended.Sub(at.Started).Round(time.Millisecond).String()
			}
			if at.Reason != nil {
				how += fmt.Sprintf(": %s (reason %d)", at.Reason.Text, at.Reason.Code)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", name, t.State, short(at.Worker), at.Replica, millis(at.RTTMs), how, took)
		}
	}
}

func (a *app) logsCmd() *cobra.Command {
	var failed bool
	cmd := &cobra.Command{
		Use:   "logs ID [TASK]",
		Short: "Show what a task wrote to standard error",
		Long:  `Shows the end of a task's standard error, of each attempt that left one. TASK is a number (default 0) or "reduce".`,
		Example: `  kith logs 7f3a 12
  kith logs 7f3a reduce
  kith logs 7f3a --failed    # every task with an attempt that failed`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.jobIDs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			refs := []api.Task{{Stage: "map"}}
			switch {
			case failed:
				if refs, err = failedTasks(cmd.Context(), c, args[0]); err != nil {
					return err
				}
			case len(args) == 2 && args[1] == "reduce":
				refs[0].Stage = "reduce"
			case len(args) == 2:
				n, err := strconv.ParseUint(args[1], 10, 32)
				if err != nil {
					return usagef("task %q: want a number or reduce", args[1])
				}
				refs[0].Index = uint32(n)
			}
			all := []api.Log{}
			for _, r := range refs {
				logs, err := c.Logs(cmd.Context(), args[0], r.Stage, r.Index)
				if err != nil {
					return err
				}
				all = append(all, logs...)
			}
			if a.json {
				return a.printJSON(all)
			}
			for _, l := range all {
				fmt.Fprintf(a.out, "--- %s %d, replica %d, on %s\n%s\n", l.Stage, l.Index, l.Replica, l.Worker, strings.TrimRight(l.Text, "\n"))
			}
			if len(all) == 0 {
				a.note("no attempt left a log")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&failed, "failed", false, "every task with an attempt that failed")
	return cmd
}

func failedTasks(ctx context.Context, c *client.Client, id string) ([]api.Task, error) {
	all, err := c.AllTasks(ctx, id)
	var out []api.Task
	for _, t := range all {
		for _, at := range t.Attempts {
			if at.State == "failed" || at.State == "rejected" {
				out = append(out, t)
				break
			}
		}
	}
	return out, err
}

func (a *app) resultsCmd() *cobra.Command {
	var out string
	var wait bool
	cmd := &cobra.Command{
		Use:   "results ID",
		Short: "Write a done job's result",
		Long:  "Writes the result to standard output, or whole to --out. With --json it shows each task's output instead.",
		Example: `  kith results 7f3a --wait
  kith results 7f3a --out counts`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.jobIDs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if wait {
				j, err := c.Job(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.follow(cmd.Context(), c, tasks.JobID(j.ID), out)
			}
			return a.result(cmd.Context(), c, args[0], out)
		},
	}
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until the job is done")
	cmd.Flags().StringVarP(&out, "out", "o", "", "write the result there")
	return cmd
}

func (a *app) cancelCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "cancel ID",
		Short:             "Stop a job",
		Example:           "  kith cancel 7f3a",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.jobIDs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Cancel(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.show(map[string]string{"cancelled": args[0]}, func(w io.Writer) { fmt.Fprintln(w, "cancelled", args[0]) })
		},
	}
}

func (a *app) whyCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "why JOB",
		Short:             "Tell what a job waits for, and when it is tried again",
		Example:           "  kith why 7f3a",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.jobIDs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			j, err := c.Job(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			waits, err := c.Why(cmd.Context(), j.ID)
			if err != nil {
				return err
			}
			out := struct {
				Job   string     `json:"job"`
				State string     `json:"state"`
				Waits []api.Wait `json:"waits"`
			}{j.ID, j.State, items(waits)}
			now := time.Now()
			return a.show(out, func(w io.Writer) {
				switch {
				case len(waits) > 0:
				case j.State == "failed" || j.State == "cancelled":
					fmt.Fprintf(w, "job %s waits for nothing: it is %s\n", args[0], stateLine(j))
				default:
					fmt.Fprintf(w, "job %s is %s and waits for nothing\n", args[0], j.State)
				}
				for _, wt := range waits {
					next := "when something happens"
					if !wt.Next.IsZero() {
						next = "next try " + until(wt.Next, now)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", plural(wt.Tasks, "task"), wt.Reason, next)
				}
			})
		},
	}
}
