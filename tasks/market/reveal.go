package market

import (
	"crypto/rand"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// promise fixes the bytes of a receipt and draws the nonce that they are
// committed to with.
func promise(o *wire.OwedReceipt) (err error) {
	o.Body, err = wire.MarshalReceipt(o.Receipt)
	o.Nonce = make([]byte, wire.NonceSize)
	rand.Read(o.Nonce) // never fails
	return err
}

// remember notes a receipt that is on disk. It is called with the lock held.
func (b *bench) remember(o wire.OwedReceipt) {
	k := kept{origin: o.Origin, nonce: o.Nonce}
	if o.Nonce != nil {
		k.hash = o.Commitment().Hash
	}
	b.kept[wire.KeyOf(o.Receipt)] = k
}

// commitments are what this node says of receipts that are on disk.
func (b *bench) commitments(rs []tasks.Receipt) (out []tasks.Commitment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range rs {
		if k := b.kept[wire.KeyOf(r)]; k.nonce != nil {
			out = append(out, tasks.Commitment{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker, Hash: k.hash})
		}
	}
	return out
}

// reveals show receipts with what they were committed to with.
func (b *bench) reveals(rs []tasks.Receipt) (out []wire.Reveal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range rs {
		k, owed := b.kept[wire.KeyOf(r)]
		if !owed { // it has its verdict by now
			continue
		}
		body, err := wire.MarshalReceipt(r)
		if err != nil || k.nonce == nil || wire.HashReceipt(body, k.nonce, r.Worker) != k.hash {
			b.s.log.Error("receipt is not what was committed to", "job", r.Job, "lease", r.Lease, "err", err)
			continue
		}
		out = append(out, wire.Reveal{Receipt: r, Body: body, Nonce: k.nonce})
	}
	return out
}

func (b *bench) sealReveals(rs []wire.Reveal) ([]byte, error) {
	batch, err := wire.MarshalReveals(b.s.mesh, rs)
	if err != nil {
		return nil, err
	}
	return b.s.seal(wire.DomainReveals, batch)
}

// asked hears that an origin wants to be shown what this node committed to, in
// this run or in the one before.
func (b *bench) asked(origin tasks.PeerID, a wire.Ask) {
	b.push(tasks.RevealIn{Origin: origin, Job: a.Job, Lease: a.Lease, Ref: a.Ref, Replica: a.Replica})
	k := wire.ReceiptKey{Job: a.Job, Ref: a.Ref, Replica: a.Replica, Lease: a.Lease, Worker: b.s.self}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.owed {
		if o.Origin == origin && o.Nonce != nil && wire.KeyOf(o.Receipt) == k {
			b.shown[k] = true
			select {
			case b.wake <- struct{}{}:
			default:
			}
			return
		}
	}
}
