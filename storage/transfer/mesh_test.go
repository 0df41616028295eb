package transfer

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	_ "modernc.org/sqlite"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/storage"
)

type testMesh struct {
	t    testing.TB
	root crypto.PrivKey
	id   auth.MeshID
}

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

func newMesh(t testing.TB) *testMesh {
	t.Helper()
	root, _ := newKey(t)
	id, err := auth.MeshOf(root.GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	return &testMesh{t: t, root: root, id: id}
}

// member is a node of a test: host, store and service, running.
type member struct {
	h    *p2p.Host
	st   *storage.Store
	s    *Service
	stop func()
}

// host makes a host that is not running yet.
func (m *testMesh) host() *p2p.Host {
	m.t.Helper()
	key, id := newKey(m.t)
	now := time.Now()
	token, err := auth.Mint(m.root, auth.Subject{Peer: id, Rights: auth.AllRights, Issued: now.Add(-time.Minute), Expires: now.Add(24 * time.Hour)})
	if err != nil {
		m.t.Fatal(err)
	}
	h, err := p2p.New(p2p.Config{Key: key, Mesh: m.id, Token: token, Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		MaxMemory: 1 << 30, NoMDNS: true, NoPortMap: true})
	if err != nil {
		m.t.Fatal(err)
	}
	return h
}

// run runs services until the test ends or stop is called.
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

func newStore(t testing.TB, dir string) *storage.Store {
	t.Helper()
	dsn := "file::memory:?_txlock=immediate"
	if dir != "" {
		dsn = "file:" + filepath.Join(dir, "db") + "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		db.SetMaxOpenConns(1)
	}
	st, err := storage.Open(storage.Config{Dir: dir, DB: db, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(st.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return st
}

func (m *testMesh) member(cfg Config) *member {
	m.t.Helper()
	return m.memberOn(newStore(m.t, ""), cfg)
}

func (m *testMesh) memberOn(st *storage.Store, cfg Config) *member {
	m.t.Helper()
	h := m.host()
	s, err := New(h, st, cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	n := &member{h: h, st: st, s: s, stop: run(m.t, h.Run, s.Run)}
	<-h.Ready()
	return n
}

func addrs(h *p2p.Host) peer.AddrInfo {
	return peer.AddrInfo{ID: h.ID(), Addrs: h.Raw().Network().ListenAddresses()}
}

func connect(t testing.TB, from, to *p2p.Host) {
	t.Helper()
	if err := from.Connect(t.Context(), addrs(to)); err != nil {
		t.Fatal(err)
	}
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func add(t testing.TB, st *storage.Store, data []byte, o storage.AddOptions) storage.Root {
	t.Helper()
	r, err := st.AddBytes(t.Context(), data, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func content(t testing.TB, st *storage.Store, c cid.Cid) []byte {
	t.Helper()
	r, err := st.Open(t.Context(), c, "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// until polls for what happens in another goroutine of the network.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}
