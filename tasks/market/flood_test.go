package market

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// Bytes that wait are bounded over all inboxes of a node, a quarter for one peer;
// what is taken or closed gives them back.
func TestInboxesShareBytes(t *testing.T) {
	p := &pool{}
	a, b := newInbox[int](p), newInbox[int](p)
	const most, part = 1000, poolBytes / 16
	n := 0
	for a.offer(most, "one", part, 0) {
		n++
	}
	for b.offer(most, "one", part, 0) {
		n++
	}
	if n != 4 {
		t.Errorf("one peer left %d sixteenths of all, want 4", n)
	}
	if !b.room(most, "two", part) || !b.offer(most, "two", part, 0, 0, 0) {
		t.Error("another peer was refused")
	}
	for i := range 20 {
		b.offer(most, tasks.PeerID(fmt.Sprint(i)), part, 0)
	}
	if p.sum > poolBytes {
		t.Errorf("%d bytes wait", p.sum)
	}
	a.take(most)
	if !b.offer(most, "one", part, 0) {
		t.Error("what was taken gave nothing back")
	}
	b.close()
	if b.offer(most, "one", part, 0) || len(b.take(most)) > 0 {
		t.Error("a closed inbox takes something")
	}
	if b.push(1); len(b.take(most)) > 0 || p.sum != 0 || len(p.of) != 0 {
		t.Errorf("%d bytes of %d peers are counted for nothing", p.sum, len(p.of))
	}
}

// Whoever sends orders waits until they are looked at: also one that gives up at
// once, and one whose message is refused half-way.
func TestOrdersWaitForTheBench(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		origin, w := m.all[0], m.all[1]
		busy := make(chan []tasks.WorkerEffect)
		w.svc.bench.inbox.push(benchEvent{ev: tasks.WorkerTick{}, answer: busy})
		gone, leave := context.WithCancel(context.Background())
		leave()
		var ended atomic.Int32
		for _, c := range []struct {
			ctx context.Context
			o   wire.Orders
		}{
			{gone, wire.Orders{Revokes: []wire.Revocation{{Job: jobNamed(0), Lease: "t1-1"}}}},
			{gone, wire.Orders{Renewals: []wire.Renewal{{Job: jobNamed(0), Leases: []tasks.LeaseID{"t1-1"}}}}},
			{context.Background(), wire.Orders{Revokes: []wire.Revocation{{Job: jobNamed(0), Lease: "t1-1"}}, Verdicts: [][]byte{[]byte("garbage")}}},
		} {
			req, err := wire.MarshalOrders(c.o)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = w.svc.serveOrders(c.ctx, origin.id, req)
				ended.Add(1)
			}()
		}
		synctest.Wait()
		if n := ended.Load(); n > 0 {
			t.Errorf("%d of 3 need not wait for the worker", n)
		}
		<-busy
		synctest.Wait()
		if n := ended.Load(); n != 3 {
			t.Errorf("%d of 3 ended", n)
		}
	})
}

// Notices of jobs that nobody published do not displace others'.
func TestEarlyNoticesAreShared(t *testing.T) {
	now := time.Now()
	h := &hall{s: &Service{cfg: Config{MaxAdoptions: 40}}}
	say := func(from tasks.PeerID, job string) {
		h.hearEarly(early{from, tasks.Notice{From: from, Job: tasks.JobID(job), Term: 1}, now})
	}
	for i := range 100 {
		say("flood", fmt.Sprint("a", i))
	}
	if len(h.early) != 10 {
		t.Errorf("%d notices of one signer are kept, want a quarter of 40", len(h.early))
	}
	say("honest", "h")
	for i := range 100 {
		say("flood", fmt.Sprint("b", i))
	}
	say("honest", "h")
	if got := h.forgetEarly("h"); len(got) != 1 || got[0].from != "honest" {
		t.Errorf("of the honest notice is left %v", got)
	}
	for i := range 1000 {
		say(tasks.PeerID(fmt.Sprint("flood", i)), "j")
	}
	if len(h.early) != 40 {
		t.Errorf("%d notices are kept in all", len(h.early))
	}
	now = now.Add(earlyLife + 1)
	if say("honest", "h"); len(h.early) != 1 {
		t.Errorf("%d notices are kept for longer than they are worth", len(h.early)-1)
	}
}

// Leases for a worker that does not read them are bounded, and those that do not
// fit have failed, with a reason.
func TestCouriersLeasesAreBounded(t *testing.T) {
	d := &desk{inbox: newInbox[deskEvent](&pool{})}
	c := &courier{}
	lease := func(spans int) granted {
		return granted{lease: tasks.Lease{ID: "l", Worker: "w", Assignments: []tasks.Assignment{{Task: tasks.Task{Stdin: make([]tasks.Span, spans)}}}}, desk: d}
	}
	for range 2 * courierLeases {
		c.grant(lease(1))
	}
	failed := d.inbox.take(10 * courierLeases)
	if len(c.leases) != courierLeases || len(failed) != courierLeases {
		t.Errorf("%d leases wait, %d have failed", len(c.leases), len(failed))
	}
	if f, ok := failed[0].ev.(tasks.LeaseFailed); !ok || f.Reason != tasks.WorkerBusy || f.RetryAfter == 0 {
		t.Errorf("%+v", failed[0].ev)
	}
	c = &courier{s: &Service{}, renewed: map[tasks.JobID][]tasks.LeaseID{}}
	for range courierLeases {
		c.grant(lease(1 << 15))
	}
	if n := len(c.leases); n == 0 || n > courierBytes/(128<<15) {
		t.Errorf("%d leases of 4 MiB wait", n)
	}
	for len(c.leases) > 0 {
		c.load()
	}
	if c.bytes != 0 {
		t.Errorf("%d bytes are counted for nothing", c.bytes)
	}
}

// Published jobs of one submitter take their part of what a host works on at once:
// it works for others, and takes what is handed to it. The rest waits, and says
// for what.
func TestAdoptedJobsLeaveRoom(t *testing.T) {
	inMesh(t, 3, func(i int, c *Config) {
		c.NoHost, c.MaxJobs, c.MaxAdoptions = i != 0, 8, 64
	}, func(m *mesh) {
		ctx, host := context.Background(), m.all[0]
		for _, n := range m.all {
			n.runner.set(func(r *testRunner) { r.took = time.Minute })
		}
		var flood []tasks.JobID
		for range 12 {
			id, _ := m.publishInline(m.all[1], 2)
			flood = append(flood, id)
		}
		time.Sleep(10 * time.Second)
		in := func() (n int) {
			host.svc.mu.Lock()
			defer host.svc.mu.Unlock()
			return len(host.svc.desks)
		}
		if n := in(); n != 1 {
			t.Errorf("%d jobs of one submitter are in hand, want an eighth of 8", n)
		}
		waits := ""
		for _, id := range flood {
			v, err := host.svc.Job(ctx, id)
			if err == nil && len(v.Why) > 0 && strings.Contains(v.Why[0].Text, "of this submitter") {
				waits = v.Why[0].Text
			}
		}
		if !strings.Contains(waits, "works on 1 published jobs of this submitter") || !strings.Contains(waits, "304") {
			t.Errorf("why: %q", waits)
		}
		other, want := m.publishInline(m.all[2], 2)
		spec, out := lineJob(host, 2)
		own := m.submit(host, spec)
		m.wantAnswer(m.all[2], m.answered(m.all[2], other), want)
		m.want(host, m.done(host, own), out)
		var last tasks.JobID
		for _, id := range flood {
			if host.svc.putOffFor(id) != "" {
				last = id
			}
		}
		if last == "" {
			t.Fatal("none waits: the test shows nothing")
		}
		if err := host.svc.Cancel(ctx, last, "no more"); err != nil {
			t.Errorf("cancel of one that waits: %v", err)
		}
		for _, id := range flood { // all have their turn
			if a := m.answered(m.all[1], id); a == nil || a.State != tasks.Done && id != last {
				t.Errorf("job %s: %+v", id, a)
			}
		}
		if host.svc.mu.Lock(); len(host.svc.adopted) > 0 {
			t.Errorf("%d jobs wait still", len(host.svc.adopted))
		}
		host.svc.mu.Unlock()
	})
}

// What peers' receipts came to is forgotten in time, on disk and in memory.
func TestTalliesAreTrimmed(t *testing.T) {
	var later atomic.Int64
	inMesh(t, 1, func(_ int, c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}, func(m *mesh) {
		ctx, n := context.Background(), m.all[0]
		at := time.Now()
		for i := range 3 {
			c := wire.Change{Job: "j", At: at.Add(time.Duration(i) * 24 * time.Hour), Tallies: map[tasks.PeerID]wire.Tally{tasks.PeerID(fmt.Sprint("p", i)): {Accepted: 1}}}
			if err := n.store.Apply(ctx, c); err != nil {
				t.Fatal(err)
			}
			n.svc.count(c.Tallies)
		}
		gone, err := n.store.TrimTallies(ctx, at.Add(-time.Hour), 2)
		if err != nil || len(gone) != 1 || gone[0] != "p0" {
			t.Errorf("of three, two may stay: forgot %v, %v", gone, err)
		}
		later.Store(int64(tallyKept + 26*time.Hour))
		if err := n.svc.sweepOnce(ctx); err != nil {
			t.Fatal(err)
		}
		left, err := n.store.Tallies(ctx)
		n.svc.mu.Lock()
		defer n.svc.mu.Unlock()
		if err != nil || len(left) != 1 || left["p2"].Accepted != 1 || len(n.svc.tallies) != 2 { // p0 was forgotten behind its back
			t.Errorf("on disk %v, in memory %v, %v", left, n.svc.tallies, err)
		}
	})
}
