package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

// refused is the error of a first start that must not work. The home stays
// without a mesh.
func refused(t *testing.T, cfg Config, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := New(ctx, cfg)
	if err == nil {
		err = n.Close()
		t.Fatalf("joined, and closed: %v; want %q", err, want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
	if cfg.Home.HasMesh() {
		t.Error("the home has a mesh")
	}
}

func TestJoinByLine(t *testing.T) {
	t.Parallel()
	a := start(t, founder(t))
	if !a.started.Invites || a.started.API == "" || len(a.started.Listen) == 0 {
		t.Errorf("told as started: %+v", a.started)
	}
	i := invite(t, a)
	cfg := joiner(t, i.Line)
	b := start(t, cfg)
	meet(t, a, b)
	if b.started.Mesh != a.started.Mesh {
		t.Errorf("mesh %s, want %s", b.started.Mesh, a.started.Mesh)
	}
	if m := modeOf(t, cfg.Home.Key()); runtime.GOOS != "windows" && m != 0o600 {
		t.Errorf("key made with mode %v", m)
	}
	id, err := b.ID(t.Context())
	if err != nil || id.Founder || id.MeshName != "test" || strings.Join(id.Rights, ",") != auth.MemberRights.String() {
		t.Errorf("joined as %+v, %v", id, err)
	}
	list, err := a.Invites(t.Context())
	if err != nil || len(list) != 1 || list[0].Used != 1 || list[0].Line != "" {
		t.Errorf("invites %+v, %v", list, err)
	}
	peers, err := b.Peers(t.Context())
	if err != nil || len(peers) != 1 || peers[0].ID != a.started.Peer || !peers[0].Connected || peers[0].Path != "loopback" {
		t.Errorf("peers %+v, %v", peers, err)
	}

	// It comes back without an invite, by its peer cache, and the invite that it
	// used does not hurt. The invite is spent for another.
	b.stop()
	await(t, a, "the other has left", func() bool { return len(a.host.Members()) == 0 })
	cfg.Join = ""
	b = start(t, cfg)
	meet(t, a, b)
	b.stop()
	cfg.Join = i.Line
	b = start(t, cfg)
	meet(t, a, b)
	refused(t, joiner(t, i.Line), "spent")
}

// A node that ended as soon as it had joined, before it met anybody, finds its
// mesh again.
func TestJoinIsRemembered(t *testing.T) {
	t.Parallel()
	a := start(t, founder(t))
	cfg := joiner(t, invite(t, a).Line)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil { // never run
		t.Fatal(err)
	}
	cfg.Join = ""
	meet(t, a, start(t, cfg))
}

func TestJoinByFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "shared", "invite")
	cfg := config(t)
	cfg.JoinFile = file
	waits := make(chan struct{}, 1)
	cfg.Log = notice(t, "waiting for the invite", waits)
	type made struct {
		n   *Node
		err error
	}
	joined := make(chan made, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		n, err := New(ctx, cfg)
		joined <- made{n, err}
	}()
	<-waits
	out := founder(t)
	out.InviteOut = file
	a := start(t, out)
	if m := modeOf(t, file); runtime.GOOS != "windows" && m != 0o600 {
		t.Errorf("the invite's file has mode %v", m)
	}
	m := <-joined
	if m.err != nil {
		t.Fatal(m.err)
	}
	b := runNode(t, m.n)
	// The same line serves more than one.
	third := config(t)
	third.JoinFile = file
	meet(t, a, b, start(t, third))

	// A file that never comes is waited for as long as the caller waits.
	gone, stop := context.WithCancel(t.Context())
	never := config(t)
	never.JoinFile = file + ".never"
	never.Log = notice(t, "waiting for the invite", waits)
	go func() {
		<-waits
		stop()
	}()
	if _, err := New(gone, never); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), never.JoinFile) {
		t.Errorf("got %v", err)
	}
}

func TestInvitesThatAreRefused(t *testing.T) {
	t.Parallel()
	var late atomic.Int64 // how far the issuer's clock has gone on
	cfg := founder(t)
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	a := start(t, cfg)
	revoked := invite(t, a)
	if err := a.RevokeInvite(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	refused(t, joiner(t, revoked.Line), "revoked")
	expired := invite(t, a, func(r *api.InviteRequest) { r.ExpiresIn = "1m" })
	late.Store(int64(2 * time.Minute))
	refused(t, joiner(t, expired.Line), "expired")
	good := invite(t, a).Line
	refused(t, joiner(t, good[:len(good)-3]), "invite")
	refused(t, joiner(t, "hello"), "invite")
	refused(t, config(t), "kith up --join")

	// A member of one mesh takes no invite to another.
	other := founder(t)
	other.Join = good
	n, err := New(t.Context(), other)
	if err == nil {
		err = n.Close()
	}
	if !errors.Is(err, ErrHasMesh) {
		t.Errorf("got %v, want %v", err, ErrHasMesh)
	}
	a.stop()
	refused(t, joiner(t, good), "nothing listens there")
}

func TestInviteRequests(t *testing.T) {
	t.Parallel()
	a := start(t, founder(t))
	for _, c := range []struct {
		req  api.InviteRequest
		want string
	}{
		{api.InviteRequest{ExpiresIn: "never"}, `"never"`},
		{api.InviteRequest{ExpiresIn: "-1h"}, `"-1h"`},
		{api.InviteRequest{ExpiresIn: "9000h"}, `"9000h"`},
		{api.InviteRequest{Rights: []string{"fly"}}, "fly"},
	} {
		_, err := a.CreateInvite(t.Context(), c.req)
		var known *api.Error
		if !errors.As(err, &known) || known.Status != 422 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.req, err)
		}
	}
	var known *api.Error
	if err := a.RevokeInvite(t.Context(), "nonesuch"); !errors.As(err, &known) || known.Status != 404 {
		t.Errorf("revoke: %v", err)
	}
	// Rights narrow: who may not admit can't invite, nor give what it has not.
	line := invite(t, a, func(r *api.InviteRequest) { r.Rights = []string{"submit", "admit"} }).Line
	b := start(t, joiner(t, line))
	_, err := b.CreateInvite(t.Context(), api.InviteRequest{Rights: []string{"work"}})
	if !errors.As(err, &known) || known.Status != 403 {
		t.Errorf("more than it has: %v", err)
	}
	line = invite(t, b, func(r *api.InviteRequest) { r.Rights = []string{"submit"} }).Line
	c := start(t, joiner(t, line))
	if c.started.Invites {
		t.Error("a node without admit says that it may invite")
	}
	if _, err = c.CreateInvite(t.Context(), api.InviteRequest{}); !errors.As(err, &known) || known.Status != 403 {
		t.Errorf("without admit: %v", err)
	}
	meet(t, a, b, c)
}

// TestMeshesNeverMix tells nodes of two meshes each other's addresses.
func TestMeshesNeverMix(t *testing.T) {
	t.Parallel()
	a, b := start(t, founder(t)), start(t, founder(t))
	info := peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Raw().Addrs()}
	if err := a.host.Connect(t.Context(), info); p2p.RefusalCode(err) != p2p.CodeOtherMesh {
		t.Errorf("connect: %v", err)
	}
	for _, n := range []*running{a, b} {
		if m := n.host.Members(); len(m) != 0 {
			t.Errorf("members: %v", m)
		}
		for _, k := range n.host.Known() {
			if k.ID != n.host.ID() {
				t.Errorf("%s is known as a member", k.ID)
			}
		}
	}
	// The home of one with the token of the other is no member either.
	cfg := founder(t)
	foreign, err := os.ReadFile(a.cfg.Home.Token())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Home.Token(), foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := New(t.Context(), cfg); err == nil {
		t.Errorf("opened with a foreign token; close: %v", n.Close())
	}
}
