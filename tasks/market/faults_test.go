package market

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// An origin that is killed mid-job takes it up from its store; workers deliver
// what they did meanwhile.
func TestOriginRestart(t *testing.T) {
	inMesh(t, 3, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		n := m.all[0]
		spec, want := lineJob(n, 200)
		id := m.submit(n, spec)
		time.Sleep(3 * time.Second)
		before, err := n.svc.Job(context.Background(), id)
		if err != nil || before.Status.Decided == 0 || before.Status.Decided >= 200 {
			t.Fatalf("before the crash: %+v, %v", before.Status, err)
		}
		n.crash()
		time.Sleep(2 * time.Second) // workers go on
		n.start()
		v := m.done(n, id)
		m.want(n, v, want)
		again := 0
		for _, o := range m.all {
			again += o.runner.count()
		}
		if again > 260 {
			t.Errorf("%d runs for 200 tasks: work was thrown away", again)
		}
	})
}

func TestWorkerKilled(t *testing.T) {
	inMesh(t, 4, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		n := m.all[0]
		for _, o := range m.all {
			o.runner.set(func(r *testRunner) { r.took = time.Second })
		}
		spec, want := lineJob(n, 120)
		sub := n.svc.Subscribe("")
		defer sub.Close()
		id := m.submit(n, spec)
		time.Sleep(5 * time.Second)
		dead := m.all[2]
		dead.crash()
		v := m.done(n, id)
		m.want(n, v, want)
		if v.Status.Releases == 0 {
			t.Errorf("nothing was leased again: %+v", v.Status)
		}
		lost := false
		list, err := n.svc.Tasks(context.Background(), id, tasks.StageMap, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range list {
			for _, a := range task.Attempts {
				lost = lost || a.Worker == idOf(dead.id) && a.State == tasks.AttemptLost
				if a.RTT == 0 {
					t.Fatalf("task %d: attempt without RTT: %+v", task.Ref.Index, a)
				}
			}
		}
		if !lost {
			t.Error("no attempt of the dead worker is told as lost")
		}
		kinds := map[EventKind]int{}
		for kinds[JobFinished] == 0 {
			e, err := sub.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			kinds[e.Kind]++
		}
		if kinds[TaskDecided]+kinds[EventsLost] == 0 || kinds[TaskLeased] == 0 {
			t.Errorf("events: %v", kinds)
		}
	})
}

func TestQuorumCatchesALiar(t *testing.T) {
	inMesh(t, 4, nil, func(m *mesh) {
		liar := m.all[3]
		liar.runner.set(func(r *testRunner) {
			r.lie = func(_ tasks.Execution, o tasks.Outcome) tasks.Outcome {
				o.Inline = []byte("42\n")
				o.Output = liar.data.put(o.Inline)
				return o
			}
		})
		n := m.all[0]
		spec, want := lineJob(n, 20)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		v := m.done(n, m.submit(n, spec))
		m.want(n, v, want)
		if n.svc.Tally(idOf(liar.id)).Rejected == 0 {
			t.Error("the liar's rejected receipts are not counted")
		}
	})
}

// Outputs that do not travel inline are fetched by the origin with a ticket,
// and inputs by workers.
func TestOutputsByTicket(t *testing.T) {
	inMesh(t, 3, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		for _, o := range m.all {
			o.runner.set(func(r *testRunner) { r.big = true })
		}
		n := m.all[0]
		spec, want := lineJob(n, 30)
		id := m.submit(n, spec)
		v := m.done(n, id)
		m.want(n, v, want)
		w := m.all[1]
		if w.data.fetched != 2 {
			t.Errorf("worker fetched %d times, want its program and its input once", w.data.fetched)
		}
		w.data.mu.Lock()
		ticket := w.data.tickets[0]
		w.data.mu.Unlock()
		// The same ticket from another peer, for another root, or after the job.
		ctx := context.Background()
		secret := n.data.put([]byte("not of the job"))
		for name, err := range map[string]error{
			"another peer": n.svc.CheckTicket(ctx, m.all[2].id, spec.Program, ticket),
			"another root": n.svc.CheckTicket(ctx, w.id, secret, ticket),
			"over":         n.svc.CheckTicket(ctx, w.id, spec.Program, ticket),
			"no ticket":    n.svc.CheckTicket(ctx, w.id, spec.Program, nil),
			"garbage":      n.svc.CheckTicket(ctx, w.id, spec.Program, []byte("garbage")),
		} {
			if !errors.Is(err, ErrTicket) {
				t.Errorf("%s: %v, want ErrTicket", name, err)
			}
		}
	})
}

func TestReduceAndRetention(t *testing.T) {
	inMesh(t, 3, nil, func(m *mesh) {
		n := m.all[0]
		spec, want := lineJob(n, 12)
		spec.Reduce = &tasks.Reduce{Program: n.data.put([]byte("a second program"))}
		spec.Retention = time.Hour
		id := m.submit(n, spec)
		v := m.done(n, id)
		m.want(n, v, want)
		n.data.mu.Lock()
		kept := len(n.data.kept[id])
		n.data.mu.Unlock()
		if kept == 0 {
			t.Error("nothing is kept for a job within its retention")
		}
		time.Sleep(62 * time.Minute)
		if _, err := n.svc.Job(context.Background(), id); !errors.Is(err, ErrNoJob) {
			t.Errorf("after its retention the job is still here: %v", err)
		}
		if n.data.kept[id] != nil {
			t.Error("its data is still kept")
		}
	})
}

func TestCancel(t *testing.T) {
	inMesh(t, 3, nil, func(m *mesh) {
		n := m.all[0]
		for _, o := range m.all {
			o.runner.set(func(r *testRunner) { r.took = 50 * time.Second })
		}
		spec, _ := lineJob(n, 30)
		id := m.submit(n, spec)
		time.Sleep(5 * time.Second)
		if err := n.svc.Cancel(context.Background(), id, "enough"); err != nil {
			t.Fatal(err)
		}
		v := m.done(n, id)
		if v.Record.State != tasks.Cancelled {
			t.Fatalf("state %d, want cancelled", v.Record.State)
		}
		time.Sleep(5 * time.Second)
		for _, o := range m.all {
			if w, _ := o.svc.Work(); w.Running > 0 {
				t.Errorf("node %d still runs %d tasks of a cancelled job", o.i, w.Running)
			}
		}
		if err := n.svc.Cancel(context.Background(), "nope", ""); !errors.Is(err, ErrNoJob) {
			t.Errorf("cancel of an unknown job: %v", err)
		}
		// A job whose input is nowhere waits, says so, and can be cancelled.
		spec.Inputs[0].Source = cidOf([]byte("nowhere"))
		id = m.submit(n, spec)
		time.Sleep(5 * time.Second)
		why, err := n.svc.Why(context.Background(), id)
		if err != nil || len(why) != 1 || !strings.Contains(why[0].Text, "fetch") || why[0].Next.IsZero() {
			t.Errorf("why: %v, %v", why, err)
		}
		if err := n.svc.Cancel(context.Background(), id, ""); err != nil {
			t.Fatal(err)
		}
		if v := m.done(n, id); v.Record.State != tasks.Cancelled {
			t.Errorf("state %d, want cancelled", v.Record.State)
		}
	})
}

func TestBusyAndPaused(t *testing.T) {
	inMesh(t, 2, func(i int, c *Config) { c.MaxJobs = 1; c.NoWork = i == 0 }, func(m *mesh) {
		n, w := m.all[0], m.all[1]
		w.svc.SetLimits(tasks.SetLimits{Slots: 2, Paused: true})
		spec, want := lineJob(n, 6)
		id := m.submit(n, spec)
		time.Sleep(10 * time.Second)
		var busy *BusyError
		if _, err := n.svc.Submit(context.Background(), spec); !errors.As(err, &busy) || busy.RetryAfter == 0 {
			t.Errorf("second job: %v, want a BusyError with a time", err)
		}
		if c := w.runner.count(); c > 0 {
			t.Errorf("a paused node ran %d tasks", c)
		}
		if why, err := n.svc.Why(context.Background(), id); err != nil || len(why) == 0 {
			t.Errorf("why: %v, %v", why, err)
		}
		offer := n.svc.fill(tasks.Offer{Job: id, Term: 1, Origin: idOf(n.id), Kind: tasks.KindWasm, Program: spec.Program, Needs: spec.WithDefaults().Resources, Waiting: 1, Replicas: 1, Radius: time.Second, Window: time.Second})
		req, err := wire.MarshalOffer(offer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.host.Call(context.Background(), w.id, probeProtocol, req)
		if reason, _ := reasonOf(err); reason != tasks.WorkerPaused {
			t.Errorf("probe of a paused node: %v", err)
		}
		w.svc.SetLimits(tasks.SetLimits{Slots: 2})
		m.want(n, m.done(n, id), want)
	})
}

// What peers may not do is refused at the handlers' edge.
func TestRefusedAtTheEdge(t *testing.T) {
	inMesh(t, 3, nil, func(m *mesh) {
		n, w := m.all[0], m.all[1]
		guest := m.add(9, auth.Submit) // may not work
		mute := m.add(10, auth.Work)   // may not submit
		time.Sleep(5 * time.Second)
		for _, o := range m.all {
			o.runner.set(func(r *testRunner) { r.took = 20 * time.Second })
		}
		spec, _ := lineJob(n, 8)
		id := m.submit(n, spec)
		time.Sleep(2 * time.Second)
		ctx := context.Background()
		call := func(from *node, p p2p.Protocol, to *node, req []byte) error {
			_, err := from.host.Call(ctx, to.id, p, req)
			return err
		}
		must := func(b []byte, err error) []byte {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		refused := func(what string, err error, codes ...p2p.Code) {
			t.Helper()
			for _, c := range codes {
				if p2p.RefusalCode(err) == c {
					return
				}
			}
			t.Errorf("%s: %v, want a refusal of %v", what, err, codes)
		}

		bid := func(worker *node) []byte {
			return must(wire.MarshalBid(tasks.Bid{Job: id, Worker: idOf(worker.id), Slots: 1}))
		}
		refused("bid without the right to work", call(guest, bidProtocol, n, bid(guest)), p2p.CodeRights)
		refused("bid in another's name", call(w, bidProtocol, n, bid(m.all[2])), p2p.CodeMalformed)
		refused("bid of garbage", call(w, bidProtocol, n, []byte("garbage")), p2p.CodeMalformed)

		lease := tasks.Lease{ID: "stolen", Job: id, Term: 1, Origin: idOf(n.id), Worker: idOf(w.id), Program: spec.Program, Kind: tasks.KindWasm, Tasks: 1,
			Needs: spec.WithDefaults().Resources, Assignments: []tasks.Assignment{{Task: tasks.Task{}}}, Duration: time.Minute}
		orders := func(signer *node) []byte {
			sealed := must(signer.host.Seal(wire.DomainLease, must(wire.MarshalLease(lease))))
			return must(wire.MarshalOrders(wire.Orders{Leases: [][]byte{sealed}}))
		}
		refused("lease from who may not submit", call(mute, ordersProtocol, w, orders(mute)), p2p.CodeRights)
		refused("lease in another origin's name", call(m.all[2], ordersProtocol, w, orders(m.all[2])), codeBase+p2p.Code(tasks.UnknownLease))
		refused("another's signed lease, sent again by a third", call(m.all[2], ordersProtocol, w, orders(n)), codeBase+p2p.Code(tasks.BadReceipt))

		receipt := tasks.Receipt{Job: id, Lease: "stolen", Worker: idOf(w.id), Output: cidOf([]byte("forged")), Inline: []byte("forged")}
		report := func(signer *node, domain, mesh string) []byte {
			sealed := must(signer.host.Seal(domain, must(wire.MarshalReceipts(mesh, []tasks.Receipt{receipt}))))
			return must(wire.MarshalReport(wire.WorkReport{Receipts: sealed}))
		}
		mesh := n.svc.mesh
		refused("receipt in another's name", call(m.all[2], reportProtocol, n, report(m.all[2], wire.DomainReceipts, mesh)), codeBase+p2p.Code(tasks.BadReceipt))
		refused("another's receipt, sent again by a third", call(m.all[2], reportProtocol, n, report(w, wire.DomainReceipts, mesh)), codeBase+p2p.Code(tasks.BadReceipt))
		refused("receipt of another domain", call(w, reportProtocol, n, report(w, wire.DomainVerdicts, mesh)), p2p.CodeMalformed)
		refused("receipt of another mesh", call(w, reportProtocol, n, report(w, wire.DomainReceipts, "other")), p2p.CodeOtherMesh)
		big := bytes.Repeat([]byte{8}, reportProtocol.MaxMessage+1)
		if err := call(w, reportProtocol, n, big); err == nil {
			t.Error("an oversize report was taken")
		}

		// A receipt for a lease that was never granted is judged, not believed.
		if err := call(w, reportProtocol, n, report(w, wire.DomainReceipts, mesh)); err != nil {
			t.Errorf("well-formed receipt: %v", err)
		}
		time.Sleep(5 * time.Second)
		if v, err := n.svc.Job(ctx, id); err != nil || v.Status.Decided > 0 {
			t.Errorf("a forged receipt decided a task: %+v, %v", v.Status, err)
		}
		if _, err := mute.svc.Submit(ctx, spec); p2p.RefusalCode(err) != p2p.CodeRights {
			t.Errorf("submit without the right: %v", err)
		}
	})
}

// A worker that is stopped with receipts that its origin never judged delivers
// them when both are back.
func TestOldReceiptsDelivered(t *testing.T) {
	inMesh(t, 2, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		n, w := m.all[0], m.all[1]
		spec, want := lineJob(n, 40)
		id := m.submit(n, spec)
		time.Sleep(1500 * time.Millisecond)
		n.crash()
		time.Sleep(4 * time.Second)
		w.halt()
		owed, err := w.store.OwedReceipts(context.Background())
		if err != nil || len(owed) == 0 {
			t.Fatalf("no receipts were kept: %v", err)
		}
		ran := w.runner.count()
		n.start()
		time.Sleep(time.Second)
		w.start()
		m.want(n, m.done(n, id), want)
		time.Sleep(2 * time.Minute)
		if owed, err := w.store.OwedReceipts(context.Background()); err != nil || len(owed) > 0 {
			t.Errorf("%d receipts have no verdict yet, %v", len(owed), err)
		}
		if again := w.runner.count() - ran; again > 40-len(owed) {
			t.Errorf("%d of 40 tasks ran again although %d receipts were kept", again, len(owed))
		}
	})
}
