package p2p

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/internal/pb"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
)

// ledger is an in-memory Redeemer.
type ledger struct {
	mu      sync.Mutex
	invites map[[32]byte]*ledgerEntry
}

type ledgerEntry struct {
	uses    int
	rights  auth.Rights
	expires time.Time
	revoked bool
	by      map[peer.ID]bool
}

func newLedger() *ledger { return &ledger{invites: map[[32]byte]*ledgerEntry{}} }

func (l *ledger) add(i auth.Invite, uses int) *ledgerEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &ledgerEntry{uses: uses, rights: i.Rights, expires: i.Expires, by: map[peer.ID]bool{}}
	l.invites[i.Secret.Hash()] = e
	return e
}

func (l *ledger) Redeem(_ context.Context, hash [32]byte, by peer.ID) (auth.Rights, time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.invites[hash]
	switch {
	case e == nil:
		return 0, time.Time{}, auth.ErrInviteUnknown
	case e.revoked:
		return 0, time.Time{}, auth.ErrInviteRevoked
	case e.by[by]:
		return e.rights, time.Time{}, nil
	case time.Now().After(e.expires):
		return 0, time.Time{}, auth.ErrInviteExpired
	case len(e.by) >= e.uses:
		return 0, time.Time{}, auth.ErrInviteSpent
	}
	e.by[by] = true
	return e.rights, time.Time{}, nil
}

func (m *testMesh) charter(open bool) []byte {
	m.t.Helper()
	b, err := auth.Charter{Name: "test", Open: open, Rights: auth.MemberRights, Issued: time.Now()}.Sign(m.root)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

func join(t *testing.T, i auth.Invite) (Joined, JoinConfig, error) {
	t.Helper()
	line, err := auth.ParseInvite(i.String())
	if err != nil {
		t.Fatal(err)
	}
	key, _ := newKey(t)
	cfg := JoinConfig{Key: key, Invite: &line, Name: "newcomer"}
	got, err := Join(t.Context(), cfg)
	return got, cfg, err
}

func TestJoinByInvite(t *testing.T) {
	m := newTestMesh(t)
	book := newLedger()
	cfg := m.config()
	cfg.Redeemer, cfg.Charter = book, m.charter(false)
	issuer := m.host(cfg, nil)
	other := m.host(m.config(), nil)
	m.connect(other, issuer)
	until(t, "the issuer knows the other's record", func() bool { return issuer.RecordOf(other.ID()) != nil })
	invite, err := issuer.Invite(auth.Submit|auth.Work, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	book.add(invite, 1)
	got, jcfg, err := join(t, invite)
	if err != nil {
		t.Fatal(err)
	}
	if got.Mesh != m.id || got.Grant.Rights != auth.Submit|auth.Work || got.Grant.Name != "newcomer" || got.Grant.Issuer != issuer.ID() || got.Charter == nil {
		t.Errorf("joined %+v", got)
	}
	if len(got.Peers) != 2 || got.Peers[0].ID != issuer.ID() || got.Peers[1].ID != other.ID() {
		t.Errorf("peers %v", got.Peers)
	}
	newcomer := m.config()
	newcomer.Key, newcomer.Token, newcomer.Bootstrap = jcfg.Key, got.Token, got.Peers
	h := m.host(newcomer, nil)
	until(t, "the newcomer is a member to both", func() bool { return issuer.IsMember(h.ID()) && other.IsMember(h.ID()) })

	if again, err := Join(t.Context(), jcfg); err != nil || again.Grant.Subject != h.ID() {
		t.Errorf("the same peer again: %v", err)
	}
	if _, _, err := join(t, invite); RefusalCode(err) != CodeInviteSpent || !strings.Contains(err.Error(), "spent") {
		t.Errorf("a second peer on an invite for one: %v", err)
	}
}

func TestJoinSaysWhyNot(t *testing.T) {
	m, other := newTestMesh(t), newTestMesh(t)
	book := newLedger()
	cfg := m.config()
	cfg.Redeemer = book
	issuer := m.host(cfg, nil)
	stranger := other.host(other.config(), nil)
	fresh := func() auth.Invite {
		i, err := issuer.Invite(auth.MemberRights, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	weak := m.config()
	_, weakID := newKey(t)
	if id, err := peer.IDFromPrivateKey(weak.Key); err == nil {
		weakID = id
	}
	weak.Token = m.token(weakID, auth.MemberRights, time.Hour)
	weak.Redeemer = book
	cannot := m.host(weak, nil)

	for name, c := range map[string]struct {
		make func(*testing.T) auth.Invite
		code Code
		says string
	}{
		"unknown": {func(*testing.T) auth.Invite { return fresh() }, CodeInviteUnknown, "unknown"},
		"expired": {func(*testing.T) auth.Invite {
			i := fresh()
			book.add(i, 1).expires = time.Now().Add(-time.Minute)
			return i
		}, CodeInviteExpired, "expired"},
		"revoked": {func(*testing.T) auth.Invite { i := fresh(); book.add(i, 1).revoked = true; return i }, CodeInviteRevoked, "revoked"},
		"other mesh": {func(t *testing.T) auth.Invite {
			i := fresh()
			r, err := stranger.Record()
			if err != nil {
				t.Fatal(err)
			}
			i.Issuer, i.Records = stranger.ID(), [][]byte{r}
			return i
		}, CodeOtherMesh, "another mesh"},
		"cannot admit": {func(t *testing.T) auth.Invite {
			i := fresh()
			book.add(i, 1)
			r, err := cannot.Record()
			if err != nil {
				t.Fatal(err)
			}
			i.Issuer, i.Records = cannot.ID(), [][]byte{r}
			return i
		}, CodeCannotAdmit, "admit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := join(t, c.make(t)); RefusalCode(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("unreachable", func(t *testing.T) {
		i := fresh()
		gone := m.config()
		h, err := New(gone)
		if err != nil {
			t.Fatal(err)
		}
		stop := m.run(h)
		addrs := h.Reachability().Listening
		if i.Records[0], err = h.Record(); err != nil {
			t.Fatal(err)
		}
		i.Issuer = h.ID()
		stop()
		var u *Unreachable
		_, _, err = join(t, i)
		if !errors.As(err, &u) || len(u.Tried) != 1 || !u.Tried[0].Addr.Equal(addrs[0]) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("wrong clock", func(t *testing.T) {
		i := fresh()
		book.add(i, 1)
		key, _ := newKey(t)
		_, err := Join(t.Context(), JoinConfig{Key: key, Invite: &i, Now: func() time.Time { return time.Now().Add(-3 * time.Hour) }})
		if RefusalCode(err) != CodeClock || !strings.Contains(err.Error(), "clock") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a secret that is none", func(t *testing.T) {
		if _, err := issuer.admitNewcomer(t.Context(), weakID, []byte{0x0a, 1, 1}); RefusalCode(err) == 0 {
			t.Errorf("got %v", err)
		}
	})
}

func TestJoinOpenMesh(t *testing.T) {
	m := newTestMesh(t)
	openCfg, closedCfg := m.config(), m.config()
	openCfg.Charter, closedCfg.Charter = m.charter(true), m.charter(false)
	open, closed := m.host(openCfg, nil), m.host(closedCfg, nil)
	key, id := newKey(t)
	asker, err := newcomerHost(JoinConfig{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	found, err := AskCharter(t.Context(), asker, addrInfo(open))
	if err != nil {
		t.Fatal(err)
	}
	if found.Charter.Name != "test" || found.Charter.Mesh != m.id {
		t.Errorf("found %+v", found)
	}
	if _, err := AskCharter(t.Context(), asker, addrInfo(closed)); err == nil {
		t.Error("a closed mesh told its charter")
	}
	got, err := Join(t.Context(), JoinConfig{Key: key, LAN: &found})
	if err != nil {
		t.Fatal(err)
	}
	if got.Grant.Subject != id || got.Grant.Rights != auth.MemberRights {
		t.Errorf("joined %+v", got.Grant)
	}
	found.Peer = addrInfo(closed)
	if _, err := Join(t.Context(), JoinConfig{Key: key, LAN: &found}); RefusalCode(err) != CodeNotOpen {
		t.Errorf("a closed mesh: %v", err)
	}
	// Whoever has no connection from the LAN gets nothing from the same host.
	req, err := proto.Marshal(&pb.JoinRequest{Clock: time.Now().Unix()})
	if err != nil {
		t.Fatal(err)
	}
	_, elsewhere := newKey(t)
	if _, err := open.admitNewcomer(t.Context(), elsewhere, req); RefusalCode(err) != CodeNotOpen || !strings.Contains(err.Error(), "LAN") {
		t.Errorf("from outside the LAN: %v", err)
	}
}

func TestInviteRefusesWhatItCannotGive(t *testing.T) {
	m := newTestMesh(t)
	cfg := m.config()
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Token = m.token(id, auth.Admit|auth.Work, time.Hour)
	h := m.host(cfg, nil)
	if _, err := h.Invite(auth.Submit, time.Now().Add(time.Hour)); err == nil {
		t.Error("gave a right it does not hold")
	}
	if _, err := h.Invite(auth.Work, time.Now().Add(-time.Hour)); err == nil {
		t.Error("made an invite that has ended")
	}
	cfg = m.config()
	cfg.Local, cfg.Root = LocalNever, m.root
	h = m.host(cfg, nil)
	if _, err := h.Invite(auth.Work, time.Now().Add(time.Hour)); err == nil {
		t.Error("made an invite that leads nowhere")
	}
	if got := h.net.tell([]ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip4/8.8.8.8/tcp/1")}); len(got) != 1 {
		t.Errorf("told %v", got)
	}
}

func TestRenewal(t *testing.T) {
	m := newTestMesh(t)
	cfg := m.config()
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Token = m.token(id, auth.MemberRights, 20*time.Second) // its last third
	stored := make(chan auth.Token, 10)
	cfg.OnToken = func(t auth.Token) error { stored <- t; return nil }
	member := m.host(cfg, nil)
	admin := m.host(m.config(), nil)
	m.connect(member, admin)
	member.renew(t.Context())
	g := member.Grant()
	if g.Issuer != admin.ID() || g.Depth != 2 || g.Rights != auth.MemberRights || time.Until(g.Expires) < 20*time.Hour {
		t.Fatalf("renewed to %+v", g)
	}
	if got := <-stored; string(got) != string(member.Token()) {
		t.Error("another token was stored")
	}
	until(t, "the admin hears of it", func() bool { a, ok := admin.Member(id); return ok && a.Grant.Depth == 2 })
	member.renew(t.Context())
	if len(stored) != 0 {
		t.Error("renewed twice")
	}

	founder := m.config()
	founder.Root = m.root
	fid, err := peer.IDFromPrivateKey(founder.Key)
	if err != nil {
		t.Fatal(err)
	}
	founder.Token = m.token(fid, auth.AllRights, 20*time.Second)
	h := m.host(founder, nil)
	h.renew(t.Context())
	if g := h.Grant(); g.Depth != 1 || time.Until(g.Expires) < 80*24*time.Hour {
		t.Errorf("the founder renewed itself to %+v", g)
	}
}
