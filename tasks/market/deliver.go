package market

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// receiptsBytes is about how much one signature of receipts covers.
const receiptsBytes = 1 << 20

// deliver keeps the receipts, then reports to their origin.
func (b *bench) deliver(ctx context.Context, f tasks.Deliver) {
	b.keep(ctx, f)
	unknown, err := b.report(ctx, f.To, []tasks.Report{f.Report}, f.Receipts)
	if ctx.Err() != nil {
		return
	}
	if err == nil && len(unknown) > 0 {
		err = refuse(tasks.StaleTerm, 0, "no such job in hand")
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

// keep makes receipts durable before anyone hears of them. Where that fails, as
// on a full disk, they are delivered all the same: an origin leases again what a
// worker forgot.
func (b *bench) keep(ctx context.Context, f tasks.Deliver) {
	var fresh []wire.OwedReceipt
	b.mu.Lock()
	grace := 10 * time.Minute
	if j := b.jobs[workKey{f.To, f.Report.Job}]; j != nil {
		grace = j.grace
	}
	for _, r := range f.Receipts {
		if b.kept[wire.KeyOf(r)] != f.To {
			fresh = append(fresh, wire.OwedReceipt{Origin: f.To, Receipt: r, Until: b.wall().Add(grace)})
		}
	}
	b.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	if err := b.s.cfg.Store.KeepReceipts(ctx, fresh); err != nil {
		if ctx.Err() == nil {
			b.s.log.Warn("receipts not kept", "job", f.Report.Job, "receipts", len(fresh), "err", err)
		}
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range fresh {
		b.kept[wire.KeyOf(r.Receipt)] = f.To
	}
}

// report sends heartbeats and receipts, in as many messages as they need, and
// gives the jobs among them that the origin does not hold.
func (b *bench) report(ctx context.Context, to tasks.PeerID, reports []tasks.Report, receipts []tasks.Receipt) (unknown []tasks.JobID, err error) {
	id, err := peerOf(to)
	if err != nil {
		return nil, err
	}
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
				return unknown, err
			}
			if r.Receipts, err = b.s.seal(wire.DomainReceipts, batch); err != nil {
				return unknown, err
			}
		}
		receipts = receipts[n:]
		got, err := b.sendReport(ctx, id, r)
		if err != nil {
			return unknown, err
		}
		unknown = append(unknown, got...)
	}
	return unknown, nil
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
		if k := wire.VerdictKey(v); v.Status != tasks.Pending && b.kept[k] == origin {
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
	if err := b.s.cfg.Store.SettleReceipts(ctx, keys); err != nil && ctx.Err() == nil { // they are settled after the next start
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
		b.kept[wire.KeyOf(o.Receipt)] = o.Origin
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
			unknown, err := b.report(ctx, to, nil, rs)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				b.s.log.Debug("old receipts not delivered", "peer", to, "receipts", len(rs), "err", err)
			}
			b.judged(ctx, to, lateFor(rs, unknown))
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// lateFor makes the verdicts that an origin would give on receipts of jobs that
// it does not hold.
func lateFor(rs []tasks.Receipt, unknown []tasks.JobID) (vs []tasks.Verdict) {
	for _, r := range rs {
		if slices.Contains(unknown, r.Job) {
			vs = append(vs, tasks.Verdict{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker, Status: tasks.Rejected, Reason: tasks.LateReceipt})
		}
	}
	return vs
}
