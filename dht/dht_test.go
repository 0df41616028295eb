package dht

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"

	"github.com/kith-mesh/kith/dht/internal/pb"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

func newKey(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

type mesh struct {
	t    testing.TB
	root crypto.PrivKey
	id   auth.MeshID
}

func newMesh(t testing.TB) *mesh {
	t.Helper()
	root, _ := newKey(t)
	id, err := auth.MeshOf(root.GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	return &mesh{t, root, id}
}

func (m *mesh) token(id peer.ID) auth.Token {
	m.t.Helper()
	now := time.Now()
	token, err := auth.Mint(m.root, auth.Subject{Peer: id, Rights: auth.AllRights, Issued: now.Add(-time.Minute), Expires: now.Add(24 * time.Hour)})
	if err != nil {
		m.t.Fatal(err)
	}
	return token
}

func run(t testing.TB, services ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, f := range services {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

func (m *mesh) member() (*p2p.Host, *Service) {
	m.t.Helper()
	key, id := newKey(m.t)
	h, err := p2p.New(p2p.Config{Key: key, Mesh: m.id, Token: m.token(id), Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		MaxMemory: 1 << 30, NoMDNS: true, NoPortMap: true})
	if err != nil {
		m.t.Fatal(err)
	}
	s, err := New(h, Config{})
	if err != nil {
		m.t.Fatal(err)
	}
	stopHost := run(m.t, h.Run)
	stop := run(m.t, s.Run)
	m.t.Cleanup(func() { stop(); stopHost() })
	<-h.Ready()
	return h, s
}

func sum(t testing.TB, s string) cid.Cid {
	t.Helper()
	h, err := mh.Sum([]byte(s), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

// until polls for what happens in another goroutine of the network.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

// TestLoopbackMesh looks things up among five nodes in a line, all of them on
// loopback: the ends have never met.
func TestLoopbackMesh(t *testing.T) {
	m := newMesh(t)
	var hosts []*p2p.Host
	var tables []*Service
	for i := range 5 {
		h, s := m.member()
		if i > 0 {
			last := hosts[i-1]
			if err := h.Connect(t.Context(), peer.AddrInfo{ID: last.ID(), Addrs: last.Raw().Network().ListenAddresses()}); err != nil {
				t.Fatal(err)
			}
		}
		hosts, tables = append(hosts, h), append(tables, s)
	}
	for i, s := range tables {
		beside := 2
		if i == 0 || i == len(tables)-1 {
			beside = 1
		}
		until(t, fmt.Sprintf("node %d knows who is beside it", i), func() bool { return s.Size() >= beside })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	root := sum(t, "root")
	if err := tables[0].Provide(ctx, root); err != nil {
		t.Fatal(err)
	}
	got, err := tables[4].FindProviders(ctx, root, 3)
	if err != nil || len(got) != 1 || got[0].ID != hosts[0].ID() {
		t.Fatalf("providers %v, %v; want %s", got, err, hosts[0].ID())
	}
	if own, err := tables[0].FindProviders(ctx, root, 3); err != nil || len(own) != 0 {
		t.Errorf("it finds itself: %v, %v", own, err)
	}
	if none, err := tables[2].FindProviders(ctx, sum(t, "nothing"), 3); err != nil || len(none) != 0 {
		t.Errorf("providers of nothing: %v, %v", none, err)
	}
	ai, err := tables[4].FindPeer(ctx, hosts[0].ID())
	if err != nil || len(ai.Addrs) == 0 {
		t.Errorf("find peer: %v, %v", ai, err)
	}

	for seq := range uint64(3) {
		if err := tables[1].Put(ctx, "head", seq, []byte{byte(seq)}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	r, err := tables[3].Get(ctx, "head", hosts[1].ID())
	if err != nil || r.Sequence != 2 || string(r.Payload) != "\x02" || r.Signer != hosts[1].ID() {
		t.Errorf("record %+v, %v", r, err)
	}
	if _, err := tables[3].Get(ctx, "tail", hosts[1].ID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("a record that nobody put: %v", err)
	}
}

func TestCallsOutsideRun(t *testing.T) {
	m := newMesh(t)
	key, id := newKey(t)
	h, err := p2p.New(p2p.Config{Key: key, Mesh: m.id, Token: m.token(id), NoMDNS: true, NoPortMap: true, MaxMemory: 1 << 28})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := New(h, Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Provide(ctx, sum(t, "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("before Run: %v", err)
	}
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Provide(t.Context(), sum(t, "x")); !errors.Is(err, ErrStopped) {
		t.Errorf("after Run: %v", err)
	}
	if _, err := s.FindProviders(t.Context(), sum(t, "x"), 0); err == nil {
		t.Error("a limit of 0 is accepted")
	}
	if err := s.Put(t.Context(), "Bad Name", 1, nil, time.Hour); err == nil || !strings.Contains(err.Error(), "Bad Name") {
		t.Errorf("a bad name: %v", err)
	}
	if err := s.Put(t.Context(), "x", 1, make([]byte, MaxPayload+1), time.Hour); err == nil {
		t.Error("a large payload is accepted")
	}
	if err := s.Put(t.Context(), "x", 1, nil, maxTTL+1); err == nil {
		t.Error("a long life is accepted")
	}
}

// signer makes records as a host does, of whatever content.
func (m *mesh) signer() (*p2p.Host, func(change func(*pb.Record)) []byte) {
	m.t.Helper()
	key, id := newKey(m.t)
	h, err := p2p.New(p2p.Config{Key: key, Mesh: m.id, Token: m.token(id), NoMDNS: true, NoPortMap: true, MaxMemory: 1 << 28})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := h.Close(); err != nil {
			m.t.Error(err)
		}
	})
	return h, func(change func(*pb.Record)) []byte {
		r := &pb.Record{Token: h.Token(), Name: "head", Sequence: 5, Expires: time.Now().Add(time.Hour).UnixMilli(), Payload: []byte("p")}
		change(r)
		raw, err := proto.Marshal(r)
		if err != nil {
			m.t.Fatal(err)
		}
		b, err := h.Seal(domain, raw)
		if err != nil {
			m.t.Fatal(err)
		}
		return b
	}
}

func TestValidator(t *testing.T) {
	m := newMesh(t)
	h, seal := m.signer()
	other, _ := newMesh(t).signer()
	_, stranger := newKey(t)
	revoked := false
	v := validator{mesh: m.id, revoked: func(peer.ID) bool { return revoked }, now: time.Now}
	k := key("head", h.ID())
	good := seal(func(*pb.Record) {})
	if err := v.Validate(k, good); err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) func(*pb.Record) {
		return func(r *pb.Record) { r.Expires = time.Now().Add(d).UnixMilli() }
	}
	for name, c := range map[string]struct {
		key string
		b   []byte
	}{
		"under another's key":       {key("head", stranger), good},
		"under another name":        {key("tail", h.ID()), good},
		"expired over an hour ago":  {k, seal(at(-skew - time.Minute))},
		"of too long a life":        {k, seal(at(maxTTL + skew + time.Minute))},
		"with another mesh's token": {k, seal(func(r *pb.Record) { r.Token = other.Token() })},
		"with somebody's token":     {k, seal(func(r *pb.Record) { r.Token = m.token(stranger) })},
		"with a bad name":           {key("a/b", h.ID()), seal(func(r *pb.Record) { r.Name = "a/b" })},
		"too large":                 {k, seal(func(r *pb.Record) { r.Payload = make([]byte, MaxPayload+1) })},
		"cut":                       {k, good[:len(good)-1]},
		"empty":                     {k, nil},
	} {
		if err := v.Validate(c.key, c.b); !errors.Is(err, ErrRecord) {
			t.Errorf("a record %s: %v", name, err)
		}
	}
	if err := v.Validate(k, seal(at(-skew+time.Minute))); err != nil {
		t.Errorf("expired within the skew: %v", err)
	}
	newer := seal(func(r *pb.Record) { r.Sequence = 6 })
	if i, err := v.Select(k, [][]byte{good, []byte("junk"), newer, good}); i != 2 || err != nil {
		t.Errorf("selected %d, %v", i, err)
	}
	if _, err := v.Select(k, [][]byte{[]byte("junk")}); !errors.Is(err, ErrRecord) {
		t.Errorf("selected junk: %v", err)
	}
	revoked = true
	if err := v.Validate(k, good); !errors.Is(err, ErrRecord) {
		t.Errorf("of a revoked member: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	m := newMesh(f)
	h, seal := m.signer()
	good := seal(func(*pb.Record) {})
	k := key("head", h.ID())
	f.Add(k, good)
	f.Add(k, good[:40])
	f.Add("/kith/head/x", []byte{})
	v := validator{mesh: m.id, now: time.Now}
	f.Fuzz(func(t *testing.T, k string, b []byte) {
		r, err := v.open(k, b)
		if err == nil && (len(r.Payload) > MaxPayload || k != key(r.Name, r.Signer)) {
			t.Fatalf("accepted %+v under %q", r, k)
		}
	})
}

func TestBounded(t *testing.T) {
	ctx := t.Context()
	b := newBounded(2)
	put := func(k string) error { return b.Put(ctx, ds.NewKey(k), []byte(k)) }
	if err := errors.Join(put("a"), put("b"), put("a")); err != nil {
		t.Fatal(err)
	}
	if err := put("c"); !errors.Is(err, errBounded) {
		t.Errorf("a third: %v", err)
	}
	if err := errors.Join(b.Delete(ctx, ds.NewKey("a")), b.Delete(ctx, ds.NewKey("a")), put("c")); err != nil {
		t.Error(err)
	}
	if err := put("d"); !errors.Is(err, errBounded) {
		t.Errorf("one more: %v", err)
	}
}

// One member must not fill what is kept for all.
func TestShares(t *testing.T) {
	ctx := t.Context()
	one, two := "12D3one/with a slash", "12D3two"
	p := newProviders(10, 2)
	row := func(of string, i int) ds.Key {
		return ds.NewKey(fmt.Sprintf("/providers/KEY%d/%s", i, noPad.EncodeToString([]byte(of))))
	}
	v := newValues(10, 2)
	rec := func(of string, i int) ds.Key {
		return ds.NewKey("/kith/" + noPad.EncodeToString([]byte(key(fmt.Sprintf("name%d", i), peer.ID(of)))))
	}
	for i := range 5 {
		if err := p.Put(ctx, row(one, i), nil); err != nil {
			t.Error(err)
		}
		if err := v.Put(ctx, rec(one, i), nil); (err == nil) != (i < 2) {
			t.Errorf("record %d: %v", i, err)
		}
	}
	for _, b := range []*bounded{p, v} {
		if b.n != 2 {
			t.Errorf("%d of one member are kept", b.n)
		}
	}
	if err := errors.Join(p.Put(ctx, row(two, 0), nil), v.Put(ctx, rec(two, 0), nil), p.Delete(ctx, row(one, 0)), p.Put(ctx, row(one, 4), nil)); err != nil {
		t.Error(err)
	}
	if ok, err := p.Has(ctx, row(one, 4)); err != nil || !ok || p.n != 3 || v.n != 3 {
		t.Errorf("%v, %v, %d and %d", ok, err, p.n, v.n)
	}
}

// The wire format of the tables' keys is kad-dht's: shares rest on it.
func TestShareKeys(t *testing.T) {
	m := newMesh(t)
	ha, a := m.member()
	hb, b := m.member()
	if err := hb.Connect(t.Context(), peer.AddrInfo{ID: ha.ID(), Addrs: ha.Raw().Network().ListenAddresses()}); err != nil {
		t.Fatal(err)
	}
	until(t, "they are in each other's tables", func() bool { return a.Size() > 0 && b.Size() > 0 })
	if err := b.Put(t.Context(), "head", 1, []byte("x"), time.Hour); err != nil {
		t.Fatal(err)
	}
	until(t, "the record counts as its signer's", func() bool {
		a.values.mu.Lock()
		defer a.values.mu.Unlock()
		return a.values.of[string(hb.ID())] == 1
	})
}
