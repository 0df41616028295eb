package testnet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
	"github.com/kith-mesh/kith/tasks/wire"
	"github.com/kith-mesh/kith/testnet/liar"
)

// lieEnv names what a process of this test binary does as a worker: one of
// liar.Kinds, or helps, or copies. It is a whole node but for its worker.
const lieEnv = "KITHTEST_LIE"

// order is a line that a liar is told on its standard input.
type order struct {
	Do     string // bid, repeat, given, fetch
	Origin string
	Job    tasks.JobID
	Index  uint32
	Given  liar.Given
	Root   tasks.CID
	From   []string
}

// word is a line that it says on its standard output, after wordMark.
type word struct {
	Said   string // leased, judged, given, repeated, fetched, refused, fault
	Job    tasks.JobID
	Lease  tasks.LeaseID
	Tasks  []uint32
	Status tasks.VerdictStatus
	Reason tasks.Reason
	Given  liar.Given
	Count  int
	Text   string
}

const wordMark = "liar says "

// lyingNode is the process.
type lyingNode struct {
	*liar.Liar
	node *node.Node

	mu    sync.Mutex
	given map[uint32]liar.Given
}

// lie runs a node whose worker lies, as `kith up` would with the same arguments.
// It returns when its standard input ends.
func lie(kind string, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	home, listen := flags.String("home", "", ""), flags.String("listen", "", "")
	api, join := flags.String("api-listen", "", ""), flags.String("join", "", "")
	flags.Bool("while-stdin", true, "")
	flags.Bool("no-quic", true, "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	cfg := node.Config{Home: node.Home(*home), Listen: []string{*listen}, APIListen: *api, Join: *join, NoQUIC: true, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	cfg.Seams.Market, cfg.Seams.Runner = market.Config{NoWork: true}, idle{}
	n, err := node.New(ctx, cfg)
	if err != nil {
		return err
	}
	x := &lyingNode{node: n, given: map[uint32]liar.Given{}}
	switch kind {
	case "helps":
		x.Liar = liar.Helps(func(ref tasks.Ref, g liar.Given) { say(word{Said: "given", Tasks: []uint32{ref.Index}, Given: g}) })
	case "copies":
		x.Liar = liar.Copies(x.wasGiven)
	default:
		x.Liar = liar.Kinds[kind]()
	}
	x.Honest = primesOf
	does := x.Leased
	x.Leased = func(l *liar.Liar, origin peer.ID, lease tasks.Lease) bool {
		w := word{Said: "leased", Job: lease.Job, Lease: lease.ID}
		for _, a := range lease.Assignments {
			w.Tasks = append(w.Tasks, a.Task.Ref.Index)
		}
		say(w)
		return does == nil || does(l, origin, lease)
	}
	x.Judged = func(v tasks.Verdict) {
		say(word{Said: "judged", Job: v.Job, Tasks: []uint32{v.Ref.Index}, Status: v.Status, Reason: v.Reason})
	}
	x.Attach(n.Host(), n.Store(), fault)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { x.Run(ctx) })
	ended := make(chan error, 1)
	all.Go(func() { ended <- n.Run(ctx) })
	orders := bufio.NewScanner(os.Stdin)
	orders.Buffer(nil, 1<<20)
	for orders.Scan() {
		var o order
		if err := json.Unmarshal(orders.Bytes(), &o); err != nil {
			return err
		}
		if err := x.obey(ctx, o); err != nil {
			fault(fmt.Errorf("%s: %w", o.Do, err))
		}
	}
	stop()
	return errors.Join(orders.Err(), <-ended)
}

func (x *lyingNode) obey(ctx context.Context, o order) error {
	switch o.Do {
	case "bid":
		origin, err := peer.Decode(o.Origin)
		if err != nil {
			return err
		}
		return x.Bid(ctx, origin, o.Job)
	case "repeat":
		origin, err := peer.Decode(o.Origin)
		if err != nil {
			return err
		}
		said := x.Said()
		x.Do(func(ctx context.Context) {
			for range 3 {
				for _, r := range said {
					_ = x.Send(ctx, origin, r) // refused or not: what counts is what comes of it
				}
			}
			say(word{Said: "repeated", Count: len(said)})
		})
	case "given":
		x.mu.Lock()
		x.given[o.Index] = o.Given
		x.mu.Unlock()
	case "fetch":
		return x.fetch(ctx, o)
	}
	return nil
}

func (x *lyingNode) wasGiven(ref tasks.Ref) (liar.Given, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	g, ok := x.given[ref.Index]
	return g, ok
}

// fetch asks each peer for a root, with the tickets of its leases of the job and
// without, and says how often it was given it.
func (x *lyingNode) fetch(ctx context.Context, o order) error {
	root, err := cid.Decode(string(o.Root))
	if err != nil {
		return err
	}
	tickets := [][]byte{nil}
	for _, l := range x.Leases() {
		t, err := wire.MarshalTicket(wire.Ticket{Job: o.Job, Lease: l.ID})
		if err != nil {
			return err
		}
		tickets = append(tickets, t)
	}
	got, asked := 0, 0
	for _, text := range o.From {
		from, err := peer.Decode(text)
		if err != nil {
			return err
		}
		for _, t := range tickets {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := x.node.Transfer().Fetch(ctx, transfer.Want{Root: root, Length: -1, From: []peer.ID{from}, Ticket: t}, nil)
			cancel()
			if asked++; err == nil {
				got++
			} else {
				say(word{Said: "refused", Text: err.Error()})
			}
		}
	}
	say(word{Said: "fetched", Count: got, Tasks: []uint32{uint32(asked)}})
	return nil
}

var saying sync.Mutex

func say(w word) {
	b, err := json.Marshal(w)
	if err != nil {
		panic(err)
	}
	saying.Lock()
	defer saying.Unlock()
	fmt.Printf("%s%s\n", wordMark, b)
}

func fault(err error) { say(word{Said: "fault", Text: err.Error()}) }

// idle stands for the runner of a node that runs nothing.
type idle struct{}

func (idle) Run(context.Context, tasks.Execution) (tasks.Outcome, error) {
	return tasks.Outcome{}, errors.New("this node runs nothing")
}

// primesOf is what the example program primes prints for a task of such a lease.
func primesOf(l tasks.Lease, ref tasks.Ref) []byte {
	var limit uint64
	if _, err := fmt.Sscan(l.Args[0], &limit); err != nil {
		fault(err)
	}
	return primesIn(limit, uint64(ref.Index), uint64(l.Tasks))
}

func primesIn(limit, i, n uint64) []byte {
	share := func(i uint64) uint64 { return limit/n*i + min(i, limit%n) }
	from, to, count := share(i), share(i+1), 0
	for p := max(from, 2); p < to; p++ {
		prime := true
		for d := uint64(2); d*d <= p; d++ {
			prime = prime && p%d != 0
		}
		if prime {
			count++
		}
	}
	return fmt.Appendf(nil, "%d %d %d\n", from, to, count)
}

// tell gives a liar's process an order.
func (p *Process) tell(o order) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = p.stdin.(io.Writer).Write(append(b, '\n'))
	return err
}
