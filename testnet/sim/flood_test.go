package sim_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
	"github.com/kith-mesh/kith/tasks/wire"
	"github.com/kith-mesh/kith/testnet/liar"
	"github.com/kith-mesh/kith/testnet/sim"
)

// flooder is a member that says as much as it can to nodes that work for others,
// and to an origin. It answers like an origin that never judges, and what it is
// given to do it leaves.
type flooder struct {
	*liar.Liar
	t       *testing.T
	program tasks.CID
	job     tasks.JobID // of another, whose origin it floods

	mu      sync.Mutex
	n       uint64
	done    map[string]int       // calls that were answered, by attack
	refused map[tasks.Reason]int // of its leases
}

func newFlooder(t *testing.T) *flooder {
	f := &flooder{t: t, done: map[string]int{}, refused: map[tasks.Reason]int{}}
	f.Liar = liar.Stalls()
	f.Serve = map[string]func(context.Context, peer.ID, []byte) ([]byte, error){
		"task/report": func(context.Context, peer.ID, []byte) ([]byte, error) { return wire.MarshalTaken(nil) },
		"task/bid":    func(context.Context, peer.ID, []byte) ([]byte, error) { return nil, nil },
	}
	return f
}

func (f *flooder) fresh() (tasks.JobID, tasks.LeaseID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return market.JobIDOf(binary.BigEndian.AppendUint64(nil, f.n)), tasks.LeaseID(fmt.Sprint("t1-", f.n))
}

func peerID(n *sim.Node) tasks.PeerID { return tasks.PeerID(n.ID.String()) }

func (f *flooder) enc(b []byte, err error) []byte {
	if err != nil {
		f.t.Error(err)
	}
	return b
}

func (f *flooder) lease(to tasks.PeerID, n int) []byte {
	job, id := f.fresh()
	l := tasks.Lease{ID: id, Job: job, Term: 1, Origin: f.ID(), Worker: to, Program: f.program, Kind: tasks.KindWasm,
		Needs: tasks.Resources{CPU: 1, Memory: 1 << 20, Timeout: time.Hour, Output: 1 << 20}, Tasks: 1 << 10, Duration: time.Minute, Grace: time.Hour}
	for i := range n {
		l.Assignments = append(l.Assignments, tasks.Assignment{Task: tasks.Task{Ref: tasks.Ref{Index: uint32(i)}}})
	}
	return f.Seal(wire.DomainLease, f.enc(wire.MarshalLease(l)))
}

func (f *flooder) offer() []byte {
	job, _ := f.fresh()
	return f.enc(wire.MarshalOffer(tasks.Offer{Job: job, Term: 1, Origin: f.ID(), Kind: tasks.KindWasm, Program: f.program,
		Needs: tasks.Resources{CPU: 1, Memory: 1 << 20, Timeout: time.Hour, Output: 1 << 20}, Waiting: 1000, Replicas: 1, Radius: time.Second, Window: 200 * time.Millisecond}))
}

func (f *flooder) orders(ctx context.Context, to *sim.Node, o wire.Orders) error {
	resp, err := f.Call(ctx, to.ID, "task/orders", f.enc(wire.MarshalOrders(o)))
	if err != nil {
		return err
	}
	refused, err := wire.UnmarshalOrdersReply(resp)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range refused {
		f.refused[r.Reason]++
	}
	return err
}

// An attack is said again as soon as it was answered, pause later.
type attack struct {
	pause time.Duration
	say   func(ctx context.Context, f *flooder, to *sim.Node) error
}

// Those on workers: all that an origin may say, of jobs that are not.
var onWorkers = map[string]attack{
	"many leases": {100 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		o := wire.Orders{}
		for range 4 {
			o.Leases = append(o.Leases, f.lease(peerID(to), 4))
		}
		return f.orders(ctx, to, o)
	}},
	"large leases": {200 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		return f.orders(ctx, to, wire.Orders{Leases: [][]byte{f.lease(peerID(to), 256)}})
	}},
	"leases that are none": {500 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		bad := f.lease(peerID(to), 16)
		bad[len(bad)-1] ^= 1
		err := f.orders(ctx, to, wire.Orders{Leases: [][]byte{bad}})
		if err == nil {
			f.t.Error("a lease with a wrong signature was taken")
		}
		if f.orders(ctx, to, wire.Orders{Leases: [][]byte{f.lease(f.ID(), 16)}}) == nil {
			f.t.Error("a lease for another worker was taken")
		}
		return nil
	}},
	"other orders": {500 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		o := wire.Orders{}
		vs := make([]tasks.Verdict, 400)
		for i := range vs {
			job, lease := f.fresh()
			vs[i] = tasks.Verdict{Job: job, Lease: lease, Worker: peerID(to), Status: tasks.Accepted}
			if i < 200 {
				o.Revokes = append(o.Revokes, wire.Revocation{Job: job, Lease: lease})
				o.Renewals = append(o.Renewals, wire.Renewal{Job: job, Leases: []tasks.LeaseID{lease}})
			}
			o.Asks = append(o.Asks, wire.Ask{Job: job, Lease: lease})
		}
		o.Verdicts = [][]byte{f.Seal(wire.DomainVerdicts, f.enc(wire.MarshalVerdicts(string(f.Host().Mesh()), vs)))}
		return f.orders(ctx, to, o)
	}},
	"probes": {20 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		_, err := f.Call(ctx, to.ID, "task/probe", f.offer())
		return err
	}},
	"offers": {50 * time.Millisecond, func(_ context.Context, f *flooder, to *sim.Node) error {
		for range 100 { // gossip lets through far fewer
			to.Market().OnOffer(f.Host().ID(), f.offer())
		}
		return nil
	}},
}

// Those on an origin: all that a worker may say of its job, and notices of others.
var onOrigin = map[string]attack{
	"bids": {20 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		_, err := f.Call(ctx, to.ID, "task/bid", f.enc(wire.MarshalBid(tasks.Bid{Job: f.job, Worker: f.ID(), Slots: 1, Queue: time.Hour})))
		return err
	}},
	"commitments": {500 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		r := wire.WorkReport{}
		for i := range 1000 {
			_, lease := f.fresh()
			r.Commits = append(r.Commits, tasks.Commitment{Job: f.job, Ref: tasks.Ref{Index: uint32(i)}, Lease: lease, Worker: f.ID()})
		}
		return f.Send(ctx, to.ID, r)
	}},
	"receipts": {500 * time.Millisecond, func(ctx context.Context, f *flooder, to *sim.Node) error {
		var rs []tasks.Receipt
		for i := range 16 {
			_, lease := f.fresh()
			rs = append(rs, tasks.Receipt{Job: f.job, Ref: tasks.Ref{Index: uint32(i)}, Lease: lease, Worker: f.ID(), Output: f.program, Inline: make([]byte, 32<<10), Runner: "flood"})
		}
		return f.Send(ctx, to.ID, wire.WorkReport{Receipts: f.Seal(wire.DomainReceipts, f.enc(wire.MarshalReceipts(string(f.Host().Mesh()), rs)))})
	}},
	"notices": {200 * time.Millisecond, func(_ context.Context, f *flooder, to *sim.Node) error {
		for range 50 {
			job, _ := f.fresh()
			b := f.enc(wire.MarshalNotice(string(f.Host().Mesh()), tasks.Notice{Kind: tasks.NoticeOrigin, Job: job, Term: 1, From: f.ID()}))
			to.Market().OnJob(f.Host().ID(), append([]byte{2}, f.Seal(wire.DomainNotice, b)...))
		}
		return nil
	}},
}

// run says attacks to nodes until ctx ends.
func (f *flooder) run(ctx context.Context, attacks map[string]attack, to ...*sim.Node) (wait func()) {
	var all sync.WaitGroup
	for name, a := range attacks {
		for _, n := range to {
			all.Go(func() {
				for ctx.Err() == nil {
					if err := a.say(ctx, f, n); err == nil {
						f.mu.Lock()
						f.done[name]++
						f.mu.Unlock()
					}
					select {
					case <-time.After(a.pause):
					case <-ctx.Done():
					}
				}
			})
		}
	}
	return all.Wait
}

// A peer that floods workers and the origin slows an honest job by its share, and no
// more: it has its turn at each worker, whose queue and memory stay within what one
// origin may have.
func TestFlood(t *testing.T) {
	const honest = 30
	took := func(flood bool, attacks ...map[string]attack) (d time.Duration) {
		f := newFlooder(t)
		cfg := sim.Config{Liars: map[int]*liar.Liar{4: f.Liar}, Setup: func(i int, c *node.Config) {
			c.Light = i == 4
			c.Seams.Market.NoWork = i == 0
		}}
		sim.Run(t, cfg, func(m *sim.Mesh) {
			origin, workers := m.Nodes[0], m.Nodes[1:4]
			for _, w := range workers {
				f.program = w.Program("number") // which they need not fetch from it
			}
			ctx, cancel := context.WithCancel(context.Background())
			wait := func() {}
			if flood {
				wait = f.run(ctx, onWorkers, workers...)
				sim.Sleep(10 * time.Second) // it is there first
			}
			began := time.Now()
			f.job = origin.Submit(origin.Numbers(honest))
			waitToo := func() {}
			if flood {
				waitToo = f.run(ctx, onOrigin, origin)
			}
			most := tasks.WorkerStatus{}
			watched := make(chan struct{})
			over, stop := context.WithCancel(ctx)
			go func() {
				defer close(watched)
				for over.Err() == nil {
					for _, w := range workers {
						s, _ := w.Market().Work()
						most.Queued, most.Jobs, most.Receipts = max(most.Queued, s.Queued), max(most.Jobs, s.Jobs), max(most.Receipts, s.Receipts)
					}
					select {
					case <-time.After(100 * time.Millisecond):
					case <-over.Done():
					}
				}
			}()
			end := sync.OnceFunc(func() { // before the mesh does, also when the job does not end
				stop()
				<-watched
				cancel()
				wait()
				waitToo()
			})
			defer end()
			v := origin.Await(f.job, 90*time.Second)
			d = time.Since(began)
			end()
			if v.Status.State != tasks.Done || v.Status.Decided != honest {
				t.Errorf("%+v", v.Status)
			}
			if !flood {
				return
			}
			t.Logf("flooded: %v; answered: %v; its leases refused: %v, given to it: %d; at one worker at most %d queued, %d jobs, %d receipts", d, f.done, f.refused, len(f.Leases()), most.Queued, most.Jobs, most.Receipts)
			if most.Queued > 512+128 || most.Jobs > 64+1 || most.Receipts > 4096+honest {
				t.Errorf("a worker had %d tasks queued, %d jobs, %d receipts", most.Queued, most.Jobs, most.Receipts)
			}
			if most.Queued < 256 || f.refused[tasks.WorkerBusy] == 0 {
				t.Errorf("%d were queued, leases refused: %v: the flood shows nothing", most.Queued, f.refused)
			}
			for name := range onWorkers {
				if f.done[name] == 0 {
					t.Errorf("%q was never answered", name)
				}
			}
		})
		return d
	}
	alone, flooded := took(false), took(true)
	t.Logf("%d tasks of a second on 3 workers: %v alone, %v flooded", honest, alone, flooded)
	if flooded > 3*alone {
		t.Errorf("%v beside a flood, %v without: more than 3 times", flooded, alone)
	}
}
