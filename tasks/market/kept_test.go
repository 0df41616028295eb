package market

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// What a job names is kept from the moment that its ID is told, until its
// retention ends, whoever may come to run it.
func TestNamedIsKept(t *testing.T) {
	inMesh(t, 1, func(i int, c *Config) { c.Sweep = time.Second }, func(m *mesh) {
		ctx, n := context.Background(), m.all[0]
		spec, _ := lineJob(n, 3)
		kept := func(id tasks.JobID) int {
			n.data.mu.Lock()
			defer n.data.mu.Unlock()
			c := 0
			for _, root := range []tasks.CID{spec.Program, spec.Inputs[0].Source} {
				if slices.Contains(n.data.kept[id], root) {
					c++
				}
			}
			return c
		}
		spec.Reduce = &tasks.Reduce{Program: cidOf([]byte("far away"))} // so that it can't be split
		spec.Retention = time.Minute
		for what, do := range map[string]func() (tasks.JobID, error){
			"submitted": func() (tasks.JobID, error) { return n.svc.Submit(ctx, spec) },
			"published": func() (tasks.JobID, error) { return n.svc.Publish(ctx, spec, nil, nil) },
		} {
			id, err := do()
			if err != nil {
				t.Fatal(err)
			}
			if c := kept(id); c != 2 {
				t.Errorf("a %s job: %d of its 2 roots are kept", what, c)
			}
			time.Sleep(3 * time.Second)
			if err := n.svc.Cancel(ctx, id, "no more"); err != nil {
				t.Fatalf("cancel a %s job: %v", what, err)
			}
			v, err := n.svc.Job(ctx, id)
			if err != nil || v.Record.State != tasks.Cancelled || v.Record.Reason != tasks.CancelledByUser {
				t.Errorf("a %s job: %+v, %v", what, v.Record, err)
			}
			time.Sleep(2 * time.Minute)
			if c := kept(id); c != 0 {
				t.Errorf("a %s job: %d roots are kept after its retention", what, c)
			}
			if _, err := n.svc.Job(ctx, id); !errors.Is(err, ErrNoJob) {
				t.Errorf("a %s job after its retention: %v", what, err)
			}
		}
	})
}

// slowData takes long to fetch.
type slowData struct{ *memData }

func (d slowData) Cached(context.Context, tasks.CID) bool { return false }

func (d slowData) Files(ctx context.Context, _ tasks.CID) ([]tasks.File, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Cancelling does not wait for what the job waits for; it is durable when it
// returns.
func TestCancelWhileSplitting(t *testing.T) {
	inMesh(t, 1, func(i int, c *Config) { c.Data = slowData{c.Data.(*memData)} }, func(m *mesh) {
		n := m.all[0]
		spec, _ := lineJob(n, 3)
		id := m.submit(n, spec)
		time.Sleep(time.Second)
		began := time.Now()
		if err := n.svc.Cancel(context.Background(), id, "no more"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if r, err := n.store.Job(context.Background(), id); err != nil || r.State != tasks.Cancelled {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// A host that yields while it splits holds the job still: it is not over.
func TestYieldWhileSplitting(t *testing.T) {
	inMesh(t, 2, func(i int, c *Config) {
		if c.Light = i == 0; i == 1 {
			c.Data = slowData{c.Data.(*memData)}
		}
	}, func(m *mesh) {
		host := m.all[1]
		id, _ := m.publishInline(m.all[0], 3)
		time.Sleep(10 * time.Second)
		d := host.svc.desk(id)
		if d == nil {
			t.Fatal("the job was not taken up")
		}
		d.push(tasks.Superseded{Term: 2, By: idOf(m.all[0].id)})
		<-d.done
		if r, err := host.store.Job(context.Background(), id); err != nil || r.State.Over() {
			t.Errorf("%+v, %v", r, err)
		}
		if v, err := host.svc.Job(context.Background(), id); err != nil || v.Status.State.Over() || v.Status.State == tasks.Assembling {
			t.Errorf("it is shown as %+v, %v", v.Status, err)
		}
	})
}

// badNames has files that no message can name.
type badNames struct{ *memData }

func (d badNames) Files(context.Context, tasks.CID) ([]tasks.File, error) {
	return []tasks.File{{Path: "caf\xe9.txt", Size: 3}}, nil
}

// A folder with such a file fails its job, and not the node.
func TestNamesThatAreNoText(t *testing.T) {
	inMesh(t, 1, func(i int, c *Config) { c.Data = badNames{c.Data.(*memData)} }, func(m *mesh) {
		n := m.all[0]
		spec, _ := lineJob(n, 3)
		spec.Inputs[0].Split = tasks.Split{By: tasks.SplitFiles}
		v := m.done(n, m.submit(n, spec))
		if v.Record.State != tasks.Failed || !strings.Contains(v.Record.Detail, `caf\xe9.txt`) {
			t.Errorf("%+v", v.Record)
		}
	})
}

// After a restart a job that was over is shown as before: its tasks, its
// reduce, its output and who worked.
func TestOverJobAfterRestart(t *testing.T) {
	inMesh(t, 3, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		ctx, n := context.Background(), m.all[0]
		spec, _ := lineJob(n, 30)
		spec.Reduce = &tasks.Reduce{Program: spec.Program}
		id := m.submit(n, spec)
		before := m.done(n, id)
		n.halt()
		n.start()
		time.Sleep(5 * time.Second)
		after, err := n.svc.Job(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		a, b := after.Status, before.Status
		if a.State != b.State || a.Tasks != b.Tasks || a.Decided != b.Decided || a.Output != b.Output || a.Output == "" || len(a.Workers) != len(b.Workers) {
			t.Errorf("after: %+v\nbefore: %+v", a, b)
		}
		if logs, err := n.svc.Logs(ctx, id, tasks.Ref{}); err != nil || len(logs) == 0 {
			t.Errorf("logs: %v, %v", logs, err)
		}
	})
}

// A job that nobody works on says of whom work could be had.
func TestWhyNobodyWorks(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		ctx, n := context.Background(), m.all[0]
		for _, o := range m.all {
			o.svc.SetLimits(tasks.SetLimits{Slots: 1, Paused: true})
		}
		m.all[1].host.SetCapacity(p2p.Capacity{Cores: 1, Memory: 64 << 20, Rights: m.all[1].host.Capacity().Rights})
		spec, _ := lineJob(n, 3)
		spec.Resources.Memory = 128 << 20
		id := m.submit(n, spec)
		time.Sleep(5 * time.Second)
		why, err := n.svc.Why(ctx, id)
		if err != nil || len(why) == 0 || !strings.Contains(why[0].Text, "this node itself is paused") || !strings.Contains(why[0].Text, "other members connected: 1, 1 of them with less") {
			t.Errorf("%+v, %v", why, err)
		}
	})
}

// An offer of many inputs is still a small message.
func TestOffersAreSmall(t *testing.T) {
	inMesh(t, 1, nil, func(m *mesh) {
		o := tasks.Offer{Inputs: make([]tasks.CID, tasks.MaxInputs)}
		if o = m.all[0].svc.fill(o); len(o.Inputs) != offerInputs {
			t.Errorf("%d inputs are named", len(o.Inputs))
		}
	})
}

// The verdict that lets a job go is kept as it was signed: it is noted before the
// machine lets go of what it is about.
func TestLastVerdictIsKept(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		ctx, origin, w := context.Background(), m.all[0], m.all[1]
		w.halt() // its bench is stepped by hand
		b, job := w.svc.bench, jobNamed(0)
		b.step(ctx, benchEvent{ev: tasks.LeaseIn{Lease: tasks.Lease{ID: "t1-1", Job: job, Origin: idOf(origin.id), Worker: idOf(w.id), Program: cidOf([]byte("p")),
			Assignments: []tasks.Assignment{{}}, Duration: time.Minute}}})
		r := tasks.Receipt{Job: job, Lease: "t1-1", Worker: idOf(w.id), Output: nothing}
		b.step(ctx, benchEvent{ev: tasks.Ran{Origin: idOf(origin.id), Job: job, Lease: "t1-1", Outcome: tasks.Outcome{Output: nothing}}})
		b.keep(ctx, tasks.Deliver{To: idOf(origin.id), Report: tasks.Report{Job: job}, Receipts: []tasks.Receipt{r}})
		v := tasks.Verdict{Job: job, Lease: r.Lease, Worker: r.Worker, Status: tasks.Accepted}
		b.step(ctx, benchEvent{ev: tasks.VerdictsIn{Origin: idOf(origin.id), Verdicts: []tasks.Verdict{v}}, said: &wire.SaidVerdicts{Origin: idOf(origin.id), Sealed: []byte("signed")}})
		if b.machine.Holds(job, idOf(origin.id)) {
			t.Fatal("the job is held still: the test shows nothing")
		}
		b.settle(ctx, nil, nil, true)
		said, err := w.store.SaidVerdicts(ctx, job)
		if err != nil || len(said) != 1 {
			t.Errorf("%d signed verdicts are kept, %v", len(said), err)
		}
		if owed, err := w.store.OwedReceipts(ctx); err != nil || len(owed) > 0 {
			t.Errorf("%d receipts are owed, %v", len(owed), err)
		}
	})
}
