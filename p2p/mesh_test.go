package p2p

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// testMesh has a root key and hosts on loopback, with real sockets.
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

func newTestMesh(t testing.TB) *testMesh {
	t.Helper()
	root, _ := newKey(t)
	id, err := auth.MeshOf(root.GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	return &testMesh{t: t, root: root, id: id}
}

func (m *testMesh) token(id peer.ID, rights auth.Rights, life time.Duration) auth.Token {
	m.t.Helper()
	now := time.Now()
	token, err := auth.Mint(m.root, auth.Subject{Peer: id, Rights: rights, Issued: now.Add(-time.Minute), Expires: now.Add(life)})
	if err != nil {
		m.t.Fatal(err)
	}
	return token
}

var loopbackTCP = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}

// config is that of a new member; change what the test is about.
func (m *testMesh) config() Config {
	m.t.Helper()
	key, id := newKey(m.t)
	return Config{Key: key, Mesh: m.id, Token: m.token(id, auth.AllRights, 24*time.Hour), Listen: loopbackTCP,
		MaxMemory: 1 << 30, NoMDNS: true, NoPortMap: true, Log: testLog(m.t)}
}

// host makes a host; setup, which may be nil, registers handlers; then it runs
// until the test ends.
func (m *testMesh) host(cfg Config, setup func(*Host)) *Host {
	m.t.Helper()
	h, err := New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	if setup != nil {
		setup(h)
	}
	m.run(h)
	return h
}

// run returns when h is ready, and how to stop it.
func (m *testMesh) run(h *Host) (stop func()) {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Errorf("Run: %v", err)
		}
	})
	m.t.Cleanup(stop)
	select {
	case <-h.Ready():
	case err := <-done:
		done <- err
		m.t.Fatalf("Run: %v", err)
	}
	return stop
}

func (m *testMesh) connect(from, to *Host) {
	m.t.Helper()
	if err := from.Connect(m.t.Context(), addrInfo(to)); err != nil {
		m.t.Fatal(err)
	}
}

func addrInfo(h *Host) peer.AddrInfo {
	return peer.AddrInfo{ID: h.ID(), Addrs: h.Reachability().Listening}
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

func testLog(t testing.TB) *slog.Logger {
	if os.Getenv("KITH_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	fmt.Fprintf(os.Stderr, "%s: %s", w.t.Name(), b)
	return len(b), nil
}

var echo = Protocol{Name: "echo", Version: "1.0.0", Deadline: 10 * time.Second, Streams: 32, Rate: 1e6, Burst: 1e6}

func serveEcho(h *Host) {
	h.Handle(echo, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
}

func addrInfoOf(id peer.ID) peer.AddrInfo { return peer.AddrInfo{ID: id} }
