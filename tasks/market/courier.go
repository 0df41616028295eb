package market

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// courier gathers what this node, as origin, has to say to one worker, and sends
// it as few messages: while one is on its way the next fills. It lives as long as
// it has something to say.
type courier struct {
	s       *Service
	to      peer.ID
	leases  []granted
	bytes   int // of leases, about
	renewed map[tasks.JobID][]tasks.LeaseID
	revoked []wire.Revocation
	verdict []tasks.Verdict
	asks    []asked
}

// A worker that does not read what it is told, or that makes an origin say much,
// gets no more than this kept for it. It asks again: with its receipts for
// verdicts, with its reports for the rest; what a lease has no room for is leased
// elsewhere.
const (
	courierLeases   = 4 * wire.MaxLeases
	courierBytes    = 4 * wire.MaxLease // of leases
	courierVerdicts = 16 * wire.MaxBatch
	courierRevokes  = 64 * wire.MaxLeases
	courierJobs     = 4 * wire.MaxLeases
	courierAsks     = 16 * wire.MaxCommitments
)

// grant, judge, renew and revoke add within those bounds. A lease that does not fit
// has failed.
func (c *courier) grant(g granted) {
	g.bytes = g.weight()
	if len(c.leases) >= courierLeases || len(c.leases) > 0 && c.bytes+g.bytes > courierBytes {
		g.failed(tasks.WorkerBusy, time.Second)
		return
	}
	c.leases, c.bytes = append(c.leases, g), c.bytes+g.bytes
}

// weight is about what a lease takes.
func (g granted) weight() int {
	n := 1 << 10
	for _, a := range g.lease.Assignments {
		n += 128 * (1 + len(a.Task.Stdin) + len(a.Task.Inputs))
	}
	return n
}

func (c *courier) judge(vs ...tasks.Verdict) {
	c.verdict = append(c.verdict, vs[:max(0, min(len(vs), courierVerdicts-len(c.verdict)))]...)
}

func (c *courier) renew(job tasks.JobID, leases []tasks.LeaseID) {
	if c.renewed[job] != nil || len(c.renewed) < courierJobs {
		c.renewed[job] = leases // each report names them all
	}
}

func (c *courier) revoke(r wire.Revocation) {
	if len(c.revoked) < courierRevokes {
		c.revoked = append(c.revoked, r)
	}
}

func (c *courier) ask(d *desk, r tasks.Reveal) {
	if len(c.asks) < courierAsks {
		c.asks = append(c.asks, asked{r, d})
	}
}

// asked is a question on its way for what its worker committed to, and who hears
// that it was taken.
type asked struct {
	tasks.Reveal
	desk *desk
}

// granted is a lease on its way, and who hears of its failure.
type granted struct {
	lease tasks.Lease
	desk  *desk
	bytes int
}

// ordersBytes is about how much one message carries, but for a single lease that
// is larger.
const ordersBytes = 1 << 20

// tell adds to what a worker is told, under the service's lock, and starts its
// courier if none is under way.
func (s *Service) tell(to tasks.PeerID, add func(c *courier)) {
	id, err := peerOf(to)
	if err != nil {
		s.log.Error("peer ID of the market's own is malformed", "peer", to, "err", err)
		return
	}
	s.mu.Lock()
	c, under := s.couriers[id]
	if !under {
		c = &courier{s: s, to: id, renewed: map[tasks.JobID][]tasks.LeaseID{}}
		s.couriers[id] = c
	}
	add(c)
	s.mu.Unlock()
	if !under && !s.crew.spawn(c.run) {
		s.mu.Lock()
		delete(s.couriers, id)
		s.mu.Unlock()
	}
}

func (c *courier) run(ctx context.Context) {
	for {
		leases, o, verdicts, asks, more := c.load()
		if !more {
			return
		}
		c.deliver(ctx, leases, o, verdicts, asks)
	}
}

// load takes what fits one message; more is false, and the courier is gone, when
// there was nothing.
func (c *courier) load() (leases []granted, o wire.Orders, verdicts []tasks.Verdict, asks []asked, more bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if len(c.leases) == 0 && len(c.renewed) == 0 && len(c.revoked) == 0 && len(c.verdict) == 0 && len(c.asks) == 0 {
		delete(c.s.couriers, c.to)
		return nil, o, nil, nil, false
	}
	n := min(len(c.leases), 32)
	leases, c.leases = c.leases[:n:n], c.leases[n:]
	for _, g := range leases {
		c.bytes -= g.bytes
	}
	for job, ids := range c.renewed {
		if len(o.Renewals) == wire.MaxLeases {
			break
		}
		k := min(len(ids), wire.MaxLeases)
		o.Renewals = append(o.Renewals, wire.Renewal{Job: job, Leases: ids[:k:k]})
		if c.renewed[job] = ids[k:]; len(ids) == k {
			delete(c.renewed, job)
		}
	}
	n = min(len(c.revoked), wire.MaxLeases)
	o.Revokes, c.revoked = c.revoked[:n:n], c.revoked[n:]
	n = min(len(c.verdict), wire.MaxBatch)
	verdicts, c.verdict = c.verdict[:n:n], c.verdict[n:]
	n = min(len(c.asks), wire.MaxCommitments)
	asks, c.asks = c.asks[:n:n], c.asks[n:]
	for _, a := range asks {
		o.Asks = append(o.Asks, wire.Ask{Job: a.desk.job.ID, Ref: a.Ref, Replica: a.Replica, Lease: a.Lease})
	}
	return leases, o, verdicts, asks, true
}

// deliver sends one load. What does not arrive is not repeated here: a lease
// that failed is leased again, a worker asks again for its verdicts, and the
// origin again for what it is to be shown.
func (c *courier) deliver(ctx context.Context, leases []granted, o wire.Orders, verdicts []tasks.Verdict, asks []asked) {
	s := c.s
	if len(verdicts) > 0 {
		b, err := wire.MarshalVerdicts(s.mesh, verdicts)
		if err == nil {
			b, err = s.seal(wire.DomainVerdicts, b)
		}
		if err != nil {
			s.log.Error("verdicts not encoded", "err", err)
		} else {
			o.Verdicts = [][]byte{b}
		}
	}
	var with []granted
	size := 0
	for i := 0; i <= len(leases); i++ {
		var sealed []byte
		if i < len(leases) {
			b, err := wire.MarshalLease(leases[i].lease)
			if err == nil {
				b, err = s.seal(wire.DomainLease, b)
			}
			if err != nil {
				s.log.Error("lease not encoded", "job", leases[i].lease.Job, "err", err)
				leases[i].failed(tasks.WorkerFault, 0)
				continue
			}
			sealed = b
		}
		if i == len(leases) || size > 0 && size+len(sealed) > ordersBytes {
			if !empty(o) {
				c.send(ctx, with, asks, o)
			}
			o, with, size, asks = wire.Orders{}, nil, 0, nil
		}
		if sealed != nil {
			o.Leases, with, size = append(o.Leases, sealed), append(with, leases[i]), size+len(sealed)
		}
	}
}

func empty(o wire.Orders) bool {
	return len(o.Leases) == 0 && len(o.Renewals) == 0 && len(o.Revokes) == 0 && len(o.Verdicts) == 0 && len(o.Asks) == 0
}

func (c *courier) send(ctx context.Context, with []granted, asks []asked, o wire.Orders) {
	refused, err := c.call(ctx, o)
	if err != nil {
		reason, after := reasonOf(err)
		if ctx.Err() == nil {
			c.s.log.Debug("orders not delivered", "peer", c.to, "leases", len(with), "err", err)
		}
		for _, g := range with {
			g.failed(reason, after)
		}
		return
	}
	for _, a := range asks {
		a.desk.push(tasks.RevealTold{Worker: a.Worker, Lease: a.Lease, Ref: a.Ref, Replica: a.Replica})
	}
	for _, r := range refused {
		if i := slices.IndexFunc(with, func(g granted) bool { return g.lease.Job == r.Job && g.lease.ID == r.Lease }); i >= 0 {
			with[i].failed(r.Reason, r.RetryAfter)
		} else if d := c.s.desk(r.Job); d != nil && renews(o, r) {
			d.push(tasks.LeaseFailed{Lease: r.Lease, Worker: idOf(c.to), Reason: tasks.UnknownLease})
		}
	}
}

func (c *courier) call(ctx context.Context, o wire.Orders) ([]wire.RefusedLease, error) {
	req, err := wire.MarshalOrders(o)
	if err != nil {
		return nil, err
	}
	var resp []byte
	if c.to == c.s.host.ID() {
		resp, err = c.s.serveOrders(ctx, c.to, req)
	} else {
		c.s.metrics.sent("orders")
		resp, err = c.s.host.Call(ctx, c.to, ordersProtocol, req)
	}
	if err != nil {
		return nil, err
	}
	return wire.UnmarshalOrdersReply(resp)
}

// failed tells the job of it. That a worker does not know a lease means that it has
// forgotten it, which can't be of one that it is being given.
func (g granted) failed(reason tasks.Reason, after time.Duration) {
	if reason == tasks.UnknownLease {
		reason = tasks.WorkerFault
	}
	g.desk.push(tasks.LeaseFailed{Lease: g.lease.ID, Worker: g.lease.Worker, Reason: reason, RetryAfter: after})
}

// renews reports whether orders renewed a lease that was refused.
func renews(o wire.Orders, r wire.RefusedLease) bool {
	return slices.ContainsFunc(o.Renewals, func(n wire.Renewal) bool {
		return n.Job == r.Job && slices.Contains(n.Leases, r.Lease)
	})
}
