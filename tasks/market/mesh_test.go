package market

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"

	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/memnet"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// mesh is nodes with hosts over memnet in virtual time, a store each, and data
// and runners that live in this process.
type mesh struct {
	t     testing.TB
	net   *memnet.Network
	root  crypto.PrivKey
	id    auth.MeshID
	mu    sync.Mutex
	nodes map[peer.ID]*node
	all   []*node
	cfg   func(i int, c *Config)
}

type node struct {
	m      *mesh
	i      int
	key    crypto.PrivKey
	id     peer.ID
	rights auth.Rights
	host   *p2p.Host
	svc    *Service
	store  *state.State
	data   *memData
	runner *testRunner
	stop   context.CancelFunc
	wg     sync.WaitGroup
	up     bool
}

func inMesh(t *testing.T, n int, cfg func(i int, c *Config), f func(m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, cfg)
		defer func() {
			m.close()
			time.Sleep(time.Minute) // what libp2p has left ends
			synctest.Wait()
		}()
		for i := range n {
			m.add(i, auth.AllRights)
		}
		time.Sleep(5 * time.Second)
		f(m)
	})
}

func seeded(b byte) crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{b, 7}, 64)))
	if err != nil {
		panic(err)
	}
	return key
}

func newMesh(t testing.TB, cfg func(i int, c *Config)) *mesh {
	t.Helper()
	m := &mesh{t: t, root: seeded(255), nodes: map[peer.ID]*node{}, cfg: cfg}
	var err error
	if m.id, err = auth.MeshOf(m.root.GetPublic()); err != nil {
		t.Fatal(err)
	}
	m.net = memnet.New(memnet.Config{Silence: 10 * time.Second, Latency: func(a, b netip.Addr) time.Duration { return 10 * time.Millisecond }})
	return m
}

// add makes a node and starts it.
func (m *mesh) add(i int, rights auth.Rights) *node {
	m.t.Helper()
	n := &node{m: m, i: i, key: seeded(byte(i)), rights: rights, data: newMemData()}
	var err error
	if n.id, err = peer.IDFromPrivateKey(n.key); err != nil {
		m.t.Fatal(err)
	}
	if n.store, err = state.Open(state.Memory); err != nil {
		m.t.Fatal(err)
	}
	n.runner = &testRunner{data: n.data}
	n.data.n = n
	m.all = append(m.all, n)
	m.mu.Lock()
	m.nodes[n.id] = n
	m.mu.Unlock()
	n.start()
	return n
}

func (n *node) start() {
	m := n.m
	m.t.Helper()
	token, err := auth.Mint(m.root, auth.Subject{Peer: n.id, Rights: n.rights, Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		m.t.Fatal(err)
	}
	var bootstrap []peer.AddrInfo
	for _, o := range m.all {
		if o != n {
			bootstrap = append(bootstrap, peer.AddrInfo{ID: o.id, Addrs: []ma.Multiaddr{memnet.Listen(memnet.IP(o.i))}})
		}
	}
	n.host, err = p2p.New(p2p.Config{
		Key: n.key, Mesh: m.id, Token: token, Simulated: true, Bootstrap: bootstrap, Seed: uint64(n.i + 1), Log: testLog(n.i),
		Listen:  []ma.Multiaddr{memnet.Listen(memnet.IP(n.i))},
		Options: []libp2p.Option{libp2p.Transport(m.net.Transport(memnet.IP(n.i))), libp2p.NoSecurity},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	cfg := Config{Host: n.host, Store: n.store, Data: n.data, Runner: n.runner, Publisher: fanout{n}, Seed: uint64(n.i + 1),
		Version: "test/1", Log: testLog(n.i), Limits: tasks.SetLimits{Slots: 2}}
	if m.cfg != nil {
		m.cfg(n.i, &cfg)
	}
	svc, err := New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.mu.Lock()
	n.svc, n.stop, n.up = svc, cancel, true
	m.mu.Unlock()
	n.wg.Go(func() {
		if err := n.host.Run(ctx); err != nil {
			m.t.Errorf("host %d: %v", n.i, err)
		}
	})
	n.wg.Go(func() {
		if err := svc.Run(ctx); err != nil {
			m.t.Errorf("market %d: %v", n.i, err)
		}
	})
}

// halt stops a node; its store and its data stay.
func (n *node) halt() {
	n.m.mu.Lock()
	up := n.up
	n.up = false
	n.m.mu.Unlock()
	if up {
		n.stop()
		n.wg.Wait()
	}
}

// crash stops a node as a killed process does: nobody is told.
func (n *node) crash() {
	n.m.net.Kill(memnet.IP(n.i))
	n.halt()
}

func (m *mesh) close() {
	for _, n := range m.all {
		n.halt()
		if err := n.store.Close(); err != nil {
			m.t.Error(err)
		}
	}
	if err := m.net.Close(); err != nil {
		m.t.Error(err)
	}
}

func testLog(i int) *slog.Logger {
	if os.Getenv("KITH_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", i)
}

// fanout is gossip that reaches every node that is up, at once.
type fanout struct{ n *node }

func (f fanout) each(do func(s *Service)) {
	m := f.n.m
	m.mu.Lock()
	var to []*Service
	for _, o := range m.all {
		if o != f.n && o.up {
			to = append(to, o.svc)
		}
	}
	m.mu.Unlock()
	for _, s := range to {
		do(s)
	}
}

func (f fanout) PublishOffer(_ context.Context, b []byte, _, _ time.Duration) error {
	f.each(func(s *Service) { s.OnOffer(f.n.id, b) })
	return nil
}

func (f fanout) PublishJob(_ context.Context, b []byte) error {
	f.each(func(s *Service) { s.OnJob(f.n.id, b) })
	return nil
}

// cidOf is the CID of a file of one block.
func cidOf(b []byte) tasks.CID {
	sum, err := mh.Sum(b, mh.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return tasks.CID(cid.NewCidV1(cid.Raw, sum).String())
}

// memData is a node's data. Fetching asks another node as storage/transfer
// would, ticket included.
type memData struct {
	n       *node
	mu      sync.Mutex
	files   map[tasks.CID][]byte
	kept    map[tasks.JobID][]tasks.CID
	fetches int // calls of Fetch
	fetched int // that brought something
	commits int // of PutAll
	work    map[tasks.JobID]map[tasks.CID]bool
	tickets [][]byte
}

func newMemData() *memData {
	return &memData{files: map[tasks.CID][]byte{}, kept: map[tasks.JobID][]tasks.CID{}, work: map[tasks.JobID]map[tasks.CID]bool{}}
}

func (d *memData) put(b []byte) tasks.CID {
	c := cidOf(b)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[c] = b
	return c
}

func (d *memData) get(c tasks.CID) ([]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.files[c]
	return b, ok
}

func (d *memData) Fetch(ctx context.Context, span tasks.Span, from []peer.ID, ticket []byte) error {
	d.mu.Lock()
	d.fetches++
	d.mu.Unlock()
	if b, ok := d.get(span.Root); ok {
		if span.Length >= 0 && span.Offset+span.Length > int64(len(b)) {
			return ErrBadSpan
		}
		return nil
	}
	err := errors.New("nobody was asked")
	for _, p := range from {
		var b []byte
		if b, err = d.ask(ctx, p, span.Root, ticket); err == nil {
			d.mu.Lock()
			d.files[span.Root] = b
			d.fetched++
			d.mu.Unlock()
			return nil
		}
	}
	return fmt.Errorf("fetch %s: %w", span.Root, err)
}

func (d *memData) ask(ctx context.Context, p peer.ID, c tasks.CID, ticket []byte) ([]byte, error) {
	m := d.n.m
	m.mu.Lock()
	o := m.nodes[p]
	up := o != nil && o.up
	m.mu.Unlock()
	if !sleep(ctx, 20*time.Millisecond) {
		return nil, ctx.Err()
	}
	if !up {
		return nil, errors.New("peer is down")
	}
	d.mu.Lock()
	d.tickets = append(d.tickets, ticket)
	d.mu.Unlock()
	if err := o.svc.CheckTicket(ctx, d.n.id, c, ticket); err != nil {
		return nil, err
	}
	b, ok := o.data.get(c)
	if !ok {
		return nil, errors.New("not there")
	}
	return b, nil
}

func (d *memData) Cached(_ context.Context, root tasks.CID) bool { _, ok := d.get(root); return ok }

func (d *memData) Files(_ context.Context, root tasks.CID) ([]tasks.File, error) {
	b, ok := d.get(root)
	if !ok {
		return nil, errors.New("not here")
	}
	return []tasks.File{{Size: int64(len(b))}}, nil
}

func (d *memData) Open(_ context.Context, s tasks.Span) (io.ReadCloser, error) {
	b, ok := d.get(s.Root)
	if !ok {
		return nil, fmt.Errorf("%s is not here", s.Root)
	}
	end := int64(len(b))
	if s.Length >= 0 {
		end = s.Offset + s.Length
	}
	if end > int64(len(b)) {
		return nil, ErrBadSpan
	}
	return io.NopCloser(bytes.NewReader(b[s.Offset:end])), nil
}

func (d *memData) Hold(ctx context.Context, h HoldRequest) (Held, error) {
	b := h.Inline
	if b == nil {
		var ok bool
		if b, ok = d.get(h.Output); !ok {
			var err error
			if b, err = d.ask(ctx, h.From, h.Output, h.Ticket); err != nil {
				return Held{}, fmt.Errorf("%w: %w", ErrBadOutput, err)
			}
		}
	}
	if cidOf(b) != h.Output {
		return Held{}, ErrBadOutput
	}
	d.put(b)
	return Held{Output: h.Output, Size: int64(len(b))}, d.Keep(ctx, h.Job, h.Output)
}

func (d *memData) Keep(_ context.Context, job tasks.JobID, root tasks.CID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept[job] = append(d.kept[job], root)
	return nil
}

func (d *memData) PutAll(ctx context.Context, job tasks.JobID, files []wire.Blob) []error {
	errs := make([]error, len(files))
	d.mu.Lock()
	d.commits++
	d.mu.Unlock()
	for i, f := range files {
		if cidOf(f.Data) != f.CID {
			errs[i] = ErrBadOutput
			continue
		}
		errs[i] = d.Keep(ctx, job, d.put(f.Data))
	}
	return errs
}

func (d *memData) KeepWork(_ context.Context, job tasks.JobID, files []wire.Blob) error {
	for _, f := range files {
		d.put(f.Data)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.work[job] == nil {
		d.work[job] = map[tasks.CID]bool{}
	}
	for _, f := range files {
		d.work[job][f.CID] = true
	}
	return nil
}

func (d *memData) Assemble(ctx context.Context, job tasks.JobID, _ tasks.Stage, outputs []tasks.CID) (Held, error) {
	var all []byte
	for _, o := range outputs {
		b, ok := d.get(o)
		if !ok {
			return Held{}, fmt.Errorf("output %s is not here", o)
		}
		all = append(all, b...)
	}
	c := d.put(all)
	return Held{Output: c, Size: int64(len(all))}, d.Keep(ctx, job, c)
}

func (d *memData) Release(_ context.Context, job tasks.JobID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kept, job)
	return nil
}

func (d *memData) ReleaseWork(_ context.Context, job tasks.JobID, outputs ...tasks.CID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range outputs {
		delete(d.work[job], c)
	}
	if len(outputs) == 0 {
		delete(d.work, job)
	}
	return nil
}

// works lists what is kept of the work on a job.
func (d *memData) works(job tasks.JobID) []tasks.CID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.work[job]))
}

// testRunner upper-cases its stdin, or writes its number when that is empty.
type testRunner struct {
	data *memData

	mu   sync.Mutex
	ran  []tasks.Ref
	took time.Duration                                          // of each task; 100 ms
	lie  func(x tasks.Execution, o tasks.Outcome) tasks.Outcome // what it says instead
	fail error
	big  bool // outputs do not travel inline
}

func (r *testRunner) Run(ctx context.Context, x tasks.Execution) (tasks.Outcome, error) {
	r.mu.Lock()
	r.ran = append(r.ran, x.Ref)
	took, lie, fail, big := r.took, r.lie, r.fail, r.big
	r.mu.Unlock()
	if took == 0 {
		took = 100 * time.Millisecond
	}
	if !sleep(ctx, took) {
		return tasks.Outcome{}, ctx.Err()
	}
	if fail != nil {
		return tasks.Outcome{}, fail
	}
	if _, ok := r.data.get(x.Program); !ok {
		return tasks.Outcome{}, errors.New("program is not here")
	}
	var out []byte
	for _, s := range x.Stdin {
		f, err := r.data.Open(ctx, s)
		if err != nil {
			return tasks.Outcome{}, err
		}
		b, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return tasks.Outcome{}, err
		}
		out = append(out, bytes.ToUpper(b)...)
	}
	if len(x.Stdin) == 0 {
		out = fmt.Appendf(nil, "task %d of %d\n", x.Ref.Index, x.Tasks)
	}
	o := tasks.Outcome{Reason: tasks.OK, Output: r.data.put(out), Log: []byte("ran " + fmt.Sprint(x.Ref.Index)), Usage: tasks.Usage{Wall: took}}
	if !big {
		o.Inline = out
	}
	if lie != nil {
		o = lie(x, o)
	}
	return o, nil
}

func (r *testRunner) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ran)
}

func (r *testRunner) set(f func(r *testRunner)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// lines makes an input of n lines.
func lines(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line number %d\n", i)
	}
	return []byte(b.String())
}

// lineJob is a job of n tasks over an input of n lines at node.
func lineJob(n *node, count int) (tasks.Spec, []byte) {
	in := lines(count)
	return tasks.Spec{
		Name: "lines", Program: n.data.put([]byte("a program")),
		Inputs: []tasks.Input{{Source: n.data.put(in), Split: tasks.Split{By: tasks.SplitLines, Size: 1}}},
	}, bytes.ToUpper(in)
}

func (m *mesh) submit(n *node, spec tasks.Spec) tasks.JobID {
	m.t.Helper()
	id, err := n.svc.Submit(context.Background(), spec)
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

// done waits until a job is over, at most a virtual hour.
func (m *mesh) done(n *node, id tasks.JobID) JobView {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	v, err := n.svc.Wait(ctx, id)
	if err != nil {
		why, _ := n.svc.Why(context.Background(), id)
		m.t.Fatalf("job is not over: %v; it waits for %v", err, why)
	}
	return v
}

// want fails unless the job is done with that output.
func (m *mesh) want(n *node, v JobView, out []byte) {
	m.t.Helper()
	if v.Record.State != tasks.Done {
		m.t.Fatalf("job: state %d, reason %v, detail %q", v.Record.State, v.Record.Reason, v.Record.Detail)
	}
	if got, ok := n.data.get(v.Record.Output); !ok || !bytes.Equal(got, out) {
		m.t.Fatalf("output of %d bytes (here: %v), want %d bytes", len(got), ok, len(out))
	}
}

// workers lists who is said to have run the tasks of the map stage.
func (m *mesh) workers(n *node, id tasks.JobID) map[tasks.PeerID]int {
	m.t.Helper()
	list, err := n.svc.Tasks(context.Background(), id, tasks.StageMap, 0, 10_000)
	if err != nil {
		m.t.Fatal(err)
	}
	who := map[tasks.PeerID]int{}
	for _, t := range list {
		if t.Result == nil {
			continue
		}
		for _, w := range t.Result.Workers {
			who[w]++
		}
	}
	return who
}
