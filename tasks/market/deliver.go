package market

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// receiptsBytes is about how much one signature of receipts covers.
const receiptsBytes = 1 << 20

// work is what one delivery says to an origin.
type work struct {
	reports  []tasks.Report
	commits  []tasks.Commitment
	reveals  []wire.Reveal
	receipts []tasks.Receipt
}

// deliver keeps the receipts, then reports to their origin.
func (b *bench) deliver(ctx context.Context, f tasks.Deliver) {
	say := work{reports: []tasks.Report{f.Report}, receipts: f.Receipts}
	ok := b.keep(ctx, f)
	if ok {
		say.commits = b.commitments(f.Commits)
	}
	say.reveals = b.reveals(f.Reveals)
	unknown, err := b.report(ctx, f.To, say)
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
		b.s.log.Debug("report not delivered", "job", f.Report.Job, "peer", f.To, "receipts", len(f.Receipts)+len(f.Commits)+len(f.Reveals), "err", err)
		b.push(tasks.DeliverFailed{Origin: f.To, Job: f.Report.Job, Reason: reason, RetryAfter: after})
		return
	}
	b.push(tasks.Delivered{Origin: f.To, Job: f.Report.Job, Unkept: !ok})
}

// keep makes receipts durable before anyone hears of them, and the small outputs
// that they name. Where that fails, as on a full disk, they are delivered all the
// same, since an origin leases again what a worker forgot; but not what is
// committed to, and ok is false.
func (b *bench) keep(ctx context.Context, f tasks.Deliver) (ok bool) {
	b.keepSmall(ctx, f)
	var fresh []wire.OwedReceipt
	b.mu.Lock()
	grace := 10 * time.Minute
	if j := b.jobs[workKey{f.To, f.Report.Job}]; j != nil {
		grace = j.grace
	}
	owe := func(r tasks.Receipt) *wire.OwedReceipt {
		if b.kept[wire.KeyOf(r)].origin == f.To {
			return nil
		}
		fresh = append(fresh, wire.OwedReceipt{Origin: f.To, Receipt: r, Until: b.wall().Add(grace)})
		return &fresh[len(fresh)-1]
	}
	var err error
	for _, r := range f.Receipts {
		owe(r)
	}
	for _, r := range f.Commits {
		if o := owe(r); o != nil {
			err = errors.Join(err, promise(o))
		}
	}
	var settled wire.Settled
	if len(fresh) > 0 { // they share its commit
		settled, b.settled = b.settled, settled
	}
	b.mu.Unlock()
	if len(fresh) == 0 {
		return true
	}
	if err == nil {
		err = b.s.cfg.Store.KeepReceipts(ctx, fresh, settled)
	}
	if err != nil {
		if ctx.Err() == nil {
			b.s.log.Warn("receipts not kept", "job", f.Report.Job, "receipts", len(fresh), "err", err)
		}
		b.settle(ctx, settled.Keys, settled.Said, false)
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range fresh {
		b.remember(r)
	}
	return true
}

// keepSmall stores the outputs inside receipts that are not stored yet. They are
// in the receipts too, so a failure costs nothing yet.
func (b *bench) keepSmall(ctx context.Context, f tasks.Deliver) {
	b.pins <- struct{}{}
	defer func() { <-b.pins }()
	var files []wire.Blob
	b.mu.Lock()
	j := b.jobs[workKey{f.To, f.Report.Job}]
	for _, r := range slices.Concat(f.Commits, f.Receipts) {
		if j != nil && len(r.Inline) > 0 && !j.stored[r.Output] {
			j.stored[r.Output] = true
			files = append(files, wire.Blob{CID: r.Output, Data: r.Inline})
		}
	}
	b.mu.Unlock()
	if len(files) == 0 {
		return
	}
	if err := b.s.cfg.Data.KeepWork(ctx, f.Report.Job, files); err != nil {
		if ctx.Err() == nil {
			b.s.log.Warn("outputs not kept", "job", f.Report.Job, "outputs", len(files), "err", err)
		}
		b.mu.Lock()
		for _, file := range files {
			delete(j.stored, file.CID)
		}
		b.mu.Unlock()
	}
}

// report says what a worker has to say, in as many messages as it needs, and
// gives the jobs among them that the origin does not hold.
func (b *bench) report(ctx context.Context, to tasks.PeerID, say work) (unknown []tasks.JobID, err error) {
	id, err := peerOf(to)
	if err != nil {
		return nil, err
	}
	for first := true; first || len(say.commits)+len(say.reveals)+len(say.receipts) > 0; first = false {
		r := wire.WorkReport{}
		n := min(len(say.commits), wire.MaxCommitments)
		r.Commits, say.commits = say.commits[:n], say.commits[n:]
		if n, size := 0, 0; len(say.reveals) > 0 {
			for n < len(say.reveals) && n < wire.MaxBatch && (n == 0 || size < receiptsBytes) {
				size += len(say.reveals[n].Body) + wire.NonceSize
				n++
			}
			if r.Reveals, err = b.sealReveals(say.reveals[:n]); err != nil {
				return unknown, err
			}
			say.reveals = say.reveals[n:]
		} else if len(say.receipts) > 0 {
			for n < len(say.receipts) && n < wire.MaxBatch && (n == 0 || size < receiptsBytes) {
				size += len(say.receipts[n].Inline) + len(say.receipts[n].Log) + 512
				n++
			}
			batch, err := wire.MarshalReceipts(b.s.mesh, say.receipts[:n])
			if err != nil {
				return unknown, err
			}
			if r.Receipts, err = b.s.seal(wire.DomainReceipts, batch); err != nil {
				return unknown, err
			}
			say.receipts = say.receipts[n:]
		}
		if len(say.commits)+len(say.reveals)+len(say.receipts) == 0 { // what it wants comes last, when the origin knows what it has done
			r.Jobs = say.reports
		}
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

// judged takes verdicts: those that end a receipt let it go. said is how they were
// signed; nil when nobody did. What is settled by them waits for a commit from the
// same moment on, so that whoever sees that nothing is owed sees it.
func (b *bench) judged(origin tasks.PeerID, vs []tasks.Verdict, said *wire.SaidVerdicts) {
	var gone []wire.ReceiptKey
	waits := map[wire.ReceiptKey]bool{}
	known := 0
	b.mu.Lock()
	for _, v := range vs {
		k := wire.VerdictKey(v)
		if b.kept[k].origin != origin {
			continue
		}
		known++
		if said != nil && !slices.Contains(said.Jobs, k.Job) {
			said.Jobs = append(said.Jobs, k.Job)
		}
		if v.Status != tasks.Pending {
			gone = append(gone, k)
			delete(b.kept, k)
			delete(b.shown, k)
		} else {
			waits[k] = true
		}
	}
	for i := range b.owed {
		if o := &b.owed[i]; o.Origin == origin && waits[wire.KeyOf(o.Receipt)] {
			o.Until = later(o.Until, b.wall().Add(oldGrace))
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
	if len(gone) > 0 {
		b.settled.Keys = append(b.settled.Keys, gone...)
		if said != nil && len(said.Sealed) <= saidBytes*(known+8) { // or it is mostly about what this node never did
			b.settled.Said = append(b.settled.Said, *said)
		}
	}
	many := len(b.settled.Keys) >= settledMost
	b.mu.Unlock()
	if len(old) == 0 && !many {
		return
	}
	b.s.crew.spawn(func(ctx context.Context) {
		for _, r := range old {
			if r.Output != "" {
				b.release(ctx, r.Job, r.Output)
			}
		}
		b.settle(ctx, nil, nil, false)
	})
}

// saidBytes is about what one signed verdict takes, and room.
const saidBytes = 512

// settledMost is how many settled receipts may wait for a commit that is due
// anyway. Those that a crash leaves are delivered again, and settled then.
const settledMost = 1024

// settle forgets receipts, and keeps what was said of them: with the next that are
// kept, or now.
func (b *bench) settle(ctx context.Context, keys []wire.ReceiptKey, said []wire.SaidVerdicts, now bool) {
	b.mu.Lock()
	b.settled.Keys, b.settled.Said = append(b.settled.Keys, keys...), append(b.settled.Said, said...)
	if !now && len(b.settled.Keys) < settledMost {
		b.mu.Unlock()
		return
	}
	over := b.settled
	b.settled = wire.Settled{}
	b.mu.Unlock()
	if len(over.Keys) == 0 {
		return
	}
	if err := b.s.cfg.Store.KeepReceipts(ctx, nil, over); err != nil && ctx.Err() == nil { // they are settled after the next start
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
	now := b.wall()
	for i := range b.owed {
		o := &b.owed[i]
		b.remember(*o)
		if now.Before(o.Until.Add(maxGrace)) { // or nobody has waited for it in a long time
			o.Until = later(o.Until, now.Add(oldGrace))
		}
	}
	return nil
}

// oldGrace is how long what an earlier run left is kept after this one's start, and
// after each word of an origin that waits for it still: one that waits for a second
// worker's answer may do so for hours.
const oldGrace = 10 * time.Minute

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// settleOld delivers what the last run left, until each has its verdict or its
// time is over: commitments again, answers when they are asked for.
func (b *bench) settleOld(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		byOrigin := map[tasks.PeerID]work{}
		var over []wire.ReceiptKey
		b.mu.Lock()
		now, still := b.wall(), b.owed[:0:0]
		for _, o := range b.owed {
			k := wire.KeyOf(o.Receipt)
			if now.After(o.Until) {
				over = append(over, k)
				delete(b.kept, k)
				delete(b.shown, k)
				continue
			}
			still = append(still, o)
			say := byOrigin[o.Origin]
			switch {
			case o.Nonce == nil:
				say.receipts = append(say.receipts, o.Receipt)
			case b.shown[k]:
				say.reveals = append(say.reveals, wire.Reveal{Receipt: o.Receipt, Body: o.Body, Nonce: o.Nonce})
			default:
				say.commits = append(say.commits, o.Commitment())
			}
			byOrigin[o.Origin] = say
		}
		b.owed = still
		b.mu.Unlock()
		b.settle(ctx, over, nil, true)
		if len(byOrigin) == 0 {
			return
		}
		for to, say := range byOrigin {
			unknown, err := b.report(ctx, to, say)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				b.s.log.Debug("old receipts not delivered", "peer", to, "receipts", len(say.receipts)+len(say.commits)+len(say.reveals), "err", err)
			}
			b.judged(to, lateFor(say, unknown), nil)
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-b.wake:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		pause.Stop()
	}
}

// lateFor makes the verdicts that an origin would give on receipts of jobs that
// it does not hold.
func lateFor(say work, unknown []tasks.JobID) (vs []tasks.Verdict) {
	late := func(k wire.ReceiptKey) {
		if slices.Contains(unknown, k.Job) {
			vs = append(vs, tasks.Verdict{Job: k.Job, Ref: k.Ref, Replica: k.Replica, Lease: k.Lease, Worker: k.Worker, Status: tasks.Rejected, Reason: tasks.LateReceipt})
		}
	}
	for _, r := range say.receipts {
		late(wire.KeyOf(r))
	}
	for _, r := range say.reveals {
		late(wire.KeyOf(r.Receipt))
	}
	for _, k := range say.commits {
		late(wire.CommitmentKey(k))
	}
	return vs
}
