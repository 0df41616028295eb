package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

const (
	ok      = api.CheckOK
	warned  = api.CheckWarn
	failed  = api.CheckFail
	skipped = api.CheckSkipped
)

// doctorSteps are all steps, in order.
var doctorSteps = []string{"disk", "blocks", "token", "listen", "address", "api", "members", "clock", "reachability", "relay"}

type states map[string]api.CheckState

// with is s but for one step.
func (s states) with(step string, state api.CheckState) states {
	out := states{step: state}
	for k, v := range s {
		if k != step {
			out[k] = v
		}
	}
	return out
}

// diagnosed compares what doctor found. Every step is there, each that found
// something names a fix, and each that was not tried says so.
func diagnosed(t *testing.T, got []api.Check, want states) map[string]api.Check {
	t.Helper()
	by := map[string]api.Check{}
	for i, c := range got {
		by[c.Name] = c
		if i >= len(doctorSteps) || c.Name != doctorSteps[i] {
			t.Errorf("step %d is %s, want %v", i, c.Name, doctorSteps)
		}
		if c.State != want[c.Name] {
			t.Errorf("%s: %s (%s), want %s", c.Name, c.State, c.Detail, want[c.Name])
		}
		if c.Detail == "" || (c.State == failed || c.State == warned) != (c.Fix != "") {
			t.Errorf("%s is %s: detail %q, fix %q", c.Name, c.State, c.Detail, c.Fix)
		}
		if (c.State == skipped) != strings.HasPrefix(c.Detail, "not tried: ") {
			t.Errorf("%s is %s and says %q", c.Name, c.State, c.Detail)
		}
	}
	if len(got) != len(doctorSteps) {
		t.Errorf("%d steps, want %v", len(got), doctorSteps)
	}
	return by
}

func says(t *testing.T, c api.Check, detail, fix string) {
	t.Helper()
	if !strings.Contains(c.Detail, detail) || !strings.Contains(c.Fix, fix) {
		t.Errorf("%s says %q, fix %q; want %q, %q", c.Name, c.Detail, c.Fix, detail, fix)
	}
}

// offline is what Examine finds where all is well and no node runs.
var offline = states{"disk": ok, "blocks": skipped, "token": ok, "listen": ok, "address": warned, "api": warned,
	"members": skipped, "clock": skipped, "reachability": skipped, "relay": skipped}

// ill is one thing that is broken, on a home and config where the rest is well.
type ill struct {
	name, step  string
	detail, fix string
	state       api.CheckState // default failed
	make        func(t *testing.T, cfg *Config)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, name string, mode os.FileMode) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("files there have no such modes")
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

// taken is an address where somebody else listens.
func taken(t *testing.T) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().(*net.TCPAddr)
}

// homeIlls break the home: doctor finds them whether or not a node runs.
var homeIlls = []ill{
	{name: "full", step: "disk", detail: "MiB are free", fix: "free some room", make: func(t *testing.T, cfg *Config) { cfg.minFree = 1 << 62 }},
	{name: "home of another version", step: "disk", detail: `version "9"`, fix: "--home", make: func(t *testing.T, cfg *Config) { write(t, cfg.Home.path("version"), "9\n") }},
	{name: "read-only", step: "disk", detail: "can't be written", fix: "rights", make: func(t *testing.T, cfg *Config) {
		if os.Geteuid() == 0 {
			t.Skip("root writes where it likes")
		}
		chmod(t, string(cfg.Home), 0o500)
		t.Cleanup(func() { chmod(t, string(cfg.Home), 0o700) })
	}},
	{name: "key open to others", step: "token", detail: "can be read by others", fix: "chmod 600", make: func(t *testing.T, cfg *Config) { chmod(t, cfg.Home.Key(), 0o644) }},
	{name: "root key open to others", step: "token", detail: "can be read by others", fix: "chmod 600", make: func(t *testing.T, cfg *Config) { chmod(t, cfg.Home.Root(), 0o644) }},
	{name: "key lost", step: "token", detail: "key", fix: "restore", make: func(t *testing.T, cfg *Config) {
		if err := os.Remove(cfg.Home.Key()); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "token of another mesh", step: "token", detail: "mesh", fix: "restore", make: func(t *testing.T, cfg *Config) {
		b, err := os.ReadFile(founder(t).Home.Charter())
		if err != nil {
			t.Fatal(err)
		}
		write(t, cfg.Home.Charter(), string(b))
	}},
	{name: "token of another node", step: "token", detail: "another peer", fix: "restore", make: func(t *testing.T, cfg *Config) {
		b, err := os.ReadFile(founder(t).Home.Key())
		if err != nil {
			t.Fatal(err)
		}
		write(t, cfg.Home.Key(), string(b))
	}},
	{name: "token expired", step: "token", detail: "expired", fix: "invite", make: func(t *testing.T, cfg *Config) { issue(t, cfg.Home, -3*time.Hour, -2*time.Hour) }},
	{name: "token from the future", step: "token", detail: "clock", fix: "clock", make: func(t *testing.T, cfg *Config) { issue(t, cfg.Home, 3*time.Hour, 4*time.Hour) }},
	{name: "token in its last third", step: "token", detail: "until", fix: "renew", state: warned, make: func(t *testing.T, cfg *Config) { issue(t, cfg.Home, -3*time.Hour, time.Hour) }},
	{name: "no mesh", step: "token", detail: "no mesh", fix: "kith init", make: func(t *testing.T, cfg *Config) {
		if err := os.RemoveAll(cfg.Home.path("mesh")); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "API's token open to others", step: "api", detail: "can be read by others", fix: "chmod 600", make: func(t *testing.T, cfg *Config) { chmod(t, cfg.Home.APIToken(), 0o644) }},
}

// issue makes the home's founder a plain member, whose token was issued and ends
// so far from now.
func issue(t *testing.T, home Home, issued, ends time.Duration) {
	t.Helper()
	m, _, err := readMembership(home, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	token, err := auth.Mint(m.root, auth.Subject{Peer: m.id, Rights: auth.MemberRights, Issued: now.Add(issued), Expires: now.Add(ends)})
	if err != nil {
		t.Fatal(err)
	}
	write(t, home.Token(), string(token))
	if err := os.Remove(home.Root()); err != nil {
		t.Fatal(err)
	}
}

// healthy is config for a home that has all its files.
func healthy(t *testing.T) Config {
	t.Helper()
	cfg := founder(t)
	cfg.minFree = 1
	if _, err := cfg.Home.LoadAPIToken(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestExamine(t *testing.T) {
	t.Parallel()
	by := diagnosed(t, Examine(t.Context(), healthy(t)), offline)
	says(t, by["api"], "no node runs", "kith up")
	says(t, by["members"], "start it with kith up", "")
	for _, c := range append([]ill{
		{name: "peers' port in use", step: "listen", detail: "/ip4/127.0.0.1/tcp/", fix: "--listen", make: func(t *testing.T, cfg *Config) {
			a, err := manet.FromNetAddr(taken(t))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Listen = append(cfg.Listen, a.String())
		}},
		{name: "API's port in use", step: "api", detail: "could not listen on 127.0.0.1:", fix: "--api-listen", make: func(t *testing.T, cfg *Config) { cfg.APIListen = taken(t).String() }},
		{name: "peers' UDP port in use", step: "listen", detail: "/quic-v1", fix: "--listen", make: func(t *testing.T, cfg *Config) {
			c, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
			cfg.NoQUIC = false
			cfg.Listen = append(cfg.Listen, fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", c.LocalAddr().(*net.UDPAddr).Port))
		}},
	}, homeIlls...) {
		t.Run(c.name, func(t *testing.T) {
			cfg := healthy(t)
			c.make(t, &cfg)
			if c.state == "" {
				c.state = failed
			}
			by := diagnosed(t, Examine(t.Context(), cfg), offline.with(c.step, c.state))
			says(t, by[c.step], c.detail, c.fix)
		})
	}
	t.Run("address", func(t *testing.T) {
		cfg := healthy(t)
		cfg.Listen = []string{"/ip4/0.0.0.0/tcp/0"}
		by := diagnosed(t, Examine(t.Context(), cfg), offline.with("address", Examine(t.Context(), cfg)[4].State))
		if by["address"].State == skipped {
			t.Error("the addresses were not looked at")
		}
	})
}

// TestExamineWithoutHome: what needs the home fails, and nothing is made.
func TestExamineWithoutHome(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	by := diagnosed(t, Examine(t.Context(), cfg), offline.with("disk", failed).with("token", failed))
	says(t, by["disk"], "does not exist", "kith init")
	if _, err := os.Stat(string(cfg.Home)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("doctor made the home: %v", err)
	}
	write(t, string(cfg.Home), "a file")
	by = diagnosed(t, Examine(t.Context(), cfg), offline.with("disk", failed).with("token", failed))
	says(t, by["disk"], "not a folder", "--home")
	cfg.Home = ""
	by = diagnosed(t, Examine(t.Context(), cfg), offline.with("disk", failed).with("token", failed))
	says(t, by["disk"], "no home", "KITH_HOME")
}

// TestExamineChangesNothing looks at every file before and after.
func TestExamineChangesNothing(t *testing.T) {
	t.Parallel()
	cfg := healthy(t)
	cfg.Now = func() time.Time { return time.Now().Add(FounderTerm) } // due for renewal
	before := tree(t, cfg.Home)
	by := diagnosed(t, Examine(t.Context(), cfg), offline)
	says(t, by["token"], "mints its own token anew", "")
	if after := tree(t, cfg.Home); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func tree(t *testing.T, home Home) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"", "mesh"} {
		entries, err := os.ReadDir(home.path(name))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b.WriteString(e.Name() + " ")
			if !e.IsDir() {
				text, err := os.ReadFile(home.path(name, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				b.Write(text)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// TestExamineBesideARunningNode is for a node whose API does not answer.
func TestExamineBesideARunningNode(t *testing.T) {
	t.Parallel()
	cfg := healthy(t)
	n, err := New(t.Context(), cfg) // holds the home, serves nothing yet
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	want := offline.with("listen", skipped).with("api", failed)
	by := diagnosed(t, Examine(t.Context(), cfg), want)
	says(t, by["listen"], "see the api step", "")
	says(t, by["api"], "serves no API", "log")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cfg.Home.writeAPIAddress(l.Addr().String()), l.Close()); err != nil {
		t.Fatal(err)
	}
	by = diagnosed(t, Examine(t.Context(), cfg), want)
	says(t, by["api"], "does not answer", "log")
	write(t, cfg.Home.APIFile(), "nonsense")
	by = diagnosed(t, Examine(t.Context(), cfg), want)
	says(t, by["api"], "api.json", "start it again")
}

// alone is what a node on loopback finds that is its mesh's only one.
var alone = states{"disk": ok, "blocks": ok, "token": ok, "listen": ok, "address": warned, "api": ok,
	"members": warned, "clock": skipped, "reachability": skipped, "relay": skipped}

func doctor(t *testing.T, n *running) []api.Check {
	t.Helper()
	got, err := n.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestDoctorOnABrokenHome breaks the home under a running node.
func TestDoctorOnABrokenHome(t *testing.T) {
	t.Parallel()
	for _, c := range append([]ill{
		{name: "wrong token", step: "api", detail: "refuses this home's token", fix: "restart", make: func(t *testing.T, cfg *Config) { write(t, cfg.Home.APIToken(), strings.Repeat("x", 43)) }},
		{name: "no token", step: "api", detail: "can't be read", fix: "makes a new one", make: func(t *testing.T, cfg *Config) {
			if err := os.Remove(cfg.Home.APIToken()); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "API of somebody else", step: "api", detail: "does not answer", fix: "log", make: func(t *testing.T, cfg *Config) {
			if err := cfg.Home.writeAPIAddress("127.0.0.1:1"); err != nil {
				t.Fatal(err)
			}
		}},
	}, homeIlls...) {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, healthy(t))
			diagnosed(t, doctor(t, n), alone)
			c.make(t, &n.cfg)
			if c.state == "" {
				c.state = failed
			}
			by := diagnosed(t, doctor(t, n), alone.with(c.step, c.state))
			says(t, by[c.step], c.detail, c.fix)
		})
	}
}

// TestDoctorOfTwo looks at what takes another member.
func TestDoctorOfTwo(t *testing.T) {
	t.Parallel()
	a := start(t, healthy(t))
	cfg := joiner(t, invite(t, a).Line)
	cfg.minFree = 1
	both := alone.with("members", ok).with("clock", ok)
	for _, c := range []struct {
		apart time.Duration
		clock api.CheckState
	}{{0, ok}, {10 * time.Minute, warned}, {90 * time.Minute, failed}} {
		cfg.Now = func() time.Time { return time.Now().Add(c.apart) }
		b := start(t, cfg)
		meet(t, a, b)
		of := map[string]api.Check{}
		for name, n := range map[string]*running{"ahead": b, "behind": a} {
			of[name] = diagnosed(t, doctor(t, n), both.with("clock", c.clock))["clock"]
		}
		if c.apart != 0 {
			says(t, of["behind"], "ahead of this one", "set this machine's clock")
			says(t, of["ahead"], "behind this one", "set this machine's clock")
		}
		b.stop()
		// The other is gone, but known.
		await(t, a, "the other has left", func() bool { return len(a.host.Members()) == 0 })
		by := diagnosed(t, doctor(t, a), both.with("members", failed).with("clock", skipped))
		says(t, by["members"], "none of the", "kith peers")
	}

	// So far behind that the other's token is of its future: hello fails, and
	// doctor says why.
	token, err := auth.Mint(a.member.root, auth.Subject{Peer: peerOf(t, cfg.Home), Rights: auth.MemberRights, Issued: time.Now().Add(-9 * time.Hour), Expires: time.Now().Add(99 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	write(t, cfg.Home.Token(), string(token))
	cfg.Now = func() time.Time { return time.Now().Add(-90 * time.Minute) }
	b := start(t, cfg)
	if err := b.host.Connect(t.Context(), peer.AddrInfo{ID: a.host.ID(), Addrs: a.host.Raw().Addrs()}); p2p.RefusalCode(err) != p2p.CodeClock {
		t.Fatalf("got %v", err)
	}
	by := diagnosed(t, doctor(t, b), both.with("members", failed).with("clock", failed))
	says(t, by["clock"], "clock", "clock")
	says(t, by["members"], "clock", "kith peers")
	peers, err := b.Peers(t.Context())
	if err != nil || len(peers) != 1 || !strings.Contains(peers[0].Problem, "clock") {
		t.Errorf("peers: %+v, %v", peers, err)
	}
}

func peerOf(t *testing.T, home Home) peer.ID {
	t.Helper()
	m, _, err := readMembership(home, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m.id
}

// TestDoctorOnReach gives a running node the ways in which others may or may
// not reach it.
func TestDoctorOnReach(t *testing.T) {
	t.Parallel()
	n := start(t, healthy(t))
	at := []ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/tcp/4101")}
	relay := []ma.Multiaddr{ma.StringCast("/ip4/5.6.7.8/tcp/4101/p2p/" + n.started.Peer + "/p2p-circuit")}
	public := p2p.Reachability{State: p2p.ReachPublic, Reachable: at}
	well := alone.with("reachability", ok).with("relay", ok)
	for _, c := range []struct {
		name        string
		reach       p2p.Reachability
		loopback    bool
		want        states
		step        string
		detail, fix string
	}{
		{"public", public, false, well, "reachability", "/ip4/1.2.3.4/tcp/4101", ""},
		{"private, with a relay", p2p.Reachability{State: p2p.ReachPrivate, Unreachable: at, Relays: relay}, false, well.with("reachability", warned), "reachability", "could not dial /ip4/1.2.3.4", "forward "},
		{"relayed", p2p.Reachability{State: p2p.ReachRelayed, Unreachable: at, Relays: relay}, false, well.with("reachability", warned), "relay", "/p2p-circuit", ""},
		{"private, without a relay", p2p.Reachability{State: p2p.ReachPrivate, Unreachable: at}, false, well.with("reachability", warned).with("relay", failed), "relay", "no member relays", "publicly reachable"},
		{"nothing public", p2p.Reachability{State: p2p.ReachLocal}, false, well.with("reachability", warned).with("relay", skipped), "reachability", "LAN alone", "forward "},
		{"not asked yet", p2p.Reachability{State: p2p.ReachUnknown}, false, well.with("reachability", skipped).with("relay", skipped), "reachability", "has been asked yet", ""},
		{"loopback", p2p.Reachability{State: p2p.ReachLocal}, true, alone, "relay", "loopback only", ""},
	} {
		v := n.vitals()
		v.reach, v.loopback = c.reach, c.loopback
		by := diagnosed(t, n.doctor(t.Context(), v), c.want)
		says(t, by[c.step], c.detail, c.fix)
	}

	// The listeners: dead, none, or those that doctor can't dial.
	v := n.vitals()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone, err := manet.FromNetAddr(dead.Addr())
	if err := errors.Join(err, dead.Close()); err != nil {
		t.Fatal(err)
	}
	v.addrs = []ma.Multiaddr{gone}
	by := diagnosed(t, n.doctor(t.Context(), v), alone.with("listen", failed))
	says(t, by["listen"], "can't dial its own", "firewall")
	v.addrs = nil
	by = diagnosed(t, n.doctor(t.Context(), v), alone.with("listen", failed))
	says(t, by["listen"], "no address", "--listen")
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		listen, has string
		state       api.CheckState
		detail      string
	}{
		{"/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.5/tcp/1", warned, "loopback only"},
		{"/ip4/0.0.0.0/tcp/1", "/ip4/10.0.0.5/tcp/1", ok, "on the LAN: 10.0.0.5"},
		{"/ip4/0.0.0.0/tcp/1", "/ip4/8.8.8.8/tcp/1", ok, "public address 8.8.8.8"},
		{"/ip4/0.0.0.0/tcp/1", "/ip4/127.0.0.1/tcp/1", failed, "no interface"},
		{"/ip4/0.0.0.0/tcp/1", "/ip6/fe80::1/tcp/1", failed, "no interface"},
	} {
		got := checkAddress([]string{c.listen}, func() ([]ma.Multiaddr, error) { return []ma.Multiaddr{ma.StringCast(c.has)}, nil })
		if got.state != c.state || !strings.Contains(got.detail, c.detail) || (got.fix == "") != (c.state == ok) {
			t.Errorf("%s with %s: %+v", c.listen, c.has, got)
		}
	}
	if got := checkAddress([]string{"/ip4/0.0.0.0/tcp/1"}, func() ([]ma.Multiaddr, error) { return nil, errors.New("no netlink") }); got.state != failed || got.fix == "" {
		t.Errorf("addresses not known: %+v", got)
	}
}

// What a router would have to forward is what the node is told to listen on.
func TestPortOf(t *testing.T) {
	for _, c := range []struct {
		listen []string
		want   string
	}{
		{[]string{"/ip4/0.0.0.0/tcp/4101", "/ip6/::/tcp/4101", "/ip4/0.0.0.0/udp/4101/quic-v1", "/ip6/::/udp/4101/quic-v1"}, "TCP port 4101 and UDP port 4101"},
		{[]string{"/ip4/0.0.0.0/tcp/5000"}, "TCP port 5000"},
		{[]string{"/ip4/127.0.0.1/tcp/0"}, "its port"},
	} {
		if got := portOf(c.listen); got != c.want {
			t.Errorf("portOf(%v) = %q, want %q", c.listen, got, c.want)
		}
	}
}
