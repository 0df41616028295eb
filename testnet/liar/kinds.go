package liar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// Kinds are the liars that need nobody's help, by what they do.
var Kinds = map[string]func() *Liar{
	"says wrong":            Wrong,
	"gives nothing":         GivesNothing,
	"invents":               Invents,
	"holds back":            HoldsBack,
	"stalls":                Stalls,
	"never answers":         Silent,
	"changes its answer":    Changes,
	"does not commit":       Uncommitted,
	"another's lease":       AnothersLease,
	"another's task":        AnothersTask,
	"repeats":               Honest,
	"gives too much":        TooMuch,
	"holds a lease":         Stalls,
	"asks for others' work": Silent,
	"colludes":              Colludes,
	"colludes too":          Colludes,
}

// Honest keeps to the rules.
func Honest() *Liar { return &Liar{} }

// Wrong says that the answer is 42.
func Wrong() *Liar {
	return &Liar{Output: func(tasks.Ref, []byte) []byte { return []byte("42\n") }}
}

// GivesNothing names the right output and never gives it.
func GivesNothing() *Liar { return &Liar{Receipt: func(r *tasks.Receipt) { r.Inline = nil }} }

// Invents names an output that nobody has.
func Invents() *Liar {
	return &Liar{Output: func(_ tasks.Ref, b []byte) []byte { return append([]byte("invented "), b...) },
		Receipt: func(r *tasks.Receipt) { r.Inline = nil }}
}

// HoldsBack commits and never shows what to.
func HoldsBack() *Liar { return &Liar{Reveal: func(*wire.Reveal) bool { return false }} }

// Stalls says every second that it is at work, and answers nothing.
func Stalls() *Liar {
	return &Liar{Leased: func(*Liar, peer.ID, tasks.Lease) bool { return false }}
}

// Silent takes work and is not heard again, though its node is there.
func Silent() *Liar { return &Liar{Silent: true} }

// Changes shows another answer than it committed to.
func Changes() *Liar {
	return &Liar{Reveal: func(v *wire.Reveal) bool { v.Nonce = bytes.Repeat([]byte{7}, wire.NonceSize); return true }}
}

// Uncommitted shows its answers without having committed to them, each in the
// name of a lease that it has.
func Uncommitted() *Liar {
	return &Liar{Report: func(l *Liar, origin peer.ID, r *wire.WorkReport) {
		if len(r.Commits) > 0 {
			r.Commits = nil
			l.Do(func(ctx context.Context) { l.Show(ctx, origin, l.Shown()) })
		}
	}}
}

// AnothersLease answers under a lease of another worker.
func AnothersLease() *Liar {
	return &Liar{Commit: func(k *tasks.Commitment) {
		if k.Lease == "t1-1" {
			k.Lease = "t1-2"
		} else {
			k.Lease = "t1-1"
		}
	}}
}

// AnothersTask answers a task that it was not leased.
func AnothersTask() *Liar { return &Liar{Commit: func(k *tasks.Commitment) { k.Ref.Index++ }} }

// Colludes says what others of its kind say, and no honest worker.
func Colludes() *Liar {
	return &Liar{Output: func(ref tasks.Ref, _ []byte) []byte { return Agreed(ref) }}
}

// Agreed is what those say that collude.
func Agreed(ref tasks.Ref) []byte { return fmt.Appendf(nil, "agreed on %d\n", ref.Index) }

// MuchMore is how much TooMuch adds to an output.
const MuchMore = 8 << 20

// TooMuch gives whoever asks an output that begins right and goes on.
func TooMuch() *Liar {
	more := bytes.Repeat([]byte("0123456789abcdef"), MuchMore/16)
	return &Liar{Output: func(_ tasks.Ref, b []byte) []byte { return append(b, more...) }}
}

// Given is an answer that one worker passes to another: what it committed to, and
// what opens that.
type Given struct {
	Hash  tasks.Hash
	Nonce []byte
	Body  []byte // the receipt's
}

// Helps commits honestly, and gives away what opens its commitments.
func Helps(give func(ref tasks.Ref, g Given)) *Liar {
	l := &Liar{}
	l.Commit = func(k *tasks.Commitment) {
		for _, v := range l.Shown() {
			if v.Receipt.Ref == k.Ref && v.Receipt.Lease == k.Lease {
				give(k.Ref, Given{k.Hash, v.Nonce, v.Body})
			}
		}
	}
	return l
}

// Copies passes another's commitments off as its own. What it is given nothing
// for it answers honestly.
func Copies(given func(ref tasks.Ref) (Given, bool)) *Liar {
	var mu sync.Mutex
	copied := map[tasks.Ref]Given{}
	l := &Liar{}
	l.Commit = func(k *tasks.Commitment) {
		if g, ok := given(k.Ref); ok {
			mu.Lock()
			k.Hash, copied[k.Ref] = g.Hash, g
			mu.Unlock()
		}
	}
	l.Reveal = func(v *wire.Reveal) bool {
		mu.Lock()
		g, ok := copied[v.Receipt.Ref]
		mu.Unlock()
		if !ok {
			return true
		}
		r, err := wire.UnmarshalReceipt(g.Body)
		if err != nil {
			l.fault(errors.Join(errors.New("what it copied"), err))
			return true
		}
		r.Worker, r.Lease, r.Replica = v.Receipt.Worker, v.Receipt.Lease, v.Receipt.Replica // in its own name, or it would be refused at once
		body, err := wire.MarshalReceipt(r)
		if err != nil {
			l.fault(err)
		}
		*v = wire.Reveal{Receipt: r, Body: body, Nonce: g.Nonce}
		return true
	}
	return l
}
