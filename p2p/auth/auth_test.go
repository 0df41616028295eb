package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

type node struct {
	key crypto.PrivKey
	id  peer.ID
}

// newNode makes the same node for the same seed.
func newNode(t testing.TB, seed byte) node {
	t.Helper()
	std := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	key, _, err := crypto.KeyPairFromStdKey(&std)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return node{key, id}
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func meshOf(t testing.TB, root node) MeshID {
	t.Helper()
	m, err := MeshOf(root.key.GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mint(t testing.TB, root, to node, r Rights, life time.Duration) Token {
	t.Helper()
	token, err := Mint(root.key, Subject{Peer: to.id, Rights: r, Issued: now, Expires: now.Add(life), Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerify(t *testing.T) {
	root, other, admin, member := newNode(t, 1), newNode(t, 2), newNode(t, 3), newNode(t, 4)
	mesh := meshOf(t, root)
	token := mint(t, root, member, Work|Submit, time.Hour)
	adminToken := mint(t, root, admin, AllRights, 10*time.Hour)
	chain, err := Delegate(admin.key, adminToken, Subject{Peer: member.id, Rights: Work, Issued: now, Expires: now.Add(2 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(token)
	flipped[len(flipped)-3] ^= 1
	for _, c := range []struct {
		name    string
		token   Token
		mesh    MeshID
		holder  peer.ID
		at      time.Time
		revoked peer.ID
		want    error
	}{
		{"good", token, mesh, member.id, now, "", nil},
		{"good chain", chain, mesh, member.id, now, "", nil},
		{"other mesh", token, meshOf(t, other), member.id, now, "", ErrOtherMesh},
		{"other holder", token, mesh, admin.id, now, "", ErrHolder},
		{"just expired, within the skew", token, mesh, member.id, now.Add(time.Hour + Skew), "", nil},
		{"expired", token, mesh, member.id, now.Add(time.Hour + Skew + time.Second), "", ErrExpired},
		{"clock behind, within the skew", token, mesh, member.id, now.Add(-Skew), "", nil},
		{"clock behind", token, mesh, member.id, now.Add(-Skew - time.Second), "", ErrClock},
		{"revoked", token, mesh, member.id, now, member.id, ErrRevoked},
		{"issuer revoked", chain, mesh, member.id, now, admin.id, ErrRevoked},
		{"empty", nil, mesh, member.id, now, "", ErrMalformed},
		{"large", make(Token, MaxToken+1), mesh, member.id, now, "", ErrMalformed},
		{"flipped", flipped, mesh, member.id, now, "", ErrMalformed},
		{"cut", token[:len(token)-1], mesh, member.id, now, "", ErrMalformed},
	} {
		g, err := c.token.Verify(c.mesh, c.holder, c.at, func(id peer.ID) bool { return id == c.revoked })
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && (g.Subject != member.id || g.Mesh != mesh || g.Root != root.id) {
			t.Errorf("%s: grant %+v", c.name, g)
		}
	}
	g, err := chain.Verify(mesh, member.id, now, nil)
	if err != nil || g.Depth != 2 || g.Issuer != admin.id || g.Rights != Work || !g.Expires.Equal(now.Add(2*time.Hour)) {
		t.Errorf("chain gives %+v, %v", g, err)
	}
}

func TestDelegateOnlyNarrows(t *testing.T) {
	root, admin, member := newNode(t, 1), newNode(t, 3), newNode(t, 4)
	own := mint(t, root, admin, Admit|Work, time.Hour)
	good := Subject{Peer: member.id, Rights: Work, Expires: now.Add(time.Hour)}
	for name, c := range map[string]struct {
		issuer node
		own    Token
		change func(*Subject)
	}{
		"more rights":     {admin, own, func(s *Subject) { s.Rights = Submit }},
		"longer":          {admin, own, func(s *Subject) { s.Expires = now.Add(time.Hour + time.Second) }},
		"another's token": {member, own, func(*Subject) {}},
		"may not admit":   {admin, mint(t, root, admin, Work, time.Hour), func(*Subject) {}},
		"long name":       {admin, own, func(s *Subject) { s.Name = strings.Repeat("x", MaxName+1) }},
		"no end":          {admin, own, func(s *Subject) { s.Expires = time.Time{} }},
		"unknown rights":  {admin, own, func(s *Subject) { s.Rights = 1 << 20 }},
		"no peer":         {admin, own, func(s *Subject) { s.Peer = "" }},
	} {
		s := good
		c.change(&s)
		if _, err := Delegate(c.issuer.key, c.own, s); err == nil {
			t.Errorf("%s: delegated", name)
		}
	}
	token, who := own, admin
	for i := range MaxDepth {
		next := newNode(t, byte(10+i))
		var err error
		token, err = Delegate(who.key, token, Subject{Peer: next.id, Rights: Admit | Work, Expires: now.Add(time.Hour)})
		who = next
		if i < MaxDepth-1 && err != nil {
			t.Fatalf("link %d: %v", i+2, err)
		}
		if i == MaxDepth-1 && err == nil {
			t.Error("a chain longer than the most there may be")
		}
		if err == nil {
			if g, err := token.Inspect(); err != nil || g.Branch != admin.id || g.Depth != i+2 {
				t.Errorf("link %d is of branch %s at depth %d, %v: want whom the root admitted", i+2, g.Branch, g.Depth, err)
			}
		}
	}
}

// A chain forged with a real key at the wrong place must not verify.
func TestForgedChains(t *testing.T) {
	root, admin, member, thief := newNode(t, 1), newNode(t, 3), newNode(t, 4), newNode(t, 5)
	mesh := meshOf(t, root)
	own := mint(t, root, admin, Work, time.Hour) // may not admit
	links, _, err := decodeToken(own)
	if err != nil {
		t.Fatal(err)
	}
	link := func(by node, to node, r Rights, mesh MeshID, life time.Duration) []byte {
		b, err := sealGrant(by.key, mesh, Subject{Peer: to.id, Rights: r, Expires: now.Add(life)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	adminLinks, _, err := decodeToken(mint(t, root, admin, Admit|Work, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, chain := range map[string][][]byte{
		"no right to admit": {links[0], link(admin, member, Work, mesh, time.Minute)},
		"wider rights":      {adminLinks[0], link(admin, member, AllRights, mesh, time.Minute)},
		"longer":            {adminLinks[0], link(admin, member, Work, mesh, 2*time.Hour)},
		"stolen link":       {adminLinks[0], link(thief, member, Work, mesh, time.Minute)},
		"own root":          {link(thief, member, Work, mesh, time.Minute)},
		"other mesh inside": {adminLinks[0], link(admin, member, Work, meshOf(t, thief), time.Minute)},
	} {
		token, err := encodeToken(chain)
		if err != nil {
			t.Fatal(err)
		}
		if g, err := token.Verify(mesh, member.id, now, nil); err == nil {
			t.Errorf("%s: verified as %+v", name, g)
		}
	}
}

func TestLastThird(t *testing.T) {
	g := Grant{Issued: now, Expires: now.Add(3 * time.Hour)}
	for after, want := range map[time.Duration]bool{0: false, time.Hour: false, 2*time.Hour - 1: false, 2 * time.Hour: true, 9 * time.Hour: true} {
		if got := g.LastThird(now.Add(after)); got != want {
			t.Errorf("after %s: %v", after, got)
		}
	}
}

func TestRights(t *testing.T) {
	for r, s := range map[Rights]string{0: "none", Submit | Work: "submit,work", AllRights: "submit,work,host,admit", 1 << 9: "unknown(0x200)"} {
		if r.String() != s {
			t.Errorf("%#x is %q, want %q", uint32(r), r, s)
		}
	}
	for s, want := range map[string]Rights{"all": AllRights, "member": MemberRights, "none": 0, " Work , admit": Work | Admit} {
		if got, err := ParseRights(s); err != nil || got != want {
			t.Errorf("%q: %s, %v", s, got, err)
		}
	}
	if _, err := ParseRights("work,fly"); err == nil || !strings.Contains(err.Error(), "fly") || !strings.Contains(err.Error(), "submit") {
		t.Errorf("unknown right: %v", err)
	}
}

func TestCharter(t *testing.T) {
	root, other := newNode(t, 1), newNode(t, 2)
	b, err := Charter{Name: "home", Open: true, Rights: MemberRights, Issued: now}.Sign(root.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCharter(b)
	if err != nil || c.Mesh != meshOf(t, root) || c.Name != "home" || !c.Open || c.Rights != MemberRights || !c.Issued.Equal(now) {
		t.Errorf("%+v, %v", c, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		if got, err := ParseCharter(bad); err == nil && got != c {
			t.Fatalf("byte %d changed, and it says %+v", i, got)
		}
	}
	if _, err := (Charter{Open: true, Rights: AllRights}).Sign(other.key); err == nil {
		t.Error("an open mesh that lets newcomers admit")
	}
}

func TestSecretStaysHidden(t *testing.T) {
	s := NewSecret()
	raw := fmt.Sprintf("%x", s.Reveal())
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "i", Invite{Secret: s})
	js, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %x %s %q %d", s, s, s, s, s, s, s), log.String(), string(js),
		fmt.Sprintf("%v", struct{ S Secret }{s})} {
		if strings.Contains(strings.ToLower(out), raw[:12]) || strings.Contains(out, fmt.Sprint(s.Reveal()[:4])) {
			t.Errorf("printed: %s", out)
		}
	}
	if !s.Equal(s) || s.Equal(NewSecret()) || s.IsZero() || s.Hash() == NewSecret().Hash() {
		t.Error("secrets don't compare")
	}
	back, err := SecretFromBytes(s.Reveal())
	if err != nil || !back.Equal(s) {
		t.Errorf("read back: %v", err)
	}
}

// What an issuer wrote must not steer the terminal that shows it.
func TestNamesCanBeShown(t *testing.T) {
	root, member := newNode(t, 1), newNode(t, 4)
	token, err := Mint(root.key, Subject{Peer: member.id, Rights: Work, Expires: now.Add(time.Hour), Name: "a\x1b[2Jb"})
	if err != nil {
		t.Fatal(err)
	}
	if g, err := token.Verify(meshOf(t, root), member.id, now, nil); err != nil || strings.ContainsRune(g.Name, 0x1b) {
		t.Errorf("named %q, %v", g.Name, err)
	}
	b, err := Charter{Name: "m\x1b]0;x\a"}.Sign(root.key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ParseCharter(b); err != nil || strings.ContainsAny(c.Name, "\x1b\a") {
		t.Errorf("mesh named %q, %v", c.Name, err)
	}
}
