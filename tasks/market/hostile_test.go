package market

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// lease grants worker some tasks of a job of from's, which may not exist.
func (m *mesh) lease(from, worker *node, job tasks.JobID, id tasks.LeaseID) ([]wire.RefusedLease, error) {
	b, err := wire.MarshalLease(tasks.Lease{ID: id, Job: job, Term: 1, Origin: idOf(from.id), Worker: idOf(worker.id), Program: cidOf([]byte("a program")),
		Kind: tasks.KindWasm, Needs: tasks.Resources{CPU: 1, Memory: 1 << 20, Timeout: time.Minute, Output: 1 << 20}, Tasks: 1, Duration: time.Minute,
		Assignments: []tasks.Assignment{{Task: tasks.Task{Ref: tasks.Ref{Index: 0}}}}})
	if err != nil {
		m.t.Fatal(err)
	}
	if b, err = from.svc.seal(wire.DomainLease, b); err != nil {
		m.t.Fatal(err)
	}
	return worker.svc.takeLease(context.Background(), from.id, b)
}

func jobNamed(i int) tasks.JobID {
	return tasks.JobID(strings.Repeat("a", 51) + string(rune('a'+i%26)))
}

// Leases that were refused leave nothing behind.
func TestRefusedLeasesLeaveNothing(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		w := m.all[1]
		w.svc.SetLimits(tasks.SetLimits{Slots: 1, Paused: true})
		for i := range 20 {
			refused, err := m.lease(m.all[0], w, jobNamed(i), "t1-1")
			if err != nil || len(refused) != 1 {
				t.Fatalf("a paused worker: %v, %v", refused, err)
			}
		}
		b := w.svc.bench
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.jobs) > 0 {
			t.Errorf("%d jobs are remembered", len(b.jobs))
		}
	})
}

// Verdicts of another than the origin settle nothing.
func TestVerdictsOfStrangers(t *testing.T) {
	inMesh(t, 3, nil, func(m *mesh) {
		ctx, w, origin, other := context.Background(), m.all[2], m.all[0], m.all[1]
		r := tasks.Receipt{Job: jobNamed(0), Lease: "t1-1", Worker: idOf(w.id), Reason: tasks.ExitCode}
		w.svc.bench.keep(ctx, tasks.Deliver{To: idOf(origin.id), Report: tasks.Report{Job: r.Job}, Receipts: []tasks.Receipt{r}})
		v := tasks.Verdict{Job: r.Job, Lease: r.Lease, Worker: r.Worker, Status: tasks.Rejected, Reason: tasks.LateReceipt}
		owed := func() int {
			list, err := w.store.OwedReceipts(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		for _, c := range []struct {
			from *node
			left int
		}{{other, 1}, {origin, 0}} {
			w.svc.bench.judged(idOf(c.from.id), []tasks.Verdict{v}, nil)
			w.svc.bench.settle(ctx, nil, nil, true)
			if n := owed(); n != c.left {
				t.Errorf("after the word of node %d: %d receipts are kept, want %d", c.from.i, n, c.left)
			}
		}
	})
}

// What a worker is told, but does not come to hear, is bounded.
func TestCourierIsBounded(t *testing.T) {
	c := &courier{renewed: map[tasks.JobID][]tasks.LeaseID{}}
	for i := range 2*courierVerdicts/100 + 1 {
		c.judge(make([]tasks.Verdict, 100)...)
		c.revoke(wire.Revocation{})
		c.renew(tasks.JobID(fmt.Sprint(i)), nil)
	}
	for i := range 2 * courierRevokes {
		c.revoke(wire.Revocation{})
		c.renew(tasks.JobID(fmt.Sprint(i)), []tasks.LeaseID{"l"})
	}
	if len(c.verdict) > courierVerdicts || len(c.revoked) > courierRevokes || len(c.renewed) > courierJobs {
		t.Errorf("%d verdicts, %d revocations, %d renewals wait", len(c.verdict), len(c.revoked), len(c.renewed))
	}
}

// A refusal is of one job's lease, though all jobs name theirs alike; and who says
// that it has forgotten what it is just being given has failed, as all who refuse.
func TestRefusalIsOfOneJob(t *testing.T) {
	inMesh(t, 2, func(i int, c *Config) {
		if c.NoWork = i == 1; i == 1 {
			c.Host.Handle(ordersProtocol, func(context.Context, peer.ID, []byte) ([]byte, error) {
				return wire.MarshalOrdersReply([]wire.RefusedLease{{Job: jobNamed(1), Lease: "t1-1", Reason: tasks.UnknownLease}})
			})
		}
	}, func(m *mesh) {
		n, w := m.all[0], m.all[1]
		var with []granted
		for i := range 2 {
			with = append(with, granted{lease: tasks.Lease{ID: "t1-1", Job: jobNamed(i), Worker: idOf(w.id)}, desk: &desk{inbox: newInbox[deskEvent](&pool{})}})
		}
		c := &courier{s: n.svc, to: w.id}
		c.send(context.Background(), with, nil, wire.Orders{})
		if got := with[0].desk.inbox.take(9); len(got) > 0 {
			t.Errorf("the lease that was taken: %+v", got)
		}
		got := with[1].desk.inbox.take(9)
		if len(got) != 1 {
			t.Fatalf("of the refused lease %d words came", len(got))
		}
		if f, ok := got[0].ev.(tasks.LeaseFailed); !ok || f.Lease != "t1-1" || f.Reason != tasks.WorkerFault {
			t.Errorf("the refused lease: %+v", got[0].ev)
		}
	})
}

// One submitter can't take all the room that a host has for published jobs.
func TestOneSubmitterLeavesRoom(t *testing.T) {
	inMesh(t, 3, func(i int, c *Config) { c.Light, c.MaxAdoptions = i != 0, 8 }, func(m *mesh) {
		for i := range 10 {
			spec := tasks.Spec{Name: fmt.Sprint("job", i), Program: cidOf([]byte("nowhere")), Tasks: 1}
			if _, err := m.all[1].svc.Publish(context.Background(), spec, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		n := 0
		if err := m.all[0].svc.hall.ask(context.Background(), func(h *hall) { n = len(h.adoptions) }); err != nil || n > 2 {
			t.Errorf("%d jobs of one submitter are followed, %v: want a quarter of 8", n, err)
		}
	})
}

// An answer that can't be taken is refused at once, and leaves nothing behind.
func TestAnswersThatWait(t *testing.T) {
	inMesh(t, 2, func(i int, c *Config) { c.NoHost = true }, func(m *mesh) {
		ctx, n, host := context.Background(), m.all[0], m.all[1]
		spec := tasks.Spec{Program: cidOf([]byte("nowhere")), Tasks: 1}
		id, err := n.svc.Publish(ctx, spec, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		a := tasks.JobAnswer{Job: id, Term: 1, Origin: idOf(host.id), State: tasks.Done, Output: cidOf([]byte("never there")), Size: 3}
		for range 3 {
			if err := host.svc.hall.callAnswer(ctx, idOf(n.id), a); err == nil {
				t.Error("an output that nobody has was accepted")
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("that took %v", took)
		}
		if err := n.svc.hall.ask(ctx, func(h *hall) {
			if w := h.submissions[id].waiting; len(w) > 0 {
				t.Errorf("%d calls are remembered", len(w))
			}
		}); err != nil {
			t.Error(err)
		}
	})
}
