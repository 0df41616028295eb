package market

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/verify"
	"github.com/kith-mesh/kith/tasks/wire"
)

// Service is this node's part in the market. New makes it and registers its
// protocols; Run makes it work.
type Service struct {
	cfg     Config
	host    *p2p.Host
	self    tasks.PeerID
	mesh    string
	log     *slog.Logger
	metrics *metrics
	events  hub
	crew    crew

	bench *bench // nil with NoWork
	hall  *hall

	mu       sync.Mutex
	desks    map[tasks.JobID]*desk // jobs in hand
	finished []*desk               // the last few that are over
	detailed int                   // tasks of which they keep a history; keepTasks
	couriers map[peer.ID]*courier
	tallies  map[tasks.PeerID]wire.Tally
	adding   int       // submissions being made durable
	adopted  []adopted // published jobs of this node's that wait for room among those in hand

	waiting pool // of all inboxes
}

// The last keepFinished jobs that are over are told of from memory. Their whole
// history, some 400 bytes a task, stays for as many of them as have keepTasks
// tasks together, and for the last at any rate; that of others is read from disk
// when somebody asks.
const (
	keepFinished = 16
	keepTasks    = 32 << 10
)

// New makes a service and registers its protocols on the host, which must not
// run yet.
func New(cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, detailed: keepTasks, host: cfg.Host, self: idOf(cfg.Host.ID()), mesh: string(cfg.Host.Mesh()), log: cfg.Log,
		desks: map[tasks.JobID]*desk{}, couriers: map[peer.ID]*courier{}, tallies: map[tasks.PeerID]wire.Tally{},
	}
	if s.cfg.Seed == 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(s.self)) // never fails
		s.cfg.Seed = h.Sum64()
	}
	s.events = hub{keep: cfg.Events, subs: map[*Subscription]bool{}}
	s.metrics = newMetrics(cfg.Registerer, s)
	if !cfg.NoWork {
		b, err := newBench(s)
		if err != nil {
			return nil, err
		}
		s.bench = b
		s.host.Handle(probeProtocol, s.serveProbe)
		s.host.Handle(ordersProtocol, s.serveOrders)
	}
	s.hall = newHall(s)
	if !cfg.Light {
		s.host.Handle(bidProtocol, s.serveBid)
		s.host.Handle(reportProtocol, s.serveReport)
	}
	s.host.Handle(followProtocol, s.serveFollow)
	s.host.Handle(answerProtocol, s.serveAnswer)
	s.host.OnMember(s.member)
	return s, nil
}

// Run takes up what was durable and works until ctx ends. It returns when every
// goroutine of the service has ended; an error means that the store failed.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := s.restore(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.crew.open(ctx, cancel)
	defer s.crew.close()
	jobs, err := s.cfg.Store.Jobs(ctx)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("market: read jobs: %w", err)
	}
	if s.bench != nil {
		s.crew.spawn(s.bench.run)
	}
	s.crew.spawn(s.hall.run)
	s.crew.spawn(s.sweep)
	if !s.cfg.Light {
		for _, r := range jobs {
			switch {
			case !r.Origin() || r.State.Over():
			case !r.Published:
				s.openDesk(r.ID, "")
			case s.cfg.NoHost:
				s.takeUp(adopted{r.ID, r.Submitter})
			default: // it may be another's by now: the hall asks first
			}
		}
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); errors.Is(cause, errStore) {
		return cause
	}
	return nil
}

// errStore ends Run: what can't be made durable must not be said.
var errStore = errors.New("market: the store failed")

// restore reads what must be known before the first message is answered.
func (s *Service) restore(ctx context.Context) error {
	tallies, err := s.cfg.Store.Tallies(ctx)
	if err != nil {
		return fmt.Errorf("market: read tallies: %w", err)
	}
	s.mu.Lock()
	for p, t := range tallies {
		s.tallies[p] = t
	}
	s.mu.Unlock()
	if err := s.hall.restore(ctx); err != nil {
		return err
	}
	if s.bench != nil {
		return s.bench.restore(ctx)
	}
	return nil
}

// member hears who comes and goes. It must not block.
func (s *Service) member(id peer.ID, joined bool) {
	p := idOf(id)
	if joined {
		if s.bench != nil {
			s.bench.seen(p)
		}
		for _, d := range s.allDesks() {
			if !d.probed(id) {
				d.push(tasks.PeerCame{Worker: p})
			}
		}
		return
	}
	for _, d := range s.allDesks() {
		d.mu.Lock()
		delete(d.probes, id)
		d.mu.Unlock()
		d.push(tasks.PeerGone{Worker: p})
	}
}

// InputsBack hears that blocks which were damaged are whole again: jobs may have
// waited for them. It must not block.
func (s *Service) InputsBack() {
	for _, d := range s.allDesks() {
		d.offer(s.self, deskEvent{ev: tasks.InputsBack{}}) // with too much waiting, time does it
	}
}

func (s *Service) allDesks() []*desk {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*desk, 0, len(s.desks))
	for _, d := range s.desks {
		out = append(out, d)
	}
	return out
}

func (s *Service) desk(id tasks.JobID) *desk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.desks[id]
}

// standing is what this node knows of a peer by its own measure.
func (s *Service) standing(id peer.ID) tasks.Standing {
	p := idOf(id)
	s.mu.Lock()
	t := s.tallies[p]
	s.mu.Unlock()
	rtt, ok := s.rtt(id)
	return tasks.Standing{RTT: rtt, Unknown: !ok, Accepted: t.Accepted, Rejected: t.Rejected, Kin: s.kin(id)}
}

// kin is what a worker may have in common with others of its owner.
func (s *Service) kin(id peer.ID) []string {
	if id == s.host.ID() {
		g, err := s.host.Token().Inspect()
		if err != nil {
			return nil
		}
		return kinOf(p2p.Member{ID: id, Grant: g, Path: p2p.PathLoopback})
	}
	m, ok := s.host.Member(id)
	if !ok {
		return nil
	}
	return kinOf(m)
}

// kinOf tells where a member is reached, to the network that its owner may have
// more addresses of, and whom of those that the root admitted it came by. Nothing
// in it is the member's own word. Of those behind relays nobody knows where they
// are: they are taken for related.
func kinOf(m p2p.Member) (out []string) {
	if m.Grant.Branch != "" {
		out = append(out, "by "+m.Grant.Branch.String())
	}
	switch m.Path {
	case p2p.PathLoopback:
		return append(out, "on this machine")
	case p2p.PathRelayed:
		return append(out, "relayed")
	}
	if m.Addr == nil {
		return out
	}
	ip, err := manet.ToIP(m.Addr)
	if err != nil {
		return out
	}
	addr, _ := netip.AddrFromSlice(ip)
	bits := 48
	if addr = addr.Unmap(); addr.Is4() {
		bits = 24
	}
	if net, err := addr.WithZone("").Prefix(bits); err == nil {
		out = append(out, "in "+net.String())
	}
	return out
}

// rtt is the round trip to a peer, measured or else predicted.
func (s *Service) rtt(id peer.ID) (time.Duration, bool) {
	if id == s.host.ID() {
		return 0, true
	}
	if d, ok := s.host.RTT(id); ok {
		return d, true
	}
	return s.host.Predict(id)
}

// rand makes a source of its own for one job or side.
func (s *Service) rand(of string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(of)) // never fails
	return rand.New(rand.NewPCG(s.cfg.Seed, h.Sum64()))
}

func (s *Service) originConfig(id tasks.JobID) tasks.OriginConfig {
	c := s.cfg.Origin
	if c.Radius == 0 {
		if c.Radius = firstRadius(s.host.Known(), s.distance, s.cfg.Kinds); c.MaxRadius > 0 {
			c.Radius = min(c.Radius, c.MaxRadius)
		}
		c.Radius = min(c.Radius, time.Second)
	}
	c.Self, c.Judge, c.Rand = s.self, verify.Decide, s.rand("origin "+string(id))
	return c
}

// apply makes a change durable for the one goroutine that is st's.
func (s *Service) apply(ctx context.Context, st *stall, c wire.Change) error {
	if c.Empty() {
		return nil
	}
	c.At = s.cfg.Now()
	return s.durably(ctx, st, func(ctx context.Context) error { return s.cfg.Store.Apply(ctx, c) })
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// crew owns the service's goroutines.
type crew struct {
	mu      sync.Mutex
	ctx     context.Context // lives as long as Run
	cancel  context.CancelCauseFunc
	running bool
	wg      sync.WaitGroup
}

func (c *crew) open(ctx context.Context, cancel context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx, c.cancel = ctx, cancel
	c.running = true
}

// spawn starts f, unless the service does not run.
func (c *crew) spawn(f func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running || c.ctx.Err() != nil {
		return false
	}
	c.wg.Add(1)
	ctx := c.ctx
	go func() {
		defer c.wg.Done()
		f(ctx)
	}()
	return true
}

// enter counts a caller in, so that Run waits for it; false when it is over.
func (c *crew) enter() (context.Context, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running || c.ctx.Err() != nil {
		return nil, false
	}
	c.wg.Add(1)
	return c.ctx, true
}

func (c *crew) leave() { c.wg.Done() }

func (c *crew) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel(err)
	}
}

func (c *crew) close() {
	c.mu.Lock()
	c.running = false
	cancel := c.cancel
	c.mu.Unlock()
	cancel(nil)
	c.wg.Wait()
}

// notReady is what peers are told before Run and after it.
func notReady() error {
	r := p2p.Refuse(p2p.CodeBusy, "not running yet, or stopping")
	r.RetryAfter = time.Second
	return r
}

// seal signs bytes as this node.
func (s *Service) seal(domain string, payload []byte) ([]byte, error) {
	b, err := s.host.Seal(domain, payload)
	if err != nil {
		return nil, fmt.Errorf("market: sign: %w", err)
	}
	return b, nil
}

// openFrom opens signed bytes that must be from's.
func openFrom(domain string, most int, b []byte, from peer.ID) ([]byte, error) {
	signer, payload, err := p2p.OpenSealed(domain, most+envelope, b)
	if err != nil {
		return nil, p2p.Refuse(p2p.CodeMalformed, "signature: %v", err)
	}
	if signer != from {
		return nil, refuse(tasks.BadReceipt, 0, "signed by another peer than the one that sent it")
	}
	return payload, nil
}

// malformed turns a decoder's error into what its sender is told.
func malformed(err error) error { return p2p.Refuse(p2p.CodeMalformed, "%v", err) }
