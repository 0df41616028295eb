package market

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// unreadable is a store whose jobs, or what belongs to them, can't be read for now.
type unreadable struct {
	Store
	job, records atomic.Bool
}

var errUnreadable = errors.New("the test's database can't be read")

func (u *unreadable) Job(ctx context.Context, id tasks.JobID) (wire.JobRecord, error) {
	if u.job.Load() {
		return wire.JobRecord{}, errUnreadable
	}
	return u.Store.Job(ctx, id)
}

func (u *unreadable) Records(ctx context.Context, id tasks.JobID, term uint64) (tasks.Records, error) {
	if u.records.Load() {
		return tasks.Records{}, errUnreadable
	}
	return u.Store.Records(ctx, id, term)
}

// A job that can't be read from the database when its origin starts is tried again,
// and whoever asks is told; no job is said not to exist, to people or to its workers,
// who keep what they have.
func TestUnreadableJob(t *testing.T) {
	var u unreadable
	inMesh(t, 3, func(i int, c *Config) {
		if c.NoWork = i == 0; i == 0 {
			u.Store = c.Store
			c.Store = &u
		}
	}, func(m *mesh) {
		n, ctx := m.all[0], context.Background()
		spec, want := lineJob(n, 200)
		id, other := m.submit(n, spec), m.submit(n, spec)
		time.Sleep(3 * time.Second)
		before, err := n.svc.Job(ctx, id)
		if err != nil || before.Status.Decided == 0 || before.Status.Decided >= 200 {
			t.Fatalf("before the crash: %+v, %v", before.Status, err)
		}
		n.crash()
		u.job.Store(true)
		u.records.Store(true)
		n.start()
		time.Sleep(10 * time.Minute)
		for what, err := range map[string]error{
			"job":    errOf(n.svc.Job(ctx, id)),
			"why":    errOf(n.svc.Why(ctx, id)),
			"tasks":  errOf(n.svc.Logs(ctx, "nope", tasks.Ref{})),
			"cancel": n.svc.Cancel(ctx, "nope", ""),
		} {
			if !errors.Is(err, errUnreadable) || errors.Is(err, ErrNoJob) {
				t.Errorf("%s of a job that can't be read: %v", what, err)
			}
		}
		if known, err := n.svc.file(ctx, m.all[1].id, "nope", nil); !known || err == nil {
			t.Errorf("a worker is told of a job that can't be read: known is %t, %v", known, err)
		}
		u.job.Store(false)
		time.Sleep(time.Minute)
		w, err := n.svc.Why(ctx, id)
		if err != nil || len(w) == 0 || !strings.Contains(w[0].Text, errUnreadable.Error()) || w[0].Tasks != 200 || !w[0].Next.After(time.Now()) {
			t.Errorf("why: %+v, %v", w, err)
		}
		short, stop := context.WithTimeout(ctx, time.Second)
		if err := n.svc.Cancel(short, id, ""); err == nil || !strings.Contains(err.Error(), errUnreadable.Error()) {
			t.Errorf("cancel: %v", err)
		}
		stop()
		u.records.Store(false)
		time.Sleep(time.Minute)
		if v := m.done(n, id); v.Record.State != tasks.Cancelled || v.Status.Decided < before.Status.Decided {
			t.Errorf("the job is %v with %d decided, want cancelled with %d at least", v.Record.State, v.Status.Decided, before.Status.Decided)
		}
		m.want(n, m.done(n, other), want)
	})
}

func errOf[T any](_ T, err error) error { return err }

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

// Workers that an origin had no bytes for are kept away for ever longer; when the
// bytes are here again they get work at once.
func TestInputsBack(t *testing.T) {
	inMesh(t, 3, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		n := m.all[0]
		spec, want := lineJob(n, 20)
		id := m.submit(n, spec)
		synctest.Wait() // it is cut into tasks, and nobody has fetched anything
		program, _ := n.data.get(spec.Program)
		n.data.mu.Lock()
		delete(n.data.files, spec.Program)
		n.data.mu.Unlock()
		time.Sleep(310 * time.Second)
		if v, err := n.svc.Job(context.Background(), id); err != nil || v.Status.Tasks != 20 || v.Status.Decided > 0 {
			t.Fatalf("without the program: %+v, %v", v.Status, err)
		}
		n.data.put(program)
		n.svc.InputsBack()
		from := time.Now()
		v := m.done(n, id)
		m.want(n, v, want)
		if took := time.Since(from); took > 5*time.Second {
			t.Errorf("done %v after the bytes were back", took)
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

// A worker whose limits are raised, or whose disk has room again, bids at once for
// what it heard before.
func TestLimitsRaised(t *testing.T) {
	for name, c := range map[string]struct {
		before tasks.SetLimits
		full   bool
	}{
		"memory": {before: tasks.SetLimits{Slots: 1, Memory: 1 << 20}},
		"room":   {before: tasks.SetLimits{Slots: 1, Full: true}, full: true},
	} {
		t.Run(name, func(t *testing.T) {
			var d disk
			d.full.Store(c.full)
			inMesh(t, 2, func(i int, cfg *Config) {
				if cfg.NoWork = i == 0; i == 1 {
					cfg.Limits = c.before
					d.config(cfg)
				}
			}, func(m *mesh) {
				spec, _ := lineJob(m.all[0], 8)
				m.submit(m.all[0], spec)
				time.Sleep(150 * time.Second) // offers are a minute apart by now
				w := m.all[1]
				if n := w.runner.count(); n > 0 {
					t.Fatalf("it ran %d tasks", n)
				}
				d.full.Store(false)
				w.svc.SetLimits(tasks.SetLimits{Slots: 1})
				time.Sleep(time.Second)
				if w.runner.count() == 0 {
					t.Error("it waits for the next offer")
				}
			})
		})
	}
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

// An answer that is committed to waits for a second worker's for as long as its
// origin does, however often its own worker starts meanwhile: nobody is blamed for
// having forgotten it.
func TestCommittedAnswerIsKeptWhileItsOriginWaits(t *testing.T) {
	inMesh(t, 2, nil, func(m *mesh) {
		n, late := m.all[0], m.all[1]
		late.svc.SetLimits(tasks.SetLimits{Slots: 1, Paused: true})
		spec, want := lineJob(n, 3)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		id := m.submit(n, spec)
		for range 4 {
			time.Sleep(15 * time.Minute) // longer than the origin's grace
			if owed, err := n.store.OwedReceipts(context.Background()); err != nil || len(owed) != 3 {
				t.Fatalf("%d of 3 answers are kept, %v", len(owed), err)
			}
			n.halt()
			n.start()
		}
		ran := n.runner.count()
		late.svc.SetLimits(tasks.SetLimits{Slots: 1})
		v := m.done(n, id)
		m.want(n, v, want)
		for _, p := range v.Status.Workers {
			if p.Rejected > 0 {
				t.Errorf("%s is blamed %d times", p.Worker, p.Rejected)
			}
		}
		if again := n.runner.count() - ran; again > 0 {
			t.Errorf("%d of its answers were forgotten", again)
		}
	})
}

// What nobody waits for any more goes: a while after the node's start, and at once
// when it is a day too old.
func TestOldReceiptsEnd(t *testing.T) {
	inMesh(t, 2, func(i int, c *Config) { c.NoWork = i == 0 }, func(m *mesh) {
		n, w := m.all[0], m.all[1]
		spec, _ := lineJob(n, 40)
		m.submit(n, spec)
		time.Sleep(1500 * time.Millisecond)
		n.crash()
		time.Sleep(4 * time.Second)
		owed := func() int {
			list, err := w.store.OwedReceipts(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		w.halt()
		if owed() == 0 {
			t.Fatal("no receipts were kept")
		}
		time.Sleep(time.Hour)
		w.start()
		if time.Sleep(oldGrace / 2); owed() == 0 {
			t.Error("they went though the origin may come back at any moment")
		}
		if time.Sleep(oldGrace); owed() > 0 {
			t.Errorf("%d receipts are kept for an origin that is gone", owed())
		}
	})
}
