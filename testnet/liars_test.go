//go:build unix

package testnet

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
	"github.com/kith-mesh/kith/testnet/liar"
)

// lies is a mesh of real processes with liars in it. Each liar has a job to itself.
type lies struct {
	*lab
	primes tasks.CID
	honest []*Process
	liars  map[string]*Process
	sum    map[tasks.PeerID]wire.Tally // of the jobs that were looked at
}

// lieLimit is below what the jobs here count primes.
const lieLimit = 6000

// newLies starts an origin, two honest workers, and a liar of each kind, which
// joins by an invite as any node does.
func newLies(t *testing.T) *lies {
	t.Helper()
	kinds := []string{"helps", "holds a lease", "colludes", "colludes too"}
	kinds = slices.AppendSeq(kinds, maps.Keys(lieCases))
	for kind := range lieSlow {
		if lieCases[kind].check != nil || kind == "holds back" && os.Getenv("KITH_SURVIVE") == "" { // 30 seconds pass before it is blamed
			continue
		}
		kinds = append(kinds, kind)
	}
	l := &lies{lab: newLab(t, 3, nil), liars: map[string]*Process{}, sum: map[tasks.PeerID]wire.Tally{}}
	l.honest = l.nodes[1:]
	exe, err := os.Executable()
	l.must(err)
	list, err := NewProcesses(filepath.Join(t.TempDir(), "liars"), len(kinds))
	l.must(err)
	t.Cleanup(func() {
		if err := StopAll(list); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, p := range list {
				t.Logf("%s (%s):\n%s", p.Name, p.ID, p.Tail())
			}
		}
	})
	invite, err := l.origin.Client.CreateInvite(l.ctx, api.InviteRequest{Uses: len(kinds), ExpiresIn: "10m", Local: true, Name: "liars"})
	l.must(err)
	for i, p := range list {
		p.Name, p.Env = kinds[i], []string{lieEnv + "=" + kinds[i]}
		l.must(p.Start(exe, "--join", invite.Line))
		l.liars[kinds[i]] = p
	}
	for _, p := range list {
		l.must(p.Ready(l.ctx))
	}
	l.pause(l.origin)
	l.count(l.job(l.origin, l.warm())) // the honest have compiled the program
	l.pause(l.honest...)
	l.primes = l.program(l.origin, "primes")
	return l
}

// heard is what a liar's process said of one thing.
func (l *lies) heard(p *Process, said string) (out []word) {
	l.t.Helper()
	f, err := os.Open(filepath.Join(p.Home, "log"))
	l.must(err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var w word
		if text, ok := strings.CutPrefix(lines.Text(), wordMark); ok && json.Unmarshal([]byte(text), &w) == nil && w.Said == said {
			out = append(out, w)
		}
	}
	return out
}

// hears waits for a liar's word of a kind.
func (l *lies) hears(p *Process, said string) (w word) {
	l.t.Helper()
	l.until(p.Name+" says "+said, func() bool {
		all := l.heard(p, said)
		if len(all) > 0 {
			w = all[0]
		}
		return len(all) > 0
	})
	return w
}

// give hands in a job of so many tasks under a quorum.
func (l *lies) give(count, replicas uint32) string {
	l.t.Helper()
	return l.submit(l.origin, tasks.Spec{Name: "primes", Kind: tasks.KindWasm, Program: l.primes, Args: []string{fmt.Sprint(lieLimit)}, Tasks: count,
		Resources: tasks.Resources{Timeout: lieTimeout, Output: lieOutput}, Verify: tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: replicas}})
}

// bid has a liar ask for work on a job, and waits until it has some.
func (l *lies) bid(p *Process, job string) {
	l.t.Helper()
	l.until("the job takes bids", func() bool { return l.job(l.origin, job).State == "running" })
	l.must(p.tell(order{Do: "bid", Origin: l.origin.ID, Job: tasks.JobID(job)}))
	l.until(p.Name+" has work", func() bool {
		return slices.ContainsFunc(l.heard(p, "leased"), func(w word) bool { return string(w.Job) == job })
	})
}

func (l *lies) tasksOf(job string) []api.Task {
	l.t.Helper()
	all, err := l.origin.Client.AllTasks(l.ctx, job)
	l.must(err)
	return all
}

// right waits for a job's end. Its outputs must be what honest workers give; each
// task is decided once, by enough workers, who are all that count; and of the
// workers nobody but the liars may have been rejected.
func (l *lies) right(job string, replicas int, liars ...*Process) api.Job {
	l.t.Helper()
	j := l.over(l.origin, job)
	if j.State != "done" || j.Done != j.Tasks {
		l.t.Fatalf("the job is %s (%s), %d of %d tasks", j.State, j.Detail, j.Done, j.Tasks)
	}
	l.count(j)
	counted, accepted := 0, 0
	for i, task := range l.tasksOf(job) {
		workers := slices.Compact(slices.Sorted(slices.Values(task.Workers)))
		if task.State != "decided" || len(workers) < replicas || len(workers) != len(task.Workers) {
			l.t.Errorf("task %d is %s by %v, want %d peers", task.Index, task.State, task.Workers, replicas)
		}
		counted += len(workers)
		if got, want := l.read(task.Output), string(primesIn(lieLimit, uint64(i), uint64(j.Tasks))); got != want {
			l.t.Errorf("task %d came to %q, want %q", i, got, want)
		}
	}
	for _, w := range j.Workers {
		accepted += w.Accepted
		if w.Rejected > 0 && !slices.ContainsFunc(liars, func(p *Process) bool { return p.ID == w.Peer }) {
			l.t.Errorf("%s is blamed: %+v", l.name(w.Peer), w)
		}
	}
	if accepted != counted {
		l.t.Errorf("%d answers are credited, and %d count: %+v", accepted, counted, j.Workers)
	}
	return j
}

// count adds what a job that is over says of its workers.
func (l *lies) count(j api.Job) {
	for _, w := range j.Workers {
		t := l.sum[tasks.PeerID(w.Peer)]
		l.sum[tasks.PeerID(w.Peer)] = wire.Tally{Accepted: t.Accepted + uint32(w.Accepted), Rejected: t.Rejected + uint32(w.Rejected)}
	}
}

func (l *lies) read(root string) string {
	l.t.Helper()
	r, err := l.origin.Client.Cat(l.ctx, tasks.CID(root), "", 0, -1)
	l.must(err)
	defer r.Close()
	b, err := io.ReadAll(r)
	l.must(err)
	return string(b)
}

func (l *lies) name(id string) string {
	for _, p := range append(slices.Collect(maps.Values(l.liars)), l.nodes...) {
		if p.ID == id {
			return p.Name
		}
	}
	return id
}

func of(j api.Job, p *Process) (w api.Worker) {
	for _, w := range j.Workers {
		if w.Peer == p.ID {
			return w
		}
	}
	return w
}

// recorded are the reasons that a job's tasks name for a worker's attempts.
func (l *lies) recorded(job string, p *Process) (out []tasks.Reason) {
	l.t.Helper()
	for _, task := range l.tasksOf(job) {
		for _, a := range task.Attempts {
			if a.Worker == p.ID && a.State == "rejected" && a.Reason != nil {
				out = append(out, tasks.Reason(a.Reason.Code))
			}
		}
	}
	return out
}

// told are the reasons that a liar was rejected with.
func (l *lies) told(job string, p *Process) (out []tasks.Reason) {
	l.t.Helper()
	for _, w := range l.heard(p, "judged") {
		if string(w.Job) == job && w.Status == tasks.Rejected {
			out = append(out, w.Reason)
		}
	}
	return out
}

// state is how an attempt of a worker stands; "" without one.
func (l *lies) state(job string, p *Process) string {
	l.t.Helper()
	for _, task := range l.tasksOf(job) {
		for _, a := range task.Attempts {
			if a.Worker == p.ID {
				return a.State
			}
		}
	}
	return ""
}

// blamed checks what a worker's job, its tasks and the liar itself know of a lie.
func (l *lies) blamed(j api.Job, p *Process, why tasks.Reason, attempt bool) {
	l.t.Helper()
	if w := of(j, p); w.Rejected == 0 || w.Accepted > 0 {
		l.t.Errorf("%s stands with %+v", p.Name, w)
	}
	if got := l.recorded(j.ID, p); attempt && !slices.Contains(got, why) {
		l.t.Errorf("its attempts ended for %v, want %d", got, why)
	}
	if l.t.Failed() {
		return
	}
	l.until(p.Name+" is told", func() bool { return slices.Contains(l.told(j.ID, p), why) })
}

// tallies checks, with the origin down, that what it keeps of each peer is what
// its jobs said.
func (l *lies) tallies() {
	l.t.Helper()
	l.must(l.origin.Stop())
	s, err := state.Open(filepath.Join(l.origin.Home, "kith.db"))
	l.must(err)
	defer s.Close()
	kept, err := s.Tallies(l.ctx)
	l.must(err)
	maps.DeleteFunc(l.sum, func(_ tasks.PeerID, t wire.Tally) bool { return t == wire.Tally{} })
	if !maps.Equal(kept, l.sum) {
		l.t.Errorf("the origin keeps %v, its jobs said %v", kept, l.sum)
	}
}

const (
	lieTimeout = 3 * time.Second // of a task; before anything is known of its pace, it is copied after four times that and a second
	lieOutput  = 1 << 20
)

// TestLiars: each liar is a node and a process of its own, which joined by an
// invite, and lies to a real origin about one job. The honest rest until it has
// work, so that it has some.
func TestLiars(t *testing.T) {
	l := newLies(t)
	t.Run("two of three collude", func(t *testing.T) { l.in(t).collude() })
	slow := map[string]string{}
	for kind := range lieSlow {
		if p := l.liars[kind]; p != nil && lieCases[kind].check == nil {
			slow[kind] = l.give(1, 2)
			l.bid(p, slow[kind])
		}
	}
	for kind, c := range lieCases {
		t.Run(kind, func(t *testing.T) {
			l := l.in(t)
			job := c.given(l, kind)
			l.bid(l.liars[kind], job)
			l.resume(l.honest...)
			c.check(l, l.liars[kind], job)
			l.pause(l.honest...)
			if lieSlow[kind] != nil {
				slow[kind] = job
			}
		})
	}
	l.resume(l.nodes...)
	for kind, job := range slow {
		t.Run(kind, func(t *testing.T) { lieSlow[kind](l.in(t), l.liars[kind], job) })
	}
	l.tallies()
}

// A lieCase is a job for a liar, and what came of it.
type lieCase struct {
	give  func(l *lies) (job string) // before the liar bids; nil: a plain one
	check lieCheck
}

type lieCheck func(l *lies, p *Process, job string)

func (c lieCase) given(l *lies, kind string) string {
	l.t.Helper()
	if c.give == nil {
		return l.give(3, 2)
	}
	return c.give(l)
}

// caught is a lie that ends an attempt with a reason.
func caught(why tasks.Reason) lieCheck {
	return func(l *lies, p *Process, job string) {
		l.t.Helper()
		l.blamed(l.right(job, 2, p), p, why, true)
	}
}

// accused is a lie about what is not the liar's.
func accused(why tasks.Reason) lieCheck {
	return func(l *lies, p *Process, job string) {
		l.t.Helper()
		l.blamed(l.right(job, 2, p), p, why, false)
	}
}

// unheard is a worker that is replaced, since nothing comes of it.
func unheard(l *lies, p *Process, job string) {
	l.t.Helper()
	j := l.right(job, 2)
	if w := of(j, p); w.Accepted+w.Rejected > 0 || j.Copies+j.Releases == 0 {
		l.t.Errorf("it stands with %+v; %d copies, %d releases", w, j.Copies, j.Releases)
	}
	if s := l.state(job, p); s != "revoked" && s != "lost" {
		l.t.Errorf("its attempt is %q", s)
	}
}

// lieSlow begin before the others where they can and are looked at in the end,
// since they take a while.
var lieSlow = map[string]lieCheck{
	// The third that answers is the origin.
	"asks for others' work": func(l *lies, _ *Process, job string) { l.right(job, 3) },
	"stalls":                unheard,
	"never answers":         unheard,
	"holds back":            caught(tasks.NotRevealed),
}

var lieCases = map[string]lieCase{
	"says wrong":         {check: caught(tasks.OutputMismatch)},
	"invents":            {check: caught(tasks.OutputMissing)},
	"changes its answer": {check: caught(tasks.NotAsCommitted)},
	"does not commit":    {check: caught(tasks.NotCommitted)},
	"gives too much":     {check: caught(tasks.OutputTooLarge)},
	"copies":             {copied, caught(tasks.NotAsCommitted)},
	"another's task":     {check: accused(tasks.WrongTask)},
	"another's lease":    {leased, accused(tasks.NotItsLease)},
	// The right CID and no bytes: it is believed when the bytes are here from
	// another, or else blamed. No honest worker is.
	"gives nothing": {check: func(l *lies, p *Process, job string) {
		j := l.right(job, 2, p)
		w, why := of(j, p), l.recorded(job, p)
		if w.Accepted+w.Rejected == 0 || len(why) != w.Rejected || slices.ContainsFunc(why, func(r tasks.Reason) bool { return r != tasks.OutputMissing }) {
			l.t.Errorf("it stands with %+v, its attempts ended for %v", w, why)
		}
	}},
	// What it says again, of a job that is over and while the next one runs, counts
	// for neither.
	"repeats": {check: func(l *lies, p *Process, job string) {
		before := l.right(job, 2)
		if of(before, p).Accepted == 0 {
			l.t.Errorf("it answered nothing: there is nothing to repeat")
		}
		next := l.give(4, 2)
		l.must(p.tell(order{Do: "repeat", Origin: l.origin.ID}))
		if w := l.hears(p, "repeated"); w.Count < 2 {
			l.t.Errorf("it repeated %d messages", w.Count)
		}
		if j := l.right(next, 2); of(j, p) != (api.Worker{}) {
			l.t.Errorf("in the next job it stands with %+v", of(j, p))
		}
		if after := l.job(l.origin, job); !slices.Equal(after.Workers, before.Workers) || after.Output != before.Output {
			l.t.Errorf("%+v became %+v", before, after)
		}
	}},
	// It asks for another's output with its lease's ticket and without, before the
	// task is decided: nobody gives it.
	"asks for others' work": {func(l *lies) string { return l.give(1, 3) }, func(l *lies, p *Process, job string) {
		var index uint32
		l.until("the honest have answered what it has a lease of", func() bool {
			for _, task := range l.tasksOf(job) {
				mine, said := false, 0
				for _, a := range task.Attempts {
					mine = mine || a.Worker == p.ID
					if a.State == "committed" {
						said++
					}
				}
				if mine && said == 2 {
					index = task.Index
					return true
				}
			}
			return false
		})
		out, err := storage.SumBytes(primesIn(lieLimit, uint64(index), 1))
		l.must(err)
		o := order{Do: "fetch", Job: tasks.JobID(job), Root: tasks.CID(out.String())}
		for _, n := range l.nodes {
			o.From = append(o.From, n.ID)
		}
		l.must(p.tell(o))
		if w := l.hears(p, "fetched"); w.Count > 0 || w.Tasks[0] < 6 {
			l.t.Errorf("it asked %d times and was given the output %d times", w.Tasks[0], w.Count)
		}
		for _, n := range l.honest {
			if r, err := n.Client.Cat(l.ctx, o.Root, "", 0, -1); err != nil {
				l.t.Errorf("%s has not the output that it was asked for: %v", n.Name, err)
			} else {
				r.Close()
			}
		}
	}},
}

// copied gives a job of one task to a worker that commits to the right answer and
// hands it on to one that will pass it off as its own.
func copied(l *lies) string {
	l.t.Helper()
	helps, copies := l.liars["helps"], l.liars["copies"]
	job := l.give(1, 2)
	l.bid(helps, job)
	g := l.hears(helps, "given")
	l.must(copies.tell(order{Do: "given", Index: g.Tasks[0], Given: g.Given}))
	return job
}

// leased gives a job to a worker that does nothing about it, so that there is
// another's lease.
func leased(l *lies) string {
	l.t.Helper()
	job := l.give(3, 2)
	l.bid(l.liars["holds a lease"], job)
	return job
}

// collude is what a quorum of two does not promise: of two liars that agreed on
// an answer and an honest worker, the liars win, and it is the honest one that is
// blamed.
func (l *lies) collude() {
	a, b, third := l.liars["colludes"], l.liars["colludes too"], l.honest[0]
	job := l.give(1, 2)
	l.bid(a, job)
	l.resume(third)
	l.until("they contradict each other", func() bool { return l.state(job, third) == "answered" && l.state(job, a) == "answered" })
	l.bid(b, job)
	j := l.over(l.origin, job)
	l.pause(third)
	l.count(j)
	if j.State != "done" || of(j, a).Accepted != 1 || of(j, b).Accepted != 1 || of(j, third).Rejected != 1 {
		l.t.Errorf("the job is %s: %+v", j.State, j.Workers)
	}
	if got := l.read(j.Output); got != string(liar.Agreed(tasks.Ref{})) {
		l.t.Errorf("it came to %q: two that agree should have won", got)
	}
	if why := l.recorded(job, third); !slices.Equal(why, []tasks.Reason{tasks.OutputMismatch}) {
		l.t.Errorf("the honest third's attempt ended for %v", why)
	}
	if task := l.tasksOf(job)[0]; task.State != "decided" || len(task.Workers) != 2 {
		l.t.Errorf("%+v", task)
	}
}

// in is the same for a subtest.
func (l *lies) in(t *testing.T) *lies {
	inner := *l
	inner.lab = l.lab.in(t)
	return &inner
}
