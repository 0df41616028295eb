package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Host is this node's end of its mesh. New makes it, Handle and HandleStream
// are called next, then Run. All its methods are safe for concurrent use.
type Host struct {
	cfg     Config
	id      peer.ID
	log     *slog.Logger
	raw     host.Host
	gated   *gatedHost
	protos  *registry
	gate    *gate
	book    *book
	caller  *caller
	near    *neighbourhood
	net     *netView
	reach   *reach
	metrics *hostMetrics

	own      atomic.Pointer[ownToken]
	capacity atomic.Pointer[Capacity]

	tasks group
	began atomic.Bool
	ready chan struct{}
}

// ownToken is this node's token and what it gives.
type ownToken struct {
	token auth.Token
	grant auth.Grant
}

// New makes a host that neither listens nor dials: libp2p's own goroutines are
// all that runs. Follow it with Run, or with Close.
func New(cfg Config) (*Host, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	if cfg.Seed == 0 {
		cfg.Seed = seedOf(id)
	}
	h := &Host{cfg: cfg, id: id, log: cfg.Log, ready: make(chan struct{})}
	h.tasks.ctx, h.tasks.cancel = context.WithCancel(context.Background())
	grant, err := cfg.Token.Inspect()
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	h.own.Store(&ownToken{cfg.Token, grant})
	h.capacity.Store(&Capacity{})
	h.metrics = newMetrics(cfg.Registerer, h)
	h.protos = newRegistry(cfg.Mesh)
	h.net = newNetView(cfg)
	h.book = newBook(h)
	h.gate = newGate(h)
	h.caller = newCaller(h)
	opts, err := h.libp2pOptions()
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	if h.raw, err = libp2p.New(opts...); err != nil {
		return nil, fmt.Errorf("p2p: make libp2p host: %w", err)
	}
	h.gated = &gatedHost{Host: h.raw, h: h}
	h.reach = newReach(h)
	h.gate.start()
	h.serveHello()
	h.serveJoin()
	h.near = newNeighbourhood(h, cfg.Neighbourhood)
	return h, nil
}

// Run listens, joins the mesh through what it knows, and blocks until ctx ends
// and everything that the host started has stopped.
func (h *Host) Run(ctx context.Context) error {
	if !h.began.CompareAndSwap(false, true) {
		return errors.New("p2p: Run was called twice")
	}
	defer h.shut()
	if err := h.listen(); err != nil {
		return err
	}
	if err := h.loadCache(); err != nil {
		h.log.Warn("peer cache not read", "err", err)
	}
	h.tasks.spawn(h.gate.deliver)
	h.tasks.spawn(h.keep)
	if !h.cfg.Simulated {
		h.tasks.spawn(h.reach.run)
		h.tasks.spawn(h.advertise)
	}
	h.tasks.spawn(h.near.run)
	close(h.ready)
	<-ctx.Done()
	h.saveCache()
	return nil
}

// listen fails when a port is taken. Other addresses may fail as long as one
// works: a machine may lack IPv6.
func (h *Host) listen() error {
	if len(h.cfg.Listen) == 0 {
		return nil
	}
	if !h.cfg.Simulated {
		if err := portsFree(h.cfg.Listen); err != nil {
			return fmt.Errorf("p2p: %w", err)
		}
	}
	if err := h.raw.Network().Listen(h.cfg.Listen...); err != nil {
		return fmt.Errorf("p2p: listen on %v: %w", h.cfg.Listen, err)
	}
	if got := len(slices.DeleteFunc(h.raw.Network().ListenAddresses(), isRelayed)); got < len(h.cfg.Listen) {
		h.log.Warn("some addresses are not listened on", "wanted", len(h.cfg.Listen), "got", got)
	}
	return nil
}

// portsFree looks for what libp2p can't see: it shares TCP ports with whoever
// else of this user listens there, and connections would go to either.
func portsFree(addrs []ma.Multiaddr) error {
	for _, a := range addrs {
		network, address, err := manet.DialArgs(a)
		if err != nil || !strings.HasPrefix(network, "tcp") || strings.HasSuffix(address, ":0") {
			continue
		}
		l, err := net.Listen(network, address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("listen on %s: the port is taken: stop the other program (another kith?) or choose another port: %w", a, err)
		}
		if err == nil {
			if err := l.Close(); err != nil {
				return fmt.Errorf("listen on %s: %w", a, err)
			}
		}
	}
	return nil
}

// Close releases a host that was never Run.
func (h *Host) Close() error {
	if !h.began.CompareAndSwap(false, true) {
		return nil
	}
	h.shut()
	return nil
}

func (h *Host) shut() {
	h.tasks.cancel()
	h.reach.close()
	if err := h.raw.Close(); err != nil {
		h.log.Warn("libp2p host did not close cleanly", "err", err)
	}
	h.tasks.wait()
	h.metrics.close()
}

// Ready is closed when the host listens.
func (h *Host) Ready() <-chan struct{} { return h.ready }

// ID is this node's peer ID.
func (h *Host) ID() peer.ID { return h.id }

// Mesh is the mesh this node is a member of.
func (h *Host) Mesh() auth.MeshID { return h.cfg.Mesh }

// Token is this node's member token, renewed as time goes by.
func (h *Host) Token() auth.Token { return h.own.Load().token }

// Grant is what this node's own token gives it.
func (h *Host) Grant() auth.Grant { return h.own.Load().grant }

// Gated is the host to give to packages that speak libp2p themselves (pubsub,
// the DHT, bitswap): its handlers and NewStream wait for hello, at most
// StrangerTime, and serve strangers only what Strangers allows.
func (h *Host) Gated() host.Host { return h.gated }

// Raw is the ungated libp2p host, for wiring alone.
func (h *Host) Raw() host.Host { return h.raw }

// SetCapacity says what this node offers. Peers hear of it in hello and in the
// neighbourhood's exchange.
func (h *Host) SetCapacity(c Capacity) { h.capacity.Store(&c) }

// Capacity is what SetCapacity last said.
func (h *Host) Capacity() Capacity { return *h.capacity.Load() }

// Protocols lists what this host serves and calls, by wire name.
func (h *Host) Protocols() map[string]Protocol { return h.protos.all() }

// group owns goroutines: spawn refuses when it is shut, wait returns when all
// have ended.
type group struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	shut   bool
	wg     sync.WaitGroup
}

// enter counts one more, unless the group is shut.
func (g *group) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut || g.ctx.Err() != nil {
		return false
	}
	g.wg.Add(1)
	return true
}

func (g *group) leave() { g.wg.Done() }

func (g *group) spawn(f func(context.Context)) bool {
	if !g.enter() {
		return false
	}
	go func() {
		defer g.leave()
		f(g.ctx)
	}()
	return true
}

func (g *group) wait() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	g.wg.Wait()
}

func (h *Host) now() time.Time { return h.cfg.Now() }
