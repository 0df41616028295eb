package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/memnet"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
)

// Node is one node of a mesh: what stays while it is down, and the node while it
// is up.
type Node struct {
	*node.Node // nil while down

	Index  int
	ID     peer.ID
	Addr   netip.Addr
	Blocks *storage.Store
	Sent   *Messages // by protocol, over all its lives

	m       *Mesh
	key     crypto.PrivKey
	state   *state.State
	runner  *runner
	uploads []cid.Cid // that Add keeps
	stop    context.CancelFunc
	ended   chan struct{} // of the life before or now
}

func newNode(m *Mesh, i int) *Node {
	m.t.Helper()
	n := &Node{Index: i, Addr: memnet.IP(i), Sent: &Messages{}, m: m, key: m.key(i)}
	var err error
	if n.ID, err = peer.IDFromPrivateKey(n.key); err != nil {
		m.t.Fatal(err)
	}
	m.index[tasks.PeerID(n.ID.String())] = i
	at, blocks := state.Memory, ""
	if m.cfg.Dir != "" {
		home := filepath.Join(m.cfg.Dir, fmt.Sprint("node", i))
		if err := os.MkdirAll(home, 0o700); err != nil {
			m.t.Fatal(err)
		}
		at, blocks = filepath.Join(home, "kith.db"), filepath.Join(home, "blocks")
	}
	if n.state, err = state.Open(at); err != nil {
		m.t.Fatal(err)
	}
	if n.Blocks, err = storage.Open(storage.Config{Dir: blocks, DB: n.state.DB(), Commit: n.state.Join}); err != nil {
		m.t.Fatal(err)
	}
	n.runner = &runner{node: n}
	return n
}

func network(n *Node, bootstrap []peer.AddrInfo) *p2p.Config {
	return &p2p.Config{
		Simulated: true, Bootstrap: bootstrap, Seed: n.m.cfg.Seed*1000 + uint64(n.Index) + 1,
		Listen:  []ma.Multiaddr{memnet.Listen(n.Addr)},
		Options: p2p.SimulatedOptions(n.m.Net.Transport(n.Addr), n.Sent),
	}
}

// Start brings a node up, with what it had if it was up before.
func (n *Node) Start() {
	m := n.m
	m.t.Helper()
	if n.Node != nil {
		m.t.Fatalf("node %d is up already", n.Index)
	}
	if n.ended != nil {
		<-n.ended
	}
	nd, err := node.New(m.background(), m.config(n))
	if err != nil {
		m.t.Fatalf("node %d: %v", n.Index, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.background()))
	if l := m.cfg.Liars[n.Index]; l != nil {
		l.Attach(nd.Host(), n.Blocks, func(err error) { m.t.Error(err) })
		m.halts.Go(func() { l.Run(ctx) })
	}
	ended := make(chan struct{})
	n.Node, n.stop, n.ended = nd, cancel, ended
	failed := make(chan error, 1)
	go func() {
		defer close(ended)
		if err := nd.Run(ctx); err != nil {
			m.t.Errorf("node %d: %v", n.Index, err)
			failed <- err
		}
	}()
	select {
	case <-nd.Up():
	case err := <-failed:
		m.t.Fatalf("node %d: %v", n.Index, err)
	}
}

// State is the node's database.
func (n *Node) State() *state.State { return n.state }

// Stop takes a node down as Ctrl-C does, and returns when it is down.
func (n *Node) Stop() {
	n.halt()
	<-n.ended
}

// Kill takes a node down as a power cut does: its peers find out by silence.
func (n *Node) Kill() {
	n.m.Net.Kill(n.Addr)
	n.halt()
}

// Crash takes a node down as SIGKILL does: its peers see resets.
func (n *Node) Crash() {
	n.m.Net.Crash(n.Addr)
	n.halt()
}

// halt ends the node in the background: the others' time goes on meanwhile.
func (n *Node) halt() {
	n.m.t.Helper()
	if n.Node == nil {
		n.m.t.Fatalf("node %d is down already", n.Index)
	}
	n.Node = nil
	n.stop()
	ended := n.ended
	n.m.halts.Go(func() { <-ended })
}

func (n *Node) closeData() {
	if err := n.Blocks.Close(); err != nil {
		n.m.t.Error(err)
	}
	if err := n.state.Close(); err != nil {
		n.m.t.Error(err)
	}
}

// Add stores a file that jobs of this node use.
func (n *Node) Add(data []byte) tasks.CID {
	n.m.t.Helper()
	root, err := n.Blocks.AddBytes(n.m.background(), data, storage.AddOptions{Audience: storage.Job, Owner: "upload"})
	if err != nil {
		n.m.t.Fatal(err)
	}
	n.uploads = append(n.uploads, root.CID)
	return tasks.CID(root.CID.String())
}

// LetUploadsGo ends what Add keeps: on a real node, an upload's pin ends by itself.
func (n *Node) LetUploadsGo() {
	n.m.t.Helper()
	for _, c := range n.uploads {
		if err := n.Blocks.Unpin(n.m.background(), c, "upload"); err != nil && !errors.Is(err, storage.ErrNotFound) {
			n.m.t.Fatal(err)
		}
	}
	n.uploads = nil
}

// Submit hands a job to this node.
func (n *Node) Submit(spec tasks.Spec) tasks.JobID {
	n.m.t.Helper()
	id, err := n.Market().Submit(n.m.background(), spec)
	if err != nil {
		n.m.t.Fatalf("submit on node %d: %v", n.Index, err)
	}
	return id
}

// Publish puts a job on the jobs topic for others to adopt; they fetch what it
// names from this node.
func (n *Node) Publish(spec tasks.Spec) tasks.JobID {
	n.m.t.Helper()
	id, err := n.Market().Publish(n.m.background(), spec, nil, []tasks.PeerID{tasks.PeerID(n.ID.String())})
	if err != nil {
		n.m.t.Fatalf("publish on node %d: %v", n.Index, err)
	}
	return id
}

// Await waits until a job of this node is over. It fails the test after a while,
// with what the job waits for.
func (n *Node) Await(id tasks.JobID, within time.Duration) market.JobView {
	n.m.t.Helper()
	ctx, cancel := context.WithTimeout(n.m.background(), within)
	defer cancel()
	v, err := n.Market().Wait(ctx, id)
	if err != nil {
		now := n.Job(id)
		n.m.t.Fatalf("job on node %d not over after %v: %v; %+v; waits: %+v", n.Index, within, err, now.Status, now.Why)
	}
	return v
}

// Job is a job of this node as it stands.
func (n *Node) Job(id tasks.JobID) market.JobView {
	n.m.t.Helper()
	v, err := n.Market().Job(n.m.background(), id)
	if err != nil {
		n.m.t.Fatal(err)
	}
	return v
}

// Output reads a finished job's output, which must be one file.
func (n *Node) Output(v market.JobView) string {
	n.m.t.Helper()
	if v.Status.State != tasks.Done {
		n.m.t.Fatalf("the job is %v: %v %s", v.Status.State, v.Status.Reason, v.Status.Detail)
	}
	return n.Read(v.Status.Output)
}

// Read reads a file that this node holds.
func (n *Node) Read(c tasks.CID) string {
	n.m.t.Helper()
	root, err := cid.Decode(string(c))
	if err != nil {
		n.m.t.Fatalf("output %q: %v", c, err)
	}
	r, err := n.Blocks.Open(n.m.background(), root, "", 0, -1)
	if err != nil {
		n.m.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		n.m.t.Fatal(err)
	}
	return string(b)
}

// Attempts are a finished or running job's assignments, by task.
func (n *Node) Attempts(id tasks.JobID, stage tasks.Stage) (all []tasks.TaskStatus) {
	n.m.t.Helper()
	ts, err := n.Market().Tasks(n.m.background(), id, stage, 0, 1<<20)
	if err != nil {
		n.m.t.Fatal(err)
	}
	return ts
}
