package market

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// Receipts that come to an origin after it has yielded its job to a successor are
// refused by number; heartbeats hear that it holds no such job.
func TestReceiptsAfterYield(t *testing.T) {
	var heard chan tasks.Verdict
	inMesh(t, 2, func(i int, c *Config) {
		if i == 0 {
			return
		}
		heard = make(chan tasks.Verdict, 8)
		c.NoWork, c.NoHost = true, true
		c.Host.Handle(ordersProtocol, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
			o, err := wire.UnmarshalOrders(req)
			if err != nil {
				return nil, err
			}
			for _, sealed := range o.Verdicts {
				_, payload, err := p2p.OpenSealed(wire.DomainVerdicts, wire.MaxVerdicts+envelope, sealed)
				if err != nil {
					return nil, err
				}
				_, vs, err := wire.UnmarshalVerdicts(payload)
				if err != nil {
					return nil, err
				}
				for _, v := range vs {
					heard <- v
				}
			}
			return wire.MarshalOrdersReply(nil)
		})
	}, func(m *mesh) {
		ctx, origin, w := context.Background(), m.all[0], m.all[1]
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		id, sealed, sub, err := w.svc.sign(tasks.Spec{Program: cidOf([]byte("nowhere")), Tasks: 1}, nil, nil)
		must(err)
		rec := record(id, sealed, sub, idOf(w.id), time.Now())
		rec.Published = true
		_, err = origin.store.AddJob(ctx, rec)
		must(err)
		must(origin.store.Apply(ctx, wire.Change{Job: id, Term: 1}))
		must(origin.store.Apply(ctx, wire.Change{Job: id, Yielded: 2}))

		report := func(r wire.WorkReport) (unknown []tasks.JobID) {
			req, err := wire.MarshalReport(r)
			must(err)
			resp, err := w.svc.host.Call(ctx, origin.id, reportProtocol, req)
			must(err)
			unknown, err = wire.UnmarshalTaken(resp)
			must(err)
			return unknown
		}
		batch, err := wire.MarshalReceipts(w.svc.mesh, []tasks.Receipt{{Job: id, Lease: "t1-1", Worker: idOf(w.id), Output: cidOf([]byte("out")), Runner: "test"}})
		must(err)
		batch, err = w.svc.seal(wire.DomainReceipts, batch)
		must(err)
		if unknown := report(wire.WorkReport{Receipts: batch}); len(unknown) > 0 {
			t.Errorf("the receipt got no verdict: unknown %v", unknown)
		}
		select {
		case v := <-heard:
			if v.Status != tasks.Rejected || v.Reason != tasks.StaleTerm || v.Lease != "t1-1" {
				t.Errorf("%+v, want it rejected with %d", v, tasks.StaleTerm)
			}
		case <-time.After(time.Minute):
			t.Error("no verdict came")
		}
		if unknown := report(wire.WorkReport{Jobs: []tasks.Report{{Job: id, Worker: idOf(w.id), Held: []tasks.LeaseID{"t1-1"}, Slots: 1}}}); len(unknown) != 1 {
			t.Errorf("a heartbeat was taken for a job that is held elsewhere")
		}
	})
}
