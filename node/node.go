package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/dht"
	"github.com/kith-mesh/kith/gossip"
	"github.com/kith-mesh/kith/node/policy"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/shape"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
	"github.com/kith-mesh/kith/tasks/runner"
)

// Node is one running kith. New opens it, Run makes it work and closes it.
type Node struct {
	cfg     Config
	log     *slog.Logger
	member  membership
	limits  policy.Limits
	started time.Time

	state    *state.State
	store    *storage.Store
	host     *p2p.Host
	dht      *dht.Service
	gossip   *gossip.Service
	transfer *transfer.Service
	data     *jobData
	runner   *runner.Runner // nil when light, or in a simulation
	market   *market.Service
	api      *api.Server // nil in a simulation
	events   *events
	metrics  *prometheus.Registry

	closers []func() error // in the order of opening
	once    sync.Once
	asked   context.Context // ends when Stop is called
	ask     context.CancelFunc
	served  chan struct{} // closed when the home says where the API is
	ready   chan struct{} // closed when all services are up

	changing  sync.Mutex // held while the policy changes
	enforcing sync.Mutex // held while it is told

	began   time.Time     // started, on the monotonic clock
	mender  *mender       // of damaged blocks
	crowded chan struct{} // holds one token when there is too little room

	mu      sync.Mutex
	full    bool // as room said last
	policy  policy.Policy
	revoked map[peer.ID]bool
}

// New opens the home and wires the node. It joins the mesh that the config
// names if the home belongs to none, which may take until ctx ends. The node
// neither listens nor works before Run. A node that is not Run must be Closed.
func New(ctx context.Context, cfg Config) (_ *Node, err error) {
	cfg = cfg.fill()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log, started: cfg.Now(), began: time.Now(), served: make(chan struct{}), ready: make(chan struct{}), crowded: make(chan struct{}, 1), mender: newMender(), metrics: prometheus.NewRegistry(), revoked: map[peer.ID]bool{}}
	n.asked, n.ask = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := n.openHome(ctx); err != nil {
		return nil, err
	}
	if err := n.openData(ctx); err != nil {
		return nil, err
	}
	if err := n.openNetwork(); err != nil {
		return nil, err
	}
	if err := n.openWork(); err != nil {
		return nil, err
	}
	return n, n.openAPI()
}

// openHome takes the home and the membership it holds, joining first if need be.
func (n *Node) openHome(ctx context.Context) error {
	s := n.cfg.Seams
	if s.Key != nil {
		return n.simulatedMember(s)
	}
	if err := n.cfg.Home.prepare(); err != nil {
		return err
	}
	release, err := n.cfg.Home.lock(ctx)
	if err != nil {
		return err
	}
	n.closers = append(n.closers, release)
	if err := n.ensureMember(ctx); err != nil {
		return err
	}
	n.member, err = loadMembership(n.cfg.Home, n.cfg.Now())
	return err
}

// openData opens the one database and the block store.
func (n *Node) openData(ctx context.Context) (err error) {
	n.state = n.cfg.Seams.State
	if n.state == nil {
		if n.state, err = state.Open(n.cfg.Home.Database()); err != nil {
			return err
		}
		n.closers = append(n.closers, n.state.Close)
	}
	keep := storage.Config{Dir: n.cfg.Home.Blocks(), DB: n.state.DB(), Commit: n.state.Join, Now: n.cfg.Now, Log: n.log.With("part", "storage"), OnDamage: n.mender.hear, OnRepair: n.mender.hearRepair}
	if around := n.cfg.Seams.Around; around != nil {
		n.state.Around = func(c state.Commit, do func() error) error { return around(string(c), do) }
		keep.Around = func(c storage.Commit, do func() error) error { return around(string(c), do) }
	}
	if n.policy, err = n.loadPolicy(ctx); err != nil {
		return err
	}
	m, err := n.machine()
	if err != nil {
		return err
	}
	if n.limits, err = n.policy.Limits(m); err != nil {
		return ofKind{fmt.Errorf("node: what the device gives: %w", err), ErrConfig}
	}
	if err := n.loadRevoked(ctx); err != nil {
		return err
	}
	n.store = n.cfg.Seams.Blocks
	if n.store == nil {
		keep.MaxBytes = n.limits.Disk
		if n.store, err = storage.Open(keep); err != nil {
			return err
		}
		n.closers = append(n.closers, n.store.Close)
	}
	return nil
}

// openNetwork makes the host and what speaks through it.
func (n *Node) openNetwork() (err error) {
	c := p2p.Config{}
	if n.cfg.Seams.Network != nil {
		c = *n.cfg.Seams.Network
	} else {
		if c.Listen, err = n.cfg.listenAddrs(); err != nil {
			return err
		}
		c.NoQUIC, c.Home, c.Registerer = n.cfg.NoQUIC, string(n.cfg.Home), n.metrics
		c.Bootstrap, c.Root, c.OnToken = n.cfg.bootstrap, n.member.root, n.keepToken
		if n.cfg.Loopback {
			c.Local = p2p.LocalAlways
		}
		if len(n.cfg.Delays) > 0 {
			c.Dialer = shape.Dialer(n.cfg.Delays)
		}
	}
	c.Key, c.Mesh, c.Token, c.Charter = n.member.key, n.member.mesh, n.member.token, n.member.charter
	c.Agent, c.Now, c.Log = "kith/"+Version(), n.cfg.Now, n.log.With("part", "p2p")
	c.Redeemer = state.Redeemer{State: n.state, Now: n.cfg.Now}
	c.Revoked = n.isRevoked
	if n.host, err = p2p.New(c); err != nil {
		return err
	}
	n.closers = append(n.closers, n.host.Close)
	n.host.SetCapacity(n.capacity())
	simulated := n.cfg.Seams.Network != nil
	if n.dht, err = dht.New(n.host, dht.Config{Simulated: simulated, Warm: n.cfg.Seams.Warm, Revoked: n.isRevoked, Now: n.cfg.Now, Log: n.log.With("part", "dht")}); err != nil {
		return err
	}
	g := n.cfg.Seams.Gossip
	g.Now, g.Log = n.cfg.Now, n.log.With("part", "gossip")
	t := transfer.Config{Providers: n.dht, Check: n.checkTicket, Bitswap: !simulated, Now: n.cfg.Now, Log: n.log.With("part", "transfer")}
	if !simulated {
		g.Registerer, t.Registerer = n.metrics, n.metrics
	}
	if n.gossip, err = gossip.New(n.host, g); err != nil {
		return err
	}
	n.transfer, err = transfer.New(n.host, n.store, t)
	return err
}

// checkTicket asks the market whether a peer may have a job's root.
func (n *Node) checkTicket(ctx context.Context, from peer.ID, root cid.Cid, ticket []byte) error {
	return n.market.CheckTicket(ctx, from, tasks.CID(root.String()), ticket)
}

// openWork makes the runner and the market.
func (n *Node) openWork() (err error) {
	c := n.cfg.Seams.Market
	n.data = &jobData{store: n.store, transfer: n.transfer}
	data := n.data
	c.Host, c.Store, c.Data, c.Publisher = n.host, n.state, data, n.gossip
	c.Light, c.Limits = n.cfg.Light, n.workLimits()
	c.Runner = n.cfg.Seams.Runner
	c.Full, c.Room = isFull, n.room
	c.Now, c.Log = n.cfg.Now, n.log.With("part", "market")
	if n.cfg.Seams.Network == nil {
		c.Registerer = n.metrics
	}
	if c.Runner == nil && !n.cfg.Light {
		scratch := n.cfg.Home.Scratch()
		work := filepath.Join(scratch, "tasks")
		if err := emptyDir(work); err != nil {
			return fmt.Errorf("node: clear scratch: %w", err)
		}
		n.runner, err = runner.New(runner.Config{
			Exe: n.cfg.Exe, CacheDir: n.cfg.Home.Cache(), Scratch: filepath.Join(scratch, "runner"),
			Slots: n.limits.Slots, CPU: n.limits.Cores, Log: n.log.With("part", "runner"),
		})
		if err != nil {
			return err
		}
		exec := &executor{store: n.store, runner: n.runner, scratch: work}
		data.workOver = exec.workOver
		c.Runner, c.Version = exec, runner.Version()
	}
	if n.market, err = market.New(c); err != nil {
		return err
	}
	n.gossip.OnOffer(func(_ context.Context, o gossip.Offered) { n.market.OnOffer(o.Origin, o.Payload) })
	n.gossip.OnJob(func(_ context.Context, from peer.ID, payload []byte) { n.market.OnJob(from, payload) })
	n.events = newEvents(n.market, n.cfg.Now)
	n.host.OnMember(n.events.member)
	return nil
}

// openAPI makes the local API's server and binds its address.
func (n *Node) openAPI() error {
	if n.cfg.Seams.Network != nil {
		return nil
	}
	n.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	token, err := n.cfg.Home.LoadAPIToken()
	if err != nil {
		return err
	}
	uploads := filepath.Join(n.cfg.Home.Scratch(), "uploads")
	if err := emptyDir(uploads); err != nil {
		return fmt.Errorf("node: clear scratch: %w", err)
	}
	data := &dataBackend{store: n.store, transfer: n.transfer, scratch: uploads, now: n.cfg.Now, settling: n.settling, connect: n.host.Connect}
	jobs := &jobsBackend{n: n}
	b := api.Backend{
		Node: n, Peers: n, Invites: n, Data: data, Uploads: data, Pins: data, Archive: data,
		Submit: jobs, Jobs: jobs, Results: jobs, Policy: n, Doctor: n, Events: n.events, Stop: n,
	}
	n.api, err = api.New(api.Config{
		Backend: b, Token: token, Listen: n.cfg.APIListen, Hosts: n.cfg.APIHosts, Version: Version(),
		Gatherer: n.metrics, Registerer: n.metrics, Log: n.log.With("part", "api"),
	})
	return err
}

// Run works until ctx ends, then stops everything in the opposite order of its
// start and closes the node. It can run once.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.Close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(n.asked, stop)
	services := []service{{name: "p2p", run: n.host.Run, up: n.host.Ready()}}
	if n.runner != nil {
		services = append(services, service{name: "runner", run: n.runner.Serve})
	}
	services = append(services,
		service{name: "dht", run: n.dht.Run},
		service{name: "gossip", run: n.gossip.Run},
		service{name: "transfer", run: n.transfer.Run},
		service{name: "events", run: n.events.run},
		service{name: "market", run: n.market.Run},
		service{name: "housekeeping", run: n.keepHouse},
		service{name: "mend", run: n.mend},
		service{name: "repairs", run: n.tellRepairs},
	)
	if n.api != nil {
		services = append(services, service{name: "api", run: n.serveAPI, up: n.served})
	}
	return runAll(ctx, services, n.up)
}

// Stop makes Run end, as if its context had.
func (n *Node) Stop(context.Context) error {
	n.ask()
	return nil
}

// Up is closed when all services are up.
func (n *Node) Up() <-chan struct{} { return n.ready }

// Close releases what New opened. Run does so by itself.
func (n *Node) Close() (err error) {
	n.once.Do(func() {
		for i := len(n.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, n.closers[i]())
		}
	})
	return err
}

// Host and what follows are for simulations, which look inside.
func (n *Node) Host() *p2p.Host         { return n.host }
func (n *Node) Market() *market.Service { return n.market }
func (n *Node) Store() *storage.Store   { return n.store }
func (n *Node) Transfer() *transfer.Service {
	return n.transfer
}
func (n *Node) Gossip() *gossip.Service { return n.gossip }
func (n *Node) DHT() *dht.Service       { return n.dht }
func (n *Node) kinds() []string {
	if n.cfg.Light {
		return nil
	}
	return []string{string(tasks.KindWasm)}
}
