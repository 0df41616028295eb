package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// Demo is what `kith demo` runs: five node processes on this machine with
// delayed links between them, a word count with two replicas a task, one worker
// killed half-way, the counts checked against a plain count.
type Demo struct {
	Exe string    // the kith binary
	Out io.Writer // progress and report, plain lines
	Dir string    // parent of the temporary folder; "": the system's
}

// delays are one-way, in milliseconds, between the demo's five nodes: three in
// one town, two on the other side of the sea.
var delays = [5][5]float64{
	{0, 3, 6, 35, 45},
	{3, 0, 4, 37, 44},
	{6, 4, 0, 33, 41},
	{35, 37, 33, 0, 8},
	{45, 44, 41, 8, 0},
}

// linesPerTask cuts the text's 40,000 lines into tasks small enough that a
// worker which dies always holds some.
const linesPerTask = 200

// Outcome is what the demo found, for --json.
type Outcome struct {
	Job         string         `json:"job"`
	Tasks       int            `json:"tasks"`
	Killed      string         `json:"killed"`
	KilledPeer  string         `json:"killedPeer"`
	LeasedAgain []Again        `json:"leasedAgain"`
	Workers     []WorkerReport `json:"workers"`
	Words       int            `json:"words"`    // different ones
	Counted     int64          `json:"counted"`  // in all
	Expected    int64          `json:"expected"` // by the plain count
	Match       bool           `json:"match"`
	Seconds     float64        `json:"seconds"`
}

// Again is an assignment that was leased more than once.
type Again struct {
	Task string `json:"task"`
	From string `json:"from"`
	To   string `json:"to"`
	Why  string `json:"why"` // what became of the first: lost, failed
}

// WorkerReport is what one node did.
type WorkerReport struct {
	Node  string  `json:"node"`
	Peer  string  `json:"peer"`
	RTTMs float64 `json:"rttMs"` // the origin's measure; 0 for the origin itself
	Tasks string  `json:"tasks"` // ranges of the map tasks whose result it agreed on
	Count int     `json:"count"`
}

// ErrDemo says that the mesh did not do what the demo shows.
var ErrDemo = errors.New("the demo failed")

// Run plays the demo. It leaves no process and no file behind, also when ctx is
// cancelled. The error is ErrDemo when the counts differ or nothing was leased
// again.
func (d Demo) Run(ctx context.Context) (out Outcome, err error) {
	begin := time.Now()
	dir, err := os.MkdirTemp(d.Dir, "kith-demo-")
	if err != nil {
		return out, fmt.Errorf("make the demo's folder: %w", err)
	}
	nodes, err := NewProcesses(dir, len(delays))
	defer func() { // processes first, then what they wrote
		stopped := StopAll(nodes)
		err = errors.Join(err, stopped, removeAll(dir))
	}()
	if err != nil {
		return out, err
	}
	d.say("Starting five nodes, each with its own identity, store and ports, under %s", dir)
	if err := d.startMesh(ctx, nodes); err != nil {
		return out, err
	}
	d.say("One mesh of %d, after %.1f s. The links, as node1 measures them:", len(nodes), time.Since(begin).Seconds())
	if err := d.printLinks(ctx, nodes); err != nil {
		return out, err
	}
	id, text, err := d.submit(ctx, nodes[0])
	if err != nil {
		return out, err
	}
	out.Job = string(id)
	victim, err := d.watch(ctx, nodes, id)
	if err != nil {
		return out, err
	}
	if victim != nil {
		out.Killed, out.KilledPeer = victim.Name, victim.ID
	}
	if err := d.report(ctx, nodes, id, text, &out); err != nil {
		return out, err
	}
	out.Seconds = time.Since(begin).Seconds()
	switch {
	case !out.Match:
		return out, fmt.Errorf("%w: the mesh counted %d words, a plain count %d", ErrDemo, out.Counted, out.Expected)
	case victim == nil:
		return out, fmt.Errorf("%w: the job was over before a worker could be killed", ErrDemo)
	case len(out.LeasedAgain) == 0:
		return out, fmt.Errorf("%w: nothing was leased again after %s was killed", ErrDemo, out.Killed)
	}
	d.say("\nAll counts match. %d assignments were leased again after %s died. %.1f s in all.", len(out.LeasedAgain), out.Killed, out.Seconds)
	return out, nil
}

func (d Demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// startMesh starts all nodes with the demo's delays between them.
func (d Demo) startMesh(ctx context.Context, nodes []*Process) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	return StartMesh(ctx, d.Exe, nodes, func(i int) []string {
		var args []string
		for j, p := range nodes {
			if j != i {
				args = append(args, "--delay", fmt.Sprintf("%s=%gms", p.Peers, delays[i][j]))
			}
		}
		return args
	})
}

func (d Demo) printLinks(ctx context.Context, nodes []*Process) error {
	peers, err := nodes[0].Client.Peers(ctx)
	if err != nil {
		return err
	}
	d.say("  %-6s %-14s %10s %12s %13s  %s", "node", "peer", "link delay", "measured RTT", "predicted RTT", "path")
	for i, p := range nodes[1:] {
		for _, q := range peers {
			if q.ID == p.ID {
				d.say("  %-6s %-14s %7.0f ms %9.1f ms %10.1f ms  %s", p.Name, short(q.ID), 2*delays[0][i+1], q.RTTMs, q.PredictedMs, q.Path)
			}
		}
	}
	return nil
}

// short is a peer ID's end, which tells it from others.
func short(id string) string {
	if len(id) > 12 {
		return "…" + id[len(id)-12:]
	}
	return id
}

// submit starts the word count at a node.
func (d Demo) submit(ctx context.Context, p *Process) (tasks.JobID, []byte, error) {
	id, text, err := submitWordCount(ctx, p.Client, linesPerTask)
	if err != nil {
		return "", nil, err
	}
	d.say("\n%s holds job %s: a word count over %d bytes, %d lines a task, every task on 2 peers", p.Name, id, len(text), linesPerTask)
	return id, text, nil
}

// watch prints progress until the job is over, and kills a worker half-way: the
// one, not the origin, that holds the most leases then.
func (d Demo) watch(ctx context.Context, nodes []*Process, id tasks.JobID) (victim *Process, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	origin, said := nodes[0].Client, -1
	for {
		job, err := origin.Job(ctx, string(id))
		if err != nil {
			return victim, fmt.Errorf("job: %w", err)
		}
		if job.Tasks > 0 {
			if ten := 10 * job.Done / job.Tasks; ten != said {
				said = ten
				d.say("  %3d%%  %d of %d tasks done, %d leased, %d waiting", 100*job.Done/job.Tasks, job.Done, job.Tasks, job.Leased, job.Waiting)
			}
			if victim == nil && 2*job.Done >= job.Tasks {
				if victim, err = d.killOne(ctx, nodes, id); err != nil {
					return victim, err
				}
			}
		}
		if job.Over() {
			if job.State != "done" {
				return victim, fmt.Errorf("%w: the job is %s: %s", ErrDemo, job.State, job.Detail)
			}
			return victim, nil
		}
		select {
		case <-ctx.Done():
			return victim, ctx.Err()
		case <-tick.C:
		}
	}
}

func (d Demo) killOne(ctx context.Context, nodes []*Process, id tasks.JobID) (*Process, error) {
	all, err := nodes[0].Client.AllTasks(ctx, string(id))
	if err != nil {
		return nil, err
	}
	held := map[string]int{}
	for _, t := range all {
		for _, a := range t.Attempts {
			if a.State == "held" || a.State == "late" {
				held[a.Worker]++
			}
		}
	}
	var victim *Process
	for _, p := range nodes[1:] {
		if held[p.ID] > 0 && (victim == nil || held[p.ID] > held[victim.ID]) {
			victim = p
		}
	}
	if victim == nil {
		return nil, nil // nobody else holds a lease at this instant: look again
	}
	if err := victim.Kill(); err != nil {
		return nil, err
	}
	d.say("  ----  %s (%s) killed with SIGKILL while it held %d assignments", victim.Name, short(victim.ID), held[victim.ID])
	return victim, nil
}

// report fetches the counts, compares them and tells where everything ran.
func (d Demo) report(ctx context.Context, nodes []*Process, id tasks.JobID, text []byte, out *Outcome) error {
	c := nodes[0].Client
	job, err := c.Job(ctx, string(id))
	if err != nil {
		return err
	}
	got, want, err := counts(ctx, c, tasks.CID(job.Output), text)
	if err != nil {
		return err
	}
	all, err := c.AllTasks(ctx, string(id))
	if err != nil {
		return err
	}
	out.Match, out.Words = maps.Equal(got, want), len(got)
	for _, n := range got {
		out.Counted += n
	}
	for _, n := range want {
		out.Expected += n
	}
	d.printCounts(got, out)
	d.tally(nodes, all, out)
	d.say("\nWhere the tasks ran (RTT as the origin measured it):")
	for _, w := range out.Workers {
		d.say("  %-6s %-14s %8.1f ms  %4d results: tasks %s", w.Node, short(w.Peer), w.RTTMs, w.Count, w.Tasks)
	}
	d.say("\nLeased again:")
	for i, a := range out.LeasedAgain {
		if i == 20 {
			d.say("  … and %d more", len(out.LeasedAgain)-i)
			break
		}
		d.say("  task %s: %s by %s -> %s", a.Task, a.Why, a.From, a.To)
	}
	return nil
}

func (d Demo) printCounts(got map[string]int64, out *Outcome) {
	words := slices.SortedFunc(maps.Keys(got), func(a, b string) int {
		if got[a] != got[b] {
			return int(got[b] - got[a])
		}
		return strings.Compare(a, b)
	})
	d.say("\nThe mesh counted %d words, %d different; a plain count in one process finds %d.", out.Counted, out.Words, out.Expected)
	for _, w := range words[:min(8, len(words))] {
		d.say("  %6d %s", got[w], w)
	}
}

// tally sums up per worker, and finds what was leased more than once.
func (d Demo) tally(nodes []*Process, all []api.Task, out *Outcome) {
	name := map[string]string{}
	for _, p := range nodes {
		name[p.ID] = p.Name
	}
	type sum struct {
		rtt   float64
		n     int
		tasks []uint32
	}
	sums := map[string]*sum{}
	for _, t := range all {
		if t.Stage == "map" {
			out.Tasks++
		}
		var lost []api.Attempt // assignments that came to nothing, and wait for another
		for _, a := range t.Attempts {
			s := sums[a.Worker]
			if s == nil {
				s = &sum{}
				sums[a.Worker] = s
			}
			if a.RTTMs > 0 {
				s.rtt = a.RTTMs
			}
			if len(lost) > 0 && !a.Started.Before(lost[0].Ended) {
				out.LeasedAgain = append(out.LeasedAgain, Again{Task: fmt.Sprintf("%s/%d", t.Stage, t.Index), From: name[lost[0].Worker], To: name[a.Worker], Why: lost[0].State})
				lost = lost[1:]
			}
			if a.State == "lost" || a.State == "failed" {
				lost = append(lost, a)
			}
		}
		for _, w := range t.Workers {
			if s := sums[w]; s != nil {
				s.n++
				if t.Stage == "map" {
					s.tasks = append(s.tasks, t.Index)
				}
			}
		}
	}
	for _, p := range nodes {
		s := sums[p.ID]
		if s == nil {
			s = &sum{}
		}
		out.Workers = append(out.Workers, WorkerReport{Node: p.Name, Peer: p.ID, RTTMs: s.rtt, Tasks: ranges(s.tasks), Count: s.n})
	}
}

// ranges writes ascending numbers as 0-3,7,9-12.
func ranges(n []uint32) string {
	var b strings.Builder
	for i := 0; i < len(n); {
		j := i
		for j+1 < len(n) && n[j+1] == n[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if i == j {
			fmt.Fprintf(&b, "%d", n[i])
		} else {
			fmt.Fprintf(&b, "%d-%d", n[i], n[j])
		}
		i = j + 1
	}
	return b.String()
}
