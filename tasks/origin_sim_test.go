package tasks_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

func TestJobRunsToItsEnd(t *testing.T) {
	for _, c := range []struct {
		name     string
		replicas uint32
		reduce   bool
		count    int
		nodes    int
		within   time.Duration
	}{
		{"one task on one node", 1, false, 1, 1, 300 * time.Millisecond},
		{"many on one node", 1, false, 50, 1, 6 * time.Second},
		{"many on five", 1, false, 200, 5, 6 * time.Second},
		{"reduce", 1, true, 20, 3, 3 * time.Second},
		{"quorum of two", 2, false, 100, 5, 8 * time.Second},
		{"quorum of three, reduce", 3, true, 30, 3, 6 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newSim(t, 1, spec(c.replicas, c.reduce), c.count)
			m.checks = true
			for i := range c.nodes {
				m.node(fmt.Sprintf("w%d", i), time.Duration(i)*10*time.Millisecond, 2, 1)
			}
			m.run(10 * time.Minute)
			m.done()
			if took := m.finished.Sub(m.began); took > c.within {
				t.Errorf("took %v, more than %v", took, c.within)
			}
			if n := m.origin.Status().Releases; n != 0 {
				t.Errorf("%d releases in a healthy mesh", n)
			}
		})
	}
}

// One task, twelve idle peers: the nearest gets it, without waiting for the rest.
func TestNearestIdlePeerIsTaken(t *testing.T) {
	m := newSim(t, 3, spec(1, false), 1)
	for i := range 12 {
		m.node(fmt.Sprintf("w%d", i), time.Duration(48-4*i)*time.Millisecond, 1, 1)
	}
	m.run(time.Minute)
	m.done()
	if who := m.disk.Results[0].Workers[0]; who != "w11" {
		t.Errorf("ran on %s, not on the nearest", who)
	}
	if m.first > 225*time.Millisecond {
		t.Errorf("the first result of a task of 200 ms took %v", m.first)
	}
}

// All near peers are busy for long, a far one is idle: the search widens to it.
func TestFarIdlePeerBeatsNearQueues(t *testing.T) {
	m := newSim(t, 3, spec(1, false), 1)
	for i := range 6 {
		n := m.node(fmt.Sprintf("near%d", i), 10*time.Millisecond, 1, 1)
		busy := tasks.Lease{ID: "other", Job: "other", Origin: "origin", Worker: n.id, Program: "p", Duration: time.Hour, Grace: time.Hour}
		for k := range 6 {
			busy.Assignments = append(busy.Assignments, tasks.Assignment{Task: tasks.Task{Ref: tasks.Ref{Index: uint32(100 + k)}}})
		}
		n.w.Step(m.now, tasks.LeaseIn{Lease: busy})
	}
	m.node("far", 160*time.Millisecond, 1, 1)
	m.run(time.Minute)
	m.done()
	if who := m.disk.Results[0].Workers[0]; who != "far" {
		t.Errorf("ran on %s", who)
	}
	if m.first > 1500*time.Millisecond {
		t.Errorf("took %v", m.first)
	}
}

func TestMaxRTTKeepsFarPeersOut(t *testing.T) {
	s := spec(1, false)
	s.Locality.MaxRTT = 80 * time.Millisecond
	m := newSim(t, 3, s, 20)
	m.node("far", 120*time.Millisecond, 8, 1)
	m.run(30 * time.Second)
	if m.disk.Finish != nil || len(m.disk.Grants) != 0 {
		t.Fatal("work went beyond maxRTT")
	}
	why := m.origin.Why(m.now)
	if len(why) != 1 || why[0].Tasks != 20 || !strings.Contains(why[0].Text, "1 farther than 80ms") || why[0].Next.IsZero() {
		t.Errorf("why: %+v", why)
	}
	m.node("near", 20*time.Millisecond, 1, 1)
	m.run(5 * time.Minute)
	m.done()
}

// A worker dies half-way: what it had is leased again, and nothing else is.
func TestDeadWorkersTasksAreLeasedAgain(t *testing.T) {
	for _, notice := range []bool{true, false} {
		t.Run(fmt.Sprintf("notice=%v", notice), func(t *testing.T) {
			m := newSim(t, 5, spec(2, false), 120)
			m.checks = true
			for i := range 5 {
				m.node(fmt.Sprintf("w%d", i), time.Duration(5+10*i)*time.Millisecond, 2, 1)
			}
			killed := false
			m.onStep = func() {
				if !killed && len(m.disk.Results) == 60 {
					killed = true
					m.kill(m.nodes[2], notice)
				}
			}
			m.run(5 * time.Minute)
			m.done()
			s := m.origin.Status()
			if s.Releases+s.Copies == 0 || (notice && s.Releases == 0) {
				t.Errorf("nothing was leased again: %+v", s)
			}
			limit := 12 * time.Second
			if !notice {
				limit = 20 * time.Second // its lease lapses, or it is found slow
			}
			if took := m.finished.Sub(m.began); took > limit {
				t.Errorf("took %v", took)
			}
			lost := 0
			for _, task := range m.origin.Tasks(tasks.StageMap, 0, 1000) {
				for _, a := range task.Attempts {
					if a.State == tasks.AttemptLost && a.Worker != "w2" {
						t.Errorf("%v: lost by %s", task.Ref, a.Worker)
					}
					if a.State == tasks.AttemptLost {
						lost++
					}
				}
			}
			if notice && lost == 0 {
				t.Error("no attempt of the dead worker is noted as lost")
			}
		})
	}
}

// One worker of five takes an hour for each task. At the tail each of its tasks
// is copied exactly once.
func TestStragglersAreCopiedOnce(t *testing.T) {
	m := newSim(t, 7, spec(1, false), 60)
	m.checks = true
	for i := range 5 {
		m.node(fmt.Sprintf("w%d", i), time.Duration(5+5*i)*time.Millisecond, 2, 1)
	}
	service := m.service
	m.service = func(n *simNode, ref tasks.Ref) time.Duration {
		if n.id == "w1" && len(m.disk.Results) > 20 {
			return time.Hour
		}
		return service(n, ref)
	}
	m.run(5 * time.Minute)
	m.done()
	if took := m.finished.Sub(m.began); took > 6*time.Second {
		t.Errorf("took %v", took)
	}
	s := m.origin.Status()
	if s.Copies+s.Releases == 0 {
		t.Error("no copy was made")
	}
	for ref, n := range m.starts {
		if n > 2 {
			t.Errorf("%v was started %d times", ref, n)
		}
	}
}

func TestProgramFailures(t *testing.T) {
	fail := func(*simNode, tasks.Ref) tasks.Outcome {
		return tasks.Outcome{Reason: tasks.ExitCode, Detail: "exit code 3"}
	}
	for _, c := range []struct {
		name   string
		nodes  int
		spec   tasks.Spec
		starts int
		text   string
	}{
		{"alike on two workers", 3, spec(1, false), 2, "map task 0 failed alike on 2 workers: exit code not 0: exit code 3"},
		{"one worker alone", 1, spec(1, false), 6, "map task 0 failed 6 times: exit code not 0: exit code 3"},
		{"a quorum of three", 4, spec(3, false), 3, "failed alike on 3 workers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newSim(t, 9, c.spec, 1)
			m.checks = true
			m.outcome = fail
			for i := range c.nodes {
				m.node(fmt.Sprintf("w%d", i), 5*time.Millisecond, 1, 1)
			}
			m.run(5 * time.Minute)
			f := m.disk.Finish
			if f == nil || f.State != tasks.Failed || f.Reason != tasks.TooManyFailures || !strings.Contains(f.Detail, c.text) {
				t.Fatalf("finish %+v; why %v", f, m.origin.Why(m.now))
			}
			if n := m.starts[tasks.Ref{}]; n != c.starts {
				t.Errorf("started %d times, not %d", n, c.starts)
			}
			if took := m.finished.Sub(m.began); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestReduceFailureHasItsOwnReason(t *testing.T) {
	m := newSim(t, 9, spec(1, true), 3)
	plain := m.outcome
	m.outcome = func(n *simNode, ref tasks.Ref) tasks.Outcome {
		if ref.Stage == tasks.StageReduce {
			return tasks.Outcome{Reason: tasks.Trap, Detail: "unreachable"}
		}
		return plain(n, ref)
	}
	m.node("a", 0, 1, 1)
	m.node("b", time.Millisecond, 1, 1)
	m.run(time.Minute)
	if f := m.disk.Finish; f == nil || f.Reason != tasks.ReduceFailed || !strings.HasPrefix(f.Detail, "reduce task 0") {
		t.Fatalf("finish %+v", f)
	}
}

// The worker's own failures cost no retry, and keep it away.
func TestWorkersFailuresDoNotCount(t *testing.T) {
	s := spec(1, false)
	s.Retry.Max = 1
	m := newSim(t, 11, s, 10)
	plain := m.outcome
	m.outcome = func(n *simNode, ref tasks.Ref) tasks.Outcome {
		if n.id == "broken" {
			return tasks.Outcome{Reason: tasks.WorkerFault}
		}
		return plain(n, ref)
	}
	m.node("broken", 0, 1, 1)
	m.node("good", 30*time.Millisecond, 1, 1)
	m.run(time.Minute)
	m.done()
	failed := 0
	for _, task := range m.origin.Tasks(tasks.StageMap, 0, 10) {
		for _, a := range task.Attempts {
			if a.State == tasks.AttemptFailed {
				failed++
			}
		}
	}
	if failed > 3 {
		t.Errorf("%d runs were wasted on the broken worker", failed)
	}
}

func TestStrangersGetOneTaskFirst(t *testing.T) {
	m := newSim(t, 13, spec(1, false), 100)
	m.node("w", 10*time.Millisecond, 8, 1)
	m.run(time.Minute)
	m.done()
	if n := len(m.disk.Grants[0].Indexes); n != 1 {
		t.Errorf("a stranger's first lease had %d tasks", n)
	}
	most := 0
	for _, g := range m.disk.Grants {
		most = max(most, len(g.Indexes))
	}
	if most < 8 {
		t.Errorf("leases never grew beyond %d", most)
	}
}

// Two peers can't make a quorum of three: the job says so and waits.
func TestTooFewPeersForAQuorum(t *testing.T) {
	m := newSim(t, 15, spec(3, false), 4)
	m.checks = true
	m.node("a", 0, 1, 1)
	m.node("b", 10*time.Millisecond, 1, 1)
	m.run(time.Minute)
	if m.disk.Finish != nil {
		t.Fatalf("finish %+v", m.disk.Finish)
	}
	why := m.origin.Why(m.now)
	if len(why) == 0 || !strings.Contains(why[0].Text, "answers from 3 different peers, and 2 can") || why[0].Next.IsZero() {
		t.Errorf("why: %+v", why)
	}
	m.node("c", 20*time.Millisecond, 1, 1)
	m.run(2 * time.Minute)
	m.done()
}

// Liars are outvoted; with more liars than retries nobody is believed, and the
// job says who answered what.
func TestQuorumAgainstLiars(t *testing.T) {
	m := newSim(t, 17, spec(2, false), 30)
	m.checks = true
	for i := range 5 {
		m.node(fmt.Sprintf("w%d", i), time.Duration(i)*time.Millisecond, 1, 1).liar = i == 0
	}
	m.run(5 * time.Minute)
	m.done()
	s := m.origin.Status()
	if s.Workers[0].Rejected == 0 || s.Workers[0].Accepted != 0 {
		t.Errorf("the liar: %+v", s.Workers[0])
	}

	one := spec(2, false)
	one.Retry.Max = 1
	m = newSim(t, 17, one, 1)
	for i := range 4 {
		m.node(fmt.Sprintf("w%d", i), time.Duration(i)*time.Millisecond, 1, 1).liar = true
	}
	m.run(5 * time.Minute)
	f := m.disk.Finish
	if f == nil || f.Reason != tasks.NoQuorum || strings.Count(f.Detail, "-lie-") != 3 || !strings.Contains(f.Detail, "from w") {
		t.Errorf("finish %+v", f)
	}
	if len(m.disk.Attempts) != 3 {
		t.Errorf("%d answers on disk", len(m.disk.Attempts))
	}
}

// Killed between any two events, the origin comes to the same end.
func TestRestartAtEveryStep(t *testing.T) {
	for at := 1; at < 400; at += 7 {
		m := newSim(t, 19, spec(2, true), 12)
		m.checks = true
		for i := range 3 {
			m.node(fmt.Sprintf("w%d", i), time.Duration(i)*5*time.Millisecond, 2, 1)
		}
		m.onStep = func() {
			if m.events >= at && m.epoch == 0 && m.finished.IsZero() {
				m.restart(time.Second)
			}
		}
		m.run(10 * time.Minute)
		m.done()
		if took := m.finished.Sub(m.began); took > 20*time.Second {
			t.Errorf("restarted at event %d, it took %v", at, took)
		}
	}
}

func TestCancel(t *testing.T) {
	m := newSim(t, 21, spec(1, false), 1000)
	m.checks = true
	m.node("w", 5*time.Millisecond, 4, 1)
	m.after(3*time.Second, func() { m.step(tasks.CancelJob{Detail: "by hand"}) })
	m.run(time.Minute)
	if f := m.disk.Finish; f == nil || f.State != tasks.Cancelled || f.Reason != tasks.CancelledByUser {
		t.Fatalf("finish %+v", f)
	}
	for m.queue.Len() > 0 {
		e := m.queue[0]
		if e.at.After(m.finished.Add(time.Minute)) {
			break
		}
		m.now = e.at
		pop(m)
	}
	if s := m.nodes[0].w.Status(); s.Running != 0 || s.Queued != 0 || s.Jobs != 0 {
		t.Errorf("the worker still has %+v", s)
	}
}

// When every worker fails by its own fault, the job waits and repeats what the
// last one said.
func TestWhyRepeatsWorkersFault(t *testing.T) {
	m := newSim(t, 31, spec(1, false), 4)
	m.outcome = func(*simNode, tasks.Ref) tasks.Outcome {
		return tasks.Outcome{Reason: tasks.WorkerFault, Detail: "too many open files"}
	}
	m.node("a", 5*time.Millisecond, 1, 1)
	m.node("b", 10*time.Millisecond, 1, 1)
	for range 200 { // at some instant both are kept away
		m.run(500 * time.Millisecond)
		if m.disk.Finish != nil {
			t.Fatalf("finish %+v", m.disk.Finish)
		}
		for _, w := range m.origin.Why(m.now) {
			if strings.Contains(w.Text, "worker failed: too many open files") {
				return
			}
		}
	}
	t.Errorf("why: %+v", m.origin.Why(m.now))
}

// A task that fails every worker by their own fault is not given up, but each gets
// it less and less often, also while other tasks go well; and why says so.
func TestFaultyTaskIsTriedLessOften(t *testing.T) {
	m := newSim(t, 33, spec(1, false), 400)
	plain := m.outcome
	m.outcome = func(n *simNode, ref tasks.Ref) tasks.Outcome {
		if ref.Index == 0 {
			return tasks.Outcome{Reason: tasks.WorkerFault, Detail: "disk full"}
		}
		return plain(n, ref)
	}
	m.node("a", 5*time.Millisecond, 1, 1)
	m.node("b", 10*time.Millisecond, 1, 1)
	m.run(50 * time.Second)
	if m.disk.Finish != nil || len(m.disk.Results) < 100 {
		t.Fatalf("finish %+v, %d results", m.disk.Finish, len(m.disk.Results))
	}
	if n := m.starts[tasks.Ref{}]; n < 3 || n > 14 {
		t.Errorf("it was started %d times in 50 s", n)
	}
	for range 400 {
		m.run(500 * time.Millisecond)
		for _, w := range m.origin.Why(m.now) {
			if strings.Contains(w.Text, "1 of these tasks failed by their workers' own fault") {
				return
			}
		}
	}
	t.Errorf("why: %+v", m.origin.Why(m.now))
}
