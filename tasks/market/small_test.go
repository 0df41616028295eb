package market

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

func TestNothing(t *testing.T) {
	c, err := storage.SumBytes(nil)
	if err != nil || tasks.CID(c.String()) != nothing {
		t.Errorf("no bytes have the CID %s, not %s, %v", c, nothing, err)
	}
}

// An output that many tasks of a job leave is stored once, and all of them have
// their result.
func TestEqualOutputsAreStoredOnce(t *testing.T) {
	inMesh(t, 3, nil, func(m *mesh) {
		n := m.all[0]
		for _, o := range m.all {
			o.runner.set(func(r *testRunner) {
				r.lie = func(_ tasks.Execution, out tasks.Outcome) tasks.Outcome {
					b := []byte("the same")
					out.Output, out.Inline = cidOf(b), b
					return out
				}
			})
		}
		spec, _ := lineJob(n, 200)
		id := m.submit(n, spec)
		if v := m.done(n, id); v.Record.State != tasks.Done {
			t.Fatalf("job: %+v", v.Record)
		}
		list, err := n.svc.Tasks(context.Background(), id, tasks.StageMap, 0, 1000)
		if err != nil || len(list) != 200 {
			t.Fatalf("%d tasks, %v", len(list), err)
		}
		for _, task := range list {
			if task.Result == nil || task.Result.Output != cidOf([]byte("the same")) || task.Result.Size != 8 {
				t.Fatalf("task %d: %+v", task.Ref.Index, task.Result)
			}
		}
		n.data.mu.Lock()
		defer n.data.mu.Unlock()
		if n.data.commits > 3 { // the workers' first answers may come before one is held
			t.Errorf("equal outputs were stored in %d commits", n.data.commits)
		}
	})
}

// What came in one report is stored in one commit.
func TestSmallOutputsShareACommit(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		n := m.all[0]
		for _, o := range m.all {
			o.runner.set(func(r *testRunner) { r.took = time.Millisecond })
		}
		spec, want := lineJob(n, 500)
		m.want(n, m.done(n, m.submit(n, spec)), want)
		n.data.mu.Lock()
		defer n.data.mu.Unlock()
		if n.data.commits > 100 {
			t.Errorf("500 outputs were stored in %d commits", n.data.commits)
		}
	})
}

// A worker keeps its small outputs from before it says their receipts until it
// has their verdicts, and again when a later task leaves the same.
func TestSmallOutputsAreKept(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		ctx, w, origin := context.Background(), m.all[1], m.all[0]
		w.runner.set(func(r *testRunner) { r.took = time.Hour }) // what it is leased stays in hand
		job := jobNamed(0)
		if refused, err := m.lease(origin, w, job, "t1-1"); err != nil || len(refused) > 0 {
			t.Fatal(refused, err)
		}
		b, out := w.svc.bench, []byte("made")
		to := idOf(origin.id)
		receipt := func(i uint32) tasks.Deliver {
			return tasks.Deliver{To: to, Report: tasks.Report{Job: job}, Receipts: []tasks.Receipt{
				{Job: job, Ref: tasks.Ref{Index: i}, Lease: "t1-1", Worker: idOf(w.id), Output: cidOf(out), Inline: out},
				{Job: job, Ref: tasks.Ref{Index: i + 1}, Lease: "t1-1", Worker: idOf(w.id), Output: nothing}}}
		}
		kept := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if got := w.data.works(job); len(got) != want {
				t.Errorf("%s %d outputs are kept, want %d: %v", when, len(got), want, got)
			}
		}
		letGo := func() {
			if b.letGo(tasks.ReleaseOutput{Origin: to, Job: job, Output: cidOf(out)}) {
				b.let[job] = append(b.let[job], cidOf(out))
			}
		}
		b.keep(ctx, receipt(0))
		kept("before the verdict", 1)
		letGo()
		b.letAllGo()
		kept("after it", 0)
		b.keep(ctx, receipt(2))
		kept("of a later task", 1)
		b.pins <- struct{}{} // its letting go is under way, and slow
		letGo()
		b.letAllGo()
		done := make(chan struct{})
		go func() { defer close(done); b.keep(ctx, receipt(4)) }()
		synctest.Wait()
		<-b.pins
		<-done
		kept("while an earlier one was let go of", 1)
	})
}

// Settled receipts are forgotten with the commit of others, or when their job is
// over; never is one forgotten that has no verdict.
func TestSettledReceiptsShareACommit(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		ctx, w, origin := context.Background(), m.all[1], m.all[0]
		b, to := w.svc.bench, idOf(origin.id)
		receipt := func(i uint32) tasks.Receipt {
			return tasks.Receipt{Job: jobNamed(0), Ref: tasks.Ref{Index: i}, Lease: "t1-1", Worker: idOf(w.id), Reason: tasks.ExitCode}
		}
		keep := func(rs ...tasks.Receipt) {
			b.keep(ctx, tasks.Deliver{To: to, Report: tasks.Report{Job: jobNamed(0)}, Receipts: rs})
		}
		owed := func(when string, want ...uint32) {
			t.Helper()
			list, err := w.store.OwedReceipts(ctx)
			if err != nil || len(list) != len(want) {
				t.Fatalf("%s %d receipts are owed, want %d, %v", when, len(list), len(want), err)
			}
			for i, o := range list {
				if o.Receipt.Ref.Index != want[i] {
					t.Errorf("%s receipt %d is owed, want %d", when, o.Receipt.Ref.Index, want[i])
				}
			}
		}
		verdict := func(i uint32, s tasks.VerdictStatus) {
			b.judged(to, []tasks.Verdict{{Job: jobNamed(0), Ref: tasks.Ref{Index: i}, Lease: "t1-1", Worker: idOf(w.id), Status: s}}, nil)
		}
		keep(receipt(0), receipt(1))
		owed("at first", 0, 1)
		verdict(0, tasks.Accepted)
		verdict(1, tasks.Pending)
		owed("before the next commit", 0, 1)
		keep(receipt(2))
		owed("with the next commit", 1, 2)
		for i := range uint32(settledMost) {
			k := wire.KeyOf(receipt(i + 10))
			b.mu.Lock()
			b.kept[k] = kept{origin: to}
			b.mu.Unlock()
		}
		verdict(2, tasks.Accepted)
		for i := range uint32(settledMost) {
			verdict(i+10, tasks.Accepted)
		}
		synctest.Wait() // it is written beside the bench's own work
		owed("after many", 1)
	})
}

// What all tasks of a job read is looked for once in a while, not for each; and
// again as soon as one of them fails.
func TestSharedInputsAreBroughtOnce(t *testing.T) {
	inMesh(t, 2, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		n, w := m.all[0], m.all[1]
		spec := tasks.Spec{Program: n.data.put([]byte("a program")), Tasks: 300,
			Inputs: []tasks.Input{{Name: "all", Source: n.data.put([]byte("whole"))}}}
		fetches := func() int {
			w.data.mu.Lock()
			defer w.data.mu.Unlock()
			defer func() { w.data.fetches = 0 }()
			return w.data.fetches
		}
		if v := m.done(n, m.submit(n, spec)); v.Record.State != tasks.Done {
			t.Fatalf("job: %+v", v.Record)
		}
		if got := fetches(); got > 20 {
			t.Errorf("2 roots were fetched %d times for 300 tasks", got)
		}
		work := workKey{idOf(n.id), jobNamed(0)}
		w.runner.set(func(r *testRunner) { r.took = time.Hour })
		if refused, err := m.lease(n, w, jobNamed(0), "t1-1"); err != nil || len(refused) > 0 {
			t.Fatal(refused, err)
		}
		x := tasks.Execution{Job: jobNamed(0), Program: spec.Program}
		b := w.svc.bench
		for _, step := range []struct {
			what string
			do   func()
			want int
		}{
			{"at first", func() {}, 1},
			{"soon after", func() {}, 0},
			{"after a failure", func() { b.doubt(work) }, 1},
			{"a while later", func() { time.Sleep(hereFor) }, 1},
		} {
			step.do()
			synctest.Wait()
			b.mu.Lock()
			if step.what == "at first" {
				clear(b.jobs[work].here) // the lease's own look ahead
			}
			b.mu.Unlock()
			fetches()
			if err := b.bring(context.Background(), idOf(n.id), "t1-1", x); err != nil {
				t.Fatal(err)
			}
			if got := fetches(); got != step.want {
				t.Errorf("%s: %d fetches, want %d", step.what, got, step.want)
			}
		}
	})
}
