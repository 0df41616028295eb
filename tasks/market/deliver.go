package market

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// receiptsBytes is about how much one signature of receipts covers.
const receiptsBytes = 1 << 20

// deliver keeps the receipts, then reports to their origin.
func (b *bench) deliver(ctx context.Context, f tasks.Deliver) {
	err := b.keep(ctx, f)
	if err == nil {
		err = b.report(ctx, f.To, []tasks.Report{f.Report}, f.Receipts)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		reason, after := reasonOf(err)
		if reason == tasks.WorkerFault {
			reason = tasks.OK // it could not be reached
		}
		b.s.log.Debug("report not delivered", "job", f.Report.Job, "peer", f.To, "receipts", len(f.Receipts), "err", err)
		b.push(tasks.DeliverFailed{Origin: f.To, Job: f.Report.Job, Reason: reason, RetryAfter: after})
		return
	}
	b.push(tasks.Delivered{Origin: f.To, Job: f.Report.Job})
}

// keep makes receipts durable before anyone hears of them.
func (b *bench) keep(ctx context.Context, f tasks.Deliver) error {
	var fresh []wire.OwedReceipt
	b.mu.Lock()
	grace := 10 * time.Minute
	if j := b.jobs[f.Report.Job]; j != nil {
		grace = j.grace
	}
	for _, r := range f.Receipts {
		if !b.kept[wire.KeyOf(r)] {
			fresh = append(fresh, wire.OwedReceipt{Origin: f.To, Receipt: r, Until: b.wall().Add(grace)})
		}
	}
	b.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	if err := b.s.durably(ctx, func(ctx context.Context) error { return b.s.cfg.Store.KeepReceipts(ctx, fresh) }); err != nil {
		return err
	}
	b.mu.Lock()
	for _, r := range fresh {
		b.kept[wire.KeyOf(r.Receipt)] = true
	}
	b.mu.Unlock()
	return nil
}

// report sends heartbeats and receipts, in as many messages as they need. It
// fails with StaleTerm when the origin does not hold the job.
func (b *bench) report(ctx context.Context, to tasks.PeerID, reports []tasks.Report, receipts []tasks.Receipt) error {
	id, err := peerOf(to)
	if err != nil {
		return err
	}
	var unknown []tasks.JobID
	for first := true; first || len(receipts) > 0; first = false {
		n, size := 0, 0
		for n < len(receipts) && n < wire.MaxBatch && (n == 0 || size < receiptsBytes) {
			size += len(receipts[n].Inline) + len(receipts[n].Log) + 512
			n++
		}
		r := wire.WorkReport{}
		if n == len(receipts) { // what it wants comes last, when the origin knows what it has done
			r.Jobs = reports
		}
		if n > 0 {
			batch, err := wire.MarshalReceipts(b.s.mesh, receipts[:n])
			if err != nil {
				return err
			}
			if r.Receipts, err = b.s.seal(wire.DomainReceipts, batch); err != nil {
				return err
			}
		}
		receipts = receipts[n:]
		got, err := b.sendReport(ctx, id, r)
		if err != nil {
			return err
		}
		unknown = append(unknown, got...)
	}
	if len(unknown) > 0 {
		return refuse(tasks.StaleTerm, 0, "no such job in hand")
	}
	return nil
}

func (b *bench) sendReport(ctx context.Context, to peer.ID, r wire.WorkReport) ([]tasks.JobID, error) {
	req, err := wire.MarshalReport(r)
	if err != nil {
		return nil, err
	}
	var resp []byte
	if to == b.s.host.ID() {
		resp, err = b.s.serveReport(ctx, to, req)
	} else {
		b.s.metrics.sent("report")
		resp, err = b.s.host.Call(ctx, to, reportProtocol, req)
	}
	if err != nil {
		return nil, err
	}
	return wire.UnmarshalTaken(resp)
}

// judged takes verdicts: those that end a receipt let it go.
func (b *bench) judged(ctx context.Context, origin tasks.PeerID, vs []tasks.Verdict) {
	var gone []wire.ReceiptKey
	b.mu.Lock()
	for _, v := range vs {
		if k := wire.VerdictKey(v); v.Status != tasks.Pending && b.kept[k] {
			gone = append(gone, k)
			delete(b.kept, k)
		}
	}
	var old []tasks.Receipt
	for _, k := range gone {
		for i, o := range b.owed {
			if wire.KeyOf(o.Receipt) == k && o.Origin == origin {
				b.owed = append(b.owed[:i:i], b.owed[i+1:]...)
				old = append(old, o.Receipt)
				break
			}
		}
	}
	b.mu.Unlock()
	for _, r := range old {
		if r.Output != "" {
			b.release(ctx, r.Job, r.Output)
		}
	}
	b.settle(ctx, gone)
}

func (b *bench) settle(ctx context.Context, keys []wire.ReceiptKey) {
	if len(keys) == 0 {
		return
	}
	if err := b.s.durably(ctx, func(ctx context.Context) error { return b.s.cfg.Store.SettleReceipts(ctx, keys) }); err != nil && ctx.Err() == nil {
		b.s.log.Warn("receipts not settled", "err", err)
	}
}

// restore reads the receipts that the last run of this node left.
func (b *bench) restore(ctx context.Context) error {
	owed, err := b.s.cfg.Store.OwedReceipts(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owed = owed
	for _, o := range owed {
		b.kept[wire.KeyOf(o.Receipt)] = true
	}
	return nil
}

// settleOld delivers what the last run left, until each has its verdict or its
// time is over.
func (b *bench) settleOld(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		byOrigin := map[tasks.PeerID][]tasks.Receipt{}
		var over []wire.ReceiptKey
		b.mu.Lock()
		now, still := b.wall(), b.owed[:0:0]
		for _, o := range b.owed {
			if now.After(o.Until) {
				over = append(over, wire.KeyOf(o.Receipt))
				delete(b.kept, wire.KeyOf(o.Receipt))
				continue
			}
			still = append(still, o)
			byOrigin[o.Origin] = append(byOrigin[o.Origin], o.Receipt)
		}
		b.owed = still
		b.mu.Unlock()
		b.settle(ctx, over)
		if len(byOrigin) == 0 {
			return
		}
		for to, rs := range byOrigin {
			err := b.report(ctx, to, nil, rs)
			if err == nil || ctx.Err() != nil {
				continue
			}
			b.s.log.Debug("old receipts not delivered", "peer", to, "receipts", len(rs), "err", err)
			if reason, _ := reasonOf(err); reason == tasks.StaleTerm {
				b.judged(ctx, to, lateFor(rs))
			}
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// lateFor makes the verdicts that an origin without the job would give.
func lateFor(rs []tasks.Receipt) []tasks.Verdict {
	vs := make([]tasks.Verdict, len(rs))
	for i, r := range rs {
		vs[i] = tasks.Verdict{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker, Status: tasks.Rejected, Reason: tasks.LateReceipt}
	}
	return vs
}
