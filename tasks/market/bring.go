package market

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// bring fetches what an execution reads. What was fetched ahead is here.
func (b *bench) bring(ctx context.Context, origin tasks.PeerID, lease tasks.LeaseID, x tasks.Execution) error {
	if origin == b.s.self {
		return nil
	}
	work := workKey{origin, x.Job}
	spans := b.missing(work, x)
	if len(spans) == 0 {
		return nil
	}
	from, err := peerOf(origin)
	if err != nil {
		return err
	}
	ticket, err := wire.MarshalTicket(wire.Ticket{Job: x.Job, Lease: lease})
	if err != nil {
		return err
	}
	if err := b.fetchAll(ctx, spans, from, ticket); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[work]; j != nil {
		if len(j.here)+len(spans) > maxHere {
			clear(j.here)
		}
		now := time.Now()
		for _, span := range spans {
			j.here[span] = now
		}
	}
	return nil
}

// What was brought for a job is taken to be here for a while: the collector
// spares it for longer, and most tasks of a job read much the same.
const (
	hereFor = time.Minute
	maxHere = 4096 // spans a job
)

// missing lists what an execution reads, each once, but for what was brought just
// now.
func (b *bench) missing(work workKey, x tasks.Execution) (spans []tasks.Span) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, now := b.jobs[work], time.Now()
	add := func(span tasks.Span) {
		if j != nil {
			if at, ok := j.here[span]; ok && now.Sub(at) < hereFor {
				return
			}
		}
		spans = append(spans, span)
	}
	add(tasks.Span{Root: x.Program, Length: -1})
	if len(x.Stdin)+len(x.Inputs) == 0 {
		return spans
	}
	seen := map[tasks.Span]bool{}
	for _, span := range x.Stdin {
		if !seen[span] {
			seen[span] = true
			add(span)
		}
	}
	for _, span := range x.Inputs { // a reduce reads all as files too
		if !seen[span] {
			seen[span] = true
			add(span)
		}
	}
	return spans
}

// doubt makes the next task of a job look again for what it reads: one has failed,
// perhaps for want of it.
func (b *bench) doubt(work workKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[work]; j != nil {
		clear(j.here)
	}
}

// fetchAtOnce is how many spans of one task are fetched at once: a reduce has
// thousands of small ones, each a round trip away.
const fetchAtOnce = 4

func (b *bench) fetchAll(ctx context.Context, spans []tasks.Span, from peer.ID, ticket []byte) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(fetchAtOnce, len(spans)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(spans)); i = next.Add(1) - 1 {
				if err := b.fetch(ctx, spans[i], from, ticket); err != nil {
					stop(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// fetch brings one span here, once however many runs wait for it.
func (b *bench) fetch(ctx context.Context, span tasks.Span, from peer.ID, ticket []byte) error {
	for {
		b.mu.Lock()
		under := b.fetching[span]
		if under == nil {
			break
		}
		b.mu.Unlock()
		select {
		case <-under: // what came is here; what did not is tried again
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{})
	b.fetching[span] = done
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.fetching, span)
		b.mu.Unlock()
		close(done)
	}()
	return b.s.cfg.Data.Fetch(ctx, span, []peer.ID{from}, ticket)
}

// ahead fetches the inputs of a lease in order while earlier ones run, so that a
// slot never waits for the network twice.
func (b *bench) ahead(l tasks.Lease) {
	if l.Origin == b.s.self {
		return
	}
	b.s.crew.spawn(func(ctx context.Context) {
		for _, a := range l.Assignments {
			b.mu.Lock()
			_, wanted := b.jobs[workKey{l.Origin, l.Job}]
			b.mu.Unlock()
			if !wanted {
				return
			}
			x := tasks.Execution{Job: l.Job, Program: l.Program, Stdin: a.Task.Stdin, Inputs: a.Task.Inputs}
			if err := b.bring(ctx, l.Origin, l.ID, x); err != nil {
				return // the run itself says why
			}
		}
	})
}
