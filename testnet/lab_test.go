//go:build unix

package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/tasks"
)

// lab is a mesh of real processes that a test kills: the first is an origin that
// runs no work itself, the others are workers.
type lab struct {
	t      *testing.T
	ctx    context.Context
	exe    string
	nodes  []*Process
	args   map[*Process][]string
	origin *Process
	text   []byte
	lines  int64
}

// newLab starts n nodes, with args for the i-th and an environment for all.
func newLab(t *testing.T, n int, args func(i int) []string, env ...string) *lab {
	t.Helper()
	l := startLab(t, crashBinary(t), newNodes(t, n), args, env...)
	all, err := examples.Text()
	l.must(err)
	for range 200 {
		line, rest, _ := bytes.Cut(all, []byte("\n"))
		l.text, all = append(append(l.text, line...), '\n'), rest
	}
	return l
}

// startLab starts a mesh of given nodes, without a text.
func startLab(t *testing.T, exe string, nodes []*Process, args func(i int) []string, env ...string) *lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range nodes {
				t.Logf("%s:\n%s", p.Name, p.Tail())
			}
		}
	})
	l := &lab{t: t, ctx: ctx, exe: exe, nodes: nodes, args: map[*Process][]string{}, origin: nodes[0], lines: 50}
	for i, p := range nodes {
		p.Env = env
		if args != nil {
			l.args[p] = args(i)
		}
	}
	l.must(StartMesh(ctx, exe, nodes, args))
	return l
}

// in is the lab for a subtest.
func (l *lab) in(t *testing.T) *lab {
	inner := *l
	inner.t = t
	return &inner
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// start brings a node up again, with an environment.
func (l *lab) start(p *Process, env ...string) {
	l.t.Helper()
	p.Env = env
	l.must(errors.Join(p.Start(l.exe, l.args[p]...), p.Ready(l.ctx)))
}

// restart stops a node in order, and brings it up with an environment.
func (l *lab) restart(p *Process, env ...string) {
	l.t.Helper()
	l.must(p.Stop())
	l.start(p, env...)
}

// patience is for how long one thing is waited for. It is longer than anything that
// a node backs off for.
const patience = 4 * time.Minute

// died waits until a node that was told to has died.
func (l *lab) died(p *Process) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.ctx, patience)
	defer cancel()
	select {
	case <-p.Exited():
		l.must(p.Kill())
	case <-ctx.Done():
		l.t.Fatalf("%s did not die: %s", p.Name, p.Tail())
	}
}

// until asks again and again, until ok: what nothing tells of.
func (l *lab) until(what string, ok func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			l.t.Fatalf("%s: not so in %v", what, patience)
		}
	}
}

// cut waits until a job has tasks.
func (l *lab) cut(p *Process, id string) {
	l.t.Helper()
	ctx, stop := context.WithTimeout(l.ctx, patience)
	defer stop()
	there := false
	_, err := p.Client.Follow(ctx, tasks.JobID(id), func(j api.Job) {
		if j.Tasks > 0 {
			there = true
			stop()
		}
	})
	if !there {
		l.t.Fatalf("the job was not cut into tasks: %v; why: %s", err, l.why(p, id))
	}
}

func (l *lab) upload(p *Process, name string, b []byte, audience api.Audience) tasks.CID {
	l.t.Helper()
	root, err := p.Client.AddFile(l.ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Name: name, Audience: audience})
	l.must(err)
	return tasks.CID(root.CID)
}

func (l *lab) program(p *Process, name string) tasks.CID {
	l.t.Helper()
	return l.upload(p, name+".wasm", l.exampleProgram(name), api.AudienceJob)
}

func (l *lab) exampleProgram(name string) []byte {
	l.t.Helper()
	b, err := examples.Program(name)
	l.must(err)
	return bytes.Clone(b)
}

// wordCount is a job of four map tasks and a reduce.
func (l *lab) wordCount(p *Process) tasks.Spec {
	l.t.Helper()
	return tasks.Spec{Name: "wordcount", Kind: tasks.KindWasm, Program: l.program(p, "wordcount"),
		Inputs: []tasks.Input{{Source: l.upload(p, "text", l.text, api.AudienceJob), Split: tasks.Split{By: tasks.SplitLines, Size: l.lines}}},
		Reduce: &tasks.Reduce{Program: l.program(p, "wcsum")}}
}

// submit hands a job in. A node that dies of it has said no ID: the job is the
// one that it knows when it is back.
func (l *lab) submit(p *Process, spec tasks.Spec) (id string) {
	l.t.Helper()
	job, err := p.Client.Submit(l.ctx, spec)
	if err != nil {
		l.died(p)
	}
	return string(job)
}

// newest is the ID of the job that a node took last.
func (l *lab) newest(p *Process) string {
	l.t.Helper()
	jobs, err := p.Client.Jobs(l.ctx, "", 1)
	l.must(err)
	if len(jobs) == 0 {
		l.t.Fatalf("%s knows no job", p.Name)
	}
	return jobs[0].ID
}

func (l *lab) job(p *Process, id string) api.Job {
	l.t.Helper()
	j, err := p.Client.Job(l.ctx, id)
	l.must(err)
	return j
}

// why is what a job waits for.
func (l *lab) why(p *Process, id string) string {
	l.t.Helper()
	list, err := p.Client.Why(l.ctx, id)
	l.must(err)
	var b strings.Builder
	for _, w := range list {
		fmt.Fprintf(&b, "%d: %s\n", w.Tasks, w.Reason)
	}
	return b.String()
}

// says waits until why names a cause.
func (l *lab) says(p *Process, id, cause string) {
	l.t.Helper()
	var said string
	l.until(fmt.Sprintf("why says %q", cause), func() bool {
		if said = l.why(p, id); strings.Contains(said, cause) {
			return true
		}
		if l.job(p, id).Over() {
			l.t.Fatalf("the job is over and why never said %q", cause)
		}
		return false
	})
	l.t.Logf("why: %s", strings.TrimSpace(said))
}

// over waits for a job's end.
func (l *lab) over(p *Process, id string) api.Job {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.ctx, patience)
	defer cancel()
	j, err := p.Client.Follow(ctx, tasks.JobID(id), nil)
	if err != nil {
		all, _ := p.Client.AllTasks(l.ctx, id)
		l.t.Fatalf("%v; why: %s; %+v", err, l.why(p, id), all)
	}
	return j
}

// done waits for a job's end and checks that each task counts once, and that the
// words are right.
func (l *lab) done(p *Process, id string, replicas int) api.Job {
	l.t.Helper()
	j := l.over(p, id)
	if j.State != "done" || j.Done != j.Tasks {
		l.t.Fatalf("the job is %s (%s), %d of %d tasks", j.State, j.Detail, j.Done, j.Tasks)
	}
	accepted := 0
	for _, w := range j.Workers {
		accepted += w.Accepted
	}
	if accepted != j.Tasks*replicas {
		l.t.Errorf("%d answers count for %d tasks, want %d for each: %+v", accepted, j.Tasks, replicas, j.Workers)
	}
	all, err := p.Client.AllTasks(l.ctx, id)
	l.must(err)
	for _, task := range all {
		if task.State != "decided" || len(task.Workers) != replicas {
			l.t.Errorf("%s task %d is %s by %v, want %d peers", task.Stage, task.Index, task.State, task.Workers, replicas)
		}
	}
	l.words(p, j.Output)
	return j
}

func (l *lab) words(p *Process, output string) {
	l.t.Helper()
	got, want, err := counts(l.ctx, p.Client, tasks.CID(output), l.text)
	l.must(err)
	if !maps.Equal(got, want) {
		l.t.Errorf("the mesh counted %d different words, a plain count %d", len(got), len(want))
	}
}

// pause keeps nodes from working, also after their restart; resume lets them.
func (l *lab) pause(nodes ...*Process) {
	l.t.Helper()
	for _, p := range nodes {
		_, err := p.Client.Pause(l.ctx, 0)
		l.must(err)
	}
}

func (l *lab) resume(nodes ...*Process) {
	l.t.Helper()
	for _, p := range nodes {
		_, err := p.Client.Resume(l.ctx)
		l.must(err)
	}
}

// primesBelow is what a job of slow finds, and how long it lets a task take: a
// second or more of computing on any machine.
const (
	primesBelow = 100_000_000
	primesFound = 5_761_455
)

// slow is a job of one task that takes its time.
func (l *lab) slow(p *Process) tasks.Spec {
	l.t.Helper()
	return tasks.Spec{Name: "primes", Kind: tasks.KindWasm, Program: l.program(p, "primes"), Args: []string{strconv.Itoa(primesBelow)}, Tasks: 1}
}

// warm brings the program of slow jobs to two workers: what is here is not
// fetched when the job's origin is gone.
func (l *lab) warm() (job string) {
	l.t.Helper()
	s := l.slow(l.origin)
	s.Args, s.Verify = []string{"1000"}, tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
	id, err := l.origin.Client.Submit(l.ctx, s)
	l.must(err)
	if j := l.over(l.origin, string(id)); j.State != "done" {
		l.t.Fatalf("the job is %s: %s", j.State, j.Detail)
	}
	return string(id)
}

// working waits until a node runs a task.
func (l *lab) working(p *Process) {
	l.t.Helper()
	l.until(p.Name+" works", func() bool {
		s, err := p.Client.Status(l.ctx)
		l.must(err)
		return s.Work.Running > 0
	})
}

// found waits for the end of a slow job, whose one task must count once.
func (l *lab) found(p *Process, id string) api.Job {
	l.t.Helper()
	j := l.over(p, id)
	accepted := 0
	for _, w := range j.Workers {
		accepted += w.Accepted
	}
	if j.State != "done" || j.Done != 1 || accepted != 1 {
		l.t.Errorf("the job is %s (%s), %d tasks done, %d answers count", j.State, j.Detail, j.Done, accepted)
	}
	l.primes(p, j.Output)
	return j
}

func (l *lab) primes(p *Process, output string) {
	l.t.Helper()
	r, err := p.Client.Cat(l.ctx, tasks.CID(output), "", 0, -1)
	l.must(err)
	defer r.Close()
	b, err := io.ReadAll(r)
	l.must(err)
	if want := fmt.Sprintf("0 %d %d\n", primesBelow, primesFound); string(b) != want {
		l.t.Errorf("the output is %q, want %q", b, want)
	}
}

// scenario leaves a test that takes long to those who ask for it: 'make survive'.
func scenario(t *testing.T) {
	t.Helper()
	if os.Getenv("KITH_SURVIVE") == "" {
		t.Skip("a scenario: KITH_SURVIVE=1 runs it")
	}
}
