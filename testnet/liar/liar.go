// Package liar has workers that break the rules, to test those that keep to them.
// A liar speaks the market's protocols by itself on a node that runs no other
// worker: on one of a simulated mesh, or on a real one in a process of its own.
// The product imports none of it.
package liar

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
	"github.com/kith-mesh/kith/tasks/wire"
)

// Liar does what its fields say where an honest worker would keep to the rules.
// Without fields it is honest.
type Liar struct {
	// Honest is what a task comes to; "INDEX of TASKS" and a newline.
	Honest func(l tasks.Lease, ref tasks.Ref) []byte

	Output  func(ref tasks.Ref, honest []byte) []byte             // what it says came out
	Receipt func(r *tasks.Receipt)                                // before it is hashed
	Commit  func(k *tasks.Commitment)                             // before it is sent
	Reveal  func(r *wire.Reveal) (show bool)                      // before it is sent
	Report  func(l *Liar, origin peer.ID, r *wire.WorkReport)     // all that it sends
	Leased  func(l *Liar, origin peer.ID, lease tasks.Lease) bool // false: it does nothing about it
	Judged  func(v tasks.Verdict)                                 // what an origin says of its answers
	Silent  bool                                                  // it sends no report at all

	// Serve is what it answers on other protocols of the market; its node must be Light.
	Serve map[string]func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)

	host  *p2p.Host
	store *storage.Store
	fault func(error)

	mu       sync.Mutex
	held     map[tasks.JobID][]tasks.LeaseID
	shown    map[wire.ReceiptKey]wire.Reveal
	verdicts []tasks.Verdict
	leases   []tasks.Lease
	said     []wire.WorkReport
	origins  map[tasks.JobID]peer.ID
	work     chan func(ctx context.Context)
}

// maxInline is what travels inside of a receipt, as on an honest node.
const maxInline = 64 << 10

func marketProtocol(name string) p2p.Protocol {
	for _, p := range market.Protocols() {
		if p.Name == name {
			return p
		}
	}
	panic("no protocol " + name)
}

// Attach makes it the worker of a node that does not run yet, with the node's
// store. fault is told what should work and does not. It can be attached anew,
// when its node starts again.
func (l *Liar) Attach(h *p2p.Host, store *storage.Store, fault func(error)) {
	l.host, l.store, l.fault = h, store, fault
	l.held, l.shown = map[tasks.JobID][]tasks.LeaseID{}, map[wire.ReceiptKey]wire.Reveal{}
	l.origins, l.work = map[tasks.JobID]peer.ID{}, make(chan func(ctx context.Context), 1024)
	h.Handle(marketProtocol("task/orders"), l.orders)
	for name, serve := range l.Serve {
		h.Handle(marketProtocol(name), serve)
	}
}

// Host is its node's.
func (l *Liar) Host() *p2p.Host { return l.host }

// ID is its node's.
func (l *Liar) ID() tasks.PeerID { return tasks.PeerID(l.host.ID().String()) }

// Call says anything on a protocol of the market.
func (l *Liar) Call(ctx context.Context, to peer.ID, protocol string, req []byte) ([]byte, error) {
	return l.host.Call(ctx, to, marketProtocol(protocol), req)
}

// Seal signs as its node.
func (l *Liar) Seal(domain string, payload []byte) []byte {
	b, err := l.host.Seal(domain, payload)
	if err != nil {
		l.fault(err)
	}
	return b
}

// Run works until ctx ends: what it was asked to do, and a report every second.
func (l *Liar) Run(ctx context.Context) {
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		select {
		case do := <-l.work:
			do(ctx)
		case <-beat.C:
			l.mu.Lock()
			held := make(map[tasks.JobID][]tasks.LeaseID, len(l.held))
			for job, ids := range l.held {
				held[job] = slices.Clone(ids)
			}
			l.mu.Unlock()
			for job, ids := range held {
				l.send(ctx, l.origin(job), wire.WorkReport{Jobs: []tasks.Report{{Job: job, Held: ids[max(0, len(ids)-256):], Want: 2, Slots: 2}}})
			}
		case <-ctx.Done():
			return
		}
	}
}

func (l *Liar) origin(job tasks.JobID) peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.origins[job]
}

// Bid asks an origin for work on its job.
func (l *Liar) Bid(ctx context.Context, origin peer.ID, job tasks.JobID) error {
	req, err := wire.MarshalBid(tasks.Bid{Job: job, Worker: l.ID(), Slots: 2})
	if err != nil {
		return err
	}
	_, err = l.host.Call(ctx, origin, marketProtocol("task/bid"), req)
	return err
}

// Verdicts are what origins said of its receipts.
func (l *Liar) Verdicts() []tasks.Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.verdicts)
}

// Leases are what it was granted.
func (l *Liar) Leases() []tasks.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.leases)
}

// Do runs f where it works.
func (l *Liar) Do(f func(ctx context.Context)) { l.work <- f }

func (l *Liar) orders(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
	o, err := wire.UnmarshalOrders(req)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sealed := range o.Leases {
		_, payload, err := p2p.OpenSealed(wire.DomainLease, wire.MaxLease, sealed)
		if err != nil {
			return nil, err
		}
		lease, err := wire.UnmarshalLease(payload)
		if err != nil {
			return nil, err
		}
		l.leases = append(l.leases, lease)
		l.held[lease.Job] = append(l.held[lease.Job], lease.ID)
		l.origins[lease.Job] = from
		if l.Leased == nil || l.Leased(l, from, lease) {
			l.work <- func(ctx context.Context) { l.answer(ctx, from, lease) }
		}
	}
	for _, sealed := range o.Verdicts {
		_, payload, err := p2p.OpenSealed(wire.DomainVerdicts, wire.MaxVerdicts, sealed)
		if err != nil {
			return nil, err
		}
		_, vs, err := wire.UnmarshalVerdicts(payload)
		if err != nil {
			return nil, err
		}
		l.verdicts = append(l.verdicts, vs...)
		for i := range vs {
			if l.Judged != nil {
				l.Judged(vs[i])
			}
		}
	}
	if len(o.Asks) > 0 {
		l.work <- func(ctx context.Context) { l.reveal(ctx, from, o.Asks) }
	}
	return wire.MarshalOrdersReply(nil)
}

func numbered(l tasks.Lease, ref tasks.Ref) []byte {
	return fmt.Appendf(nil, "%d of %d\n", ref.Index, l.Tasks)
}

// answer commits to what it says of a lease's tasks, or says it at once when the
// job has no quorum.
func (l *Liar) answer(ctx context.Context, to peer.ID, lease tasks.Lease) {
	var say wire.WorkReport
	var plain []tasks.Receipt
	for _, a := range lease.Assignments {
		out := numbered(lease, a.Task.Ref)
		if l.Honest != nil {
			out = l.Honest(lease, a.Task.Ref)
		}
		if l.Output != nil {
			out = l.Output(a.Task.Ref, out)
		}
		c, err := storage.SumBytes(out)
		if len(out) > maxInline { // members may have it: no ticket stands between
			var root storage.Root
			root, err = l.store.AddBytes(ctx, out, storage.AddOptions{Audience: storage.Mesh, Owner: "lies"})
			c = root.CID
		}
		if err != nil {
			l.fault(err)
			return
		}
		r := tasks.Receipt{Job: lease.Job, Ref: a.Task.Ref, Replica: a.Replica, Lease: lease.ID, Worker: lease.Worker,
			Output: tasks.CID(c.String()), Runner: "lies/1"}
		if len(out) <= maxInline {
			r.Inline = out
		}
		if l.Receipt != nil {
			l.Receipt(&r)
		}
		if !lease.Commit {
			plain = append(plain, r)
			continue
		}
		body, err := wire.MarshalReceipt(r)
		if err != nil {
			l.fault(err)
			return
		}
		v := wire.Reveal{Receipt: r, Body: body, Nonce: make([]byte, wire.NonceSize)}
		_, _ = rand.Read(v.Nonce) // it never fails
		k := tasks.Commitment{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker, Hash: wire.HashReceipt(v.Body, v.Nonce, r.Worker)}
		l.mu.Lock()
		l.shown[wire.KeyOf(r)] = v
		l.mu.Unlock()
		if l.Commit != nil {
			l.Commit(&k)
		}
		say.Commits = append(say.Commits, k)
	}
	if len(plain) > 0 {
		b, err := wire.MarshalReceipts(string(l.host.Mesh()), plain)
		if err == nil {
			say.Receipts, err = l.host.Seal(wire.DomainReceipts, b)
		}
		if err != nil {
			l.fault(err)
			return
		}
	}
	l.send(ctx, to, say)
}

func (l *Liar) reveal(ctx context.Context, to peer.ID, asks []wire.Ask) {
	var list []wire.Reveal
	l.mu.Lock()
	for _, a := range asks {
		v, ok := l.shown[wire.ReceiptKey{Job: a.Job, Ref: a.Ref, Replica: a.Replica, Lease: a.Lease, Worker: l.ID()}]
		if ok && (l.Reveal == nil || l.Reveal(&v)) {
			list = append(list, v)
		}
	}
	l.mu.Unlock()
	l.Show(ctx, to, list)
}

// Show sends reveals.
func (l *Liar) Show(ctx context.Context, to peer.ID, list []wire.Reveal) {
	if len(list) == 0 {
		return
	}
	b, err := wire.MarshalReveals(string(l.host.Mesh()), list)
	if err == nil {
		b, err = l.host.Seal(wire.DomainReveals, b)
	}
	if err != nil {
		l.fault(err)
		return
	}
	l.send(ctx, to, wire.WorkReport{Reveals: b})
}

// Shown are the reveals that it holds.
func (l *Liar) Shown() (list []wire.Reveal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.shown {
		list = append(list, v)
	}
	return list
}

func (l *Liar) send(ctx context.Context, to peer.ID, r wire.WorkReport) {
	if l.Report != nil {
		l.Report(l, to, &r)
	}
	if l.Silent {
		return
	}
	if len(r.Commits) > 0 || r.Reveals != nil || r.Receipts != nil {
		l.mu.Lock()
		l.said = append(l.said, r)
		l.mu.Unlock()
	}
	_ = l.Send(ctx, to, r) // a liar is not listened to for ever
}

// Said are the answers that it gave, as it sent them.
func (l *Liar) Said() []wire.WorkReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.said)
}

// Send says something to an origin, and gives what it was refused with.
func (l *Liar) Send(ctx context.Context, to peer.ID, r wire.WorkReport) error {
	req, err := wire.MarshalReport(r)
	if err != nil {
		return err
	}
	_, err = l.host.Call(ctx, to, marketProtocol("task/report"), req)
	return err
}
