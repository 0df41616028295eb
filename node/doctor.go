package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

const (
	doctorStep = 5 * time.Second
	clockNote  = 2 * time.Minute // apart: worth a word; auth.Skew apart: broken
)

// finding is what a step came to, before it has its name and time.
type finding struct {
	state  api.CheckState
	detail string
	fix    string
}

func fine(format string, args ...any) finding {
	return finding{state: api.CheckOK, detail: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) finding {
	return finding{api.CheckWarn, fmt.Sprintf(format, args...), fix}
}

func fail(fix, format string, args ...any) finding {
	return finding{api.CheckFail, fmt.Sprintf(format, args...), fix}
}

func untried(format string, args ...any) finding {
	return finding{state: api.CheckSkipped, detail: "not tried: " + fmt.Sprintf(format, args...)}
}

// step is one thing that doctor tries.
type step struct {
	name string
	try  func(ctx context.Context) finding
}

// examine tries the steps one after the other.
func examine(ctx context.Context, steps []step) []api.Check {
	out := make([]api.Check, 0, len(steps))
	for _, s := range steps {
		begin := time.Now()
		sctx, stop := context.WithTimeout(ctx, doctorStep)
		f := s.try(sctx)
		stop()
		out = append(out, api.Check{Name: s.name, State: f.state, Detail: f.detail, Fix: f.fix, TookMs: ms(time.Since(begin))})
	}
	return out
}

// Examine is `kith doctor` where no node runs, or none answers: it tries all
// that can be tried from the home and the config, and says what it did not try.
// It changes nothing in the home.
func Examine(ctx context.Context, cfg Config) []api.Check {
	cfg = cfg.fill()
	down := func(what string) func(context.Context) finding {
		return func(context.Context) finding {
			return untried("%s is known by a running node only, and none answers on this home: start it with kith up", what)
		}
	}
	running := cfg.Home.inUse()
	return examine(ctx, []step{
		{"disk", func(context.Context) finding { return checkDisk(cfg.Home, cfg.minFree) }},
		{"blocks", down("which stored blocks are damaged")},
		{"token", func(context.Context) finding { return checkToken(cfg.Home, cfg.Now()) }},
		{"listen", func(context.Context) finding { return checkListen(cfg, running) }},
		{"address", func(context.Context) finding { return checkAddress(cfg.Listen, manet.InterfaceMultiaddrs) }},
		{"api", func(ctx context.Context) finding { return checkAPI(ctx, cfg.Home, cfg.APIListen, running) }},
		{"members", down("who is connected")},
		{"clock", down("other members' time")},
		{"reachability", down("whether others can dial this machine")},
		{"relay", down("whether a relay would carry it")},
	})
}

// vitals are what the running host tells of itself and of others.
type vitals struct {
	addrs    []ma.Multiaddr
	members  []p2p.Member
	known    int
	reach    p2p.Reachability
	loopback bool // every address is
	troubles map[peer.ID]p2p.Trouble
}

func (n *Node) vitals() vitals {
	return vitals{addrs: n.host.Raw().Addrs(), members: n.host.Members(), known: len(n.host.Known()), reach: n.host.Reachability(), loopback: n.loopbackOnly(), troubles: n.host.Troubles()}
}

// Doctor tries each step of this running node.
func (n *Node) Doctor(ctx context.Context) ([]api.Check, error) {
	return n.doctor(ctx, n.vitals()), nil
}

func (n *Node) doctor(ctx context.Context, v vitals) []api.Check {
	addrs := func() ([]ma.Multiaddr, error) { return v.addrs, nil }
	return examine(ctx, []step{
		{"disk", func(context.Context) finding { return n.checkRoom() }},
		{"blocks", n.checkBlocks},
		{"token", func(context.Context) finding { return checkToken(n.cfg.Home, n.cfg.Now()) }},
		{"listen", func(ctx context.Context) finding { return checkListening(ctx, v.addrs) }},
		{"address", func(context.Context) finding { return checkAddress(n.cfg.Listen, addrs) }},
		{"api", func(ctx context.Context) finding { return checkAPI(ctx, n.cfg.Home, n.cfg.APIListen, true) }},
		{"members", func(context.Context) finding { return checkMembers(v) }},
		{"clock", func(context.Context) finding { return checkClock(v) }},
		{"reachability", func(context.Context) finding { return checkReachable(v.reach, v.loopback, portOf(n.cfg.Listen)) }},
		{"relay", func(context.Context) finding { return checkRelay(v.reach, v.loopback) }},
	})
}

// checkBlocks names the stored blocks that reads found damaged.
func (n *Node) checkBlocks(ctx context.Context) finding {
	list, err := n.store.Damaged(ctx)
	if err != nil {
		return warn("", "damaged blocks could not be listed: %v", err)
	}
	var names []string
	for _, d := range list {
		names = append(names, fmt.Sprintf("block %s of %s", d.Block, d.Roots[0].CID))
	}
	if text := countedBlocks(names); text != "" {
		return fail("add the same files again with kith add, or connect a member that has them; then look at the disk's health", "%s: never served, and fetched again when a member has it", text)
	}
	return fine("no read found a damaged block since the start")
}

// checkRoom is checkDisk, and whether this node could make durable what it had to.
func (n *Node) checkRoom() finding {
	const fix = "free some room on the disk, or with kith unpin and kith gc, or start with a larger --disk; the node goes on by itself"
	if err := n.market.Stalled(); err != nil {
		return fail(fix, "jobs in hand stand still, since nothing can be made durable: %v", err)
	}
	if err := n.room(); err != nil {
		return fail(fix, "the node takes no jobs and no work: %v", err)
	}
	return checkDisk(n.cfg.Home, n.cfg.minFree)
}

// checkDisk writes, syncs, reads back and removes a file, and looks at the room.
func checkDisk(home Home, minFree int64) finding {
	if home == "" {
		return fail("set --home or KITH_HOME", "no home folder is given")
	}
	info, err := os.Stat(string(home))
	if errors.Is(err, fs.ErrNotExist) {
		return fail("make it with kith init, or kith up --join LINE", "home %s does not exist", home)
	}
	if err != nil || !info.IsDir() {
		return fail("choose another with --home", "home %s can't be used: %v", home, errors.Join(err, notFolder(info)))
	}
	if err := home.checkVersion(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail("use the kith that made it, or another --home", "%v", err)
	}
	if err := tryFile(string(home)); err != nil {
		return fail("check the folder's rights and that the disk is not full or read-only", "home %s can't be written: %v", home, err)
	}
	_, free, err := volume(string(home))
	switch {
	case err != nil:
		return warn("", "wrote and read a file, but the free room is not known: %v", err)
	case free < minFree:
		return fail("free some room, or move the home", "%d MiB are free on the volume of %s, want %d at least", free>>20, home, minFree>>20)
	}
	return fine("wrote, synced and read a file in %s; %d GiB free", home, free>>30)
}

func notFolder(info fs.FileInfo) error {
	if info != nil && !info.IsDir() {
		return errors.New("it is not a folder")
	}
	return nil
}

func tryFile(dir string) (err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	const text = "kith doctor was here\n"
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	b, err := os.ReadFile(f.Name())
	if err == nil && string(b) != text {
		err = fmt.Errorf("read back %q", b)
	}
	return err
}

// checkToken verifies key and member token.
func checkToken(home Home, now time.Time) finding {
	for _, name := range []string{home.Key(), home.Root()} {
		if info, err := os.Stat(name); err == nil && tooOpen(info.Mode()) {
			return fail("run chmod 600 "+name, "%s can be read by others (mode %v): make a new one if others did", name, info.Mode().Perm())
		}
	}
	m, minted, err := readMembership(home, now)
	switch {
	case errors.Is(err, ErrNoMesh):
		return fail("make a mesh with kith init, or join one with kith up --join LINE", "this home belongs to no mesh")
	case errors.Is(err, auth.ErrExpired):
		return fail("ask a member that may invite for a new invite line, and join by it from a new home", "%v", err)
	case errors.Is(err, auth.ErrClock):
		return fail("set this machine's clock", "%v", err)
	case err != nil:
		return fail("restore the home's mesh folder from a copy, or join again from a new home", "%v", err)
	}
	if left := m.grant.Expires.Sub(now); minted {
		return fine("founder of mesh %s: mints its own token anew at the next start", m.mesh.Prefix())
	} else if m.grant.LastThird(now) {
		return warn("keep the node connected: members that may admit renew it", "member of %s until %s, in %s", m.mesh.Prefix(), m.grant.Expires.Format(time.DateOnly), left.Round(time.Hour))
	}
	return fine("member of mesh %s until %s, may %s", m.mesh.Prefix(), m.grant.Expires.Format(time.DateOnly), m.grant.Rights)
}

// checkListen binds every address and lets go of it.
func checkListen(cfg Config, running bool) finding {
	if running {
		return untried("a kith runs on this home and holds its ports, but its API does not answer; see the api step")
	}
	addrs, err := cfg.listenAddrs()
	if err != nil {
		return fail("write it like /ip4/0.0.0.0/tcp/4101", "%v", err)
	}
	var bound []string
	for _, a := range addrs {
		if err := tryBind(a); err != nil {
			return fail("stop what uses it, or choose another address with --listen", "can't listen on %s: %v", a, err)
		}
		bound = append(bound, a.String())
	}
	return fine("could listen on %s", strings.Join(bound, ", "))
}

func tryBind(a ma.Multiaddr) error {
	network, addr, err := manet.DialArgs(a)
	if err != nil {
		return err
	}
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// checkListening dials each TCP address that the node listens on.
func checkListening(ctx context.Context, addrs []ma.Multiaddr) finding {
	var dialled, quiet int
	for _, a := range addrs {
		network, addr, err := manet.DialArgs(a)
		if err != nil || !strings.HasPrefix(network, "tcp") {
			quiet++
			continue
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return fail("check this machine's firewall", "this machine can't dial its own %s: %v", a, err)
		}
		if err := c.Close(); err != nil {
			return fail("try again", "close: %v", err)
		}
		dialled++
	}
	if dialled+quiet == 0 {
		return fail("choose an address with --listen", "the node listens on no address")
	}
	return fine("dialled %d TCP addresses of its own; %d UDP ones were not dialled", dialled, quiet)
}

// checkAddress looks for an address that another machine could dial.
func checkAddress(listen []string, of func() ([]ma.Multiaddr, error)) finding {
	if loopbackListen(listen) {
		return warn("for other machines, listen on 0.0.0.0: kith up --listen /ip4/0.0.0.0/tcp/4101", "it is told to listen on loopback only: just nodes on this machine can reach it")
	}
	addrs, err := of()
	if err != nil {
		return fail("check the network's configuration", "this machine's addresses are not known: %v", err)
	}
	var private, public []string
	for _, a := range addrs {
		ip, err := manet.ToIP(a)
		if err != nil || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		if manet.IsPublicAddr(a) {
			public = append(public, ip.String())
		} else {
			private = append(private, ip.String())
		}
	}
	slices.Sort(private)
	slices.Sort(public)
	switch private, public = slices.Compact(private), slices.Compact(public); {
	case len(public) > 0:
		return fine("public address %s", strings.Join(public, ", "))
	case len(private) > 0:
		return fine("address on the LAN: %s; reaching beyond it is the step reachability", strings.Join(private, ", "))
	}
	return fail("connect this machine to a network", "no interface has an address that another machine could dial")
}

func loopbackListen(listen []string) bool {
	for _, s := range listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil || !isLoopback(a) {
			return false
		}
	}
	return len(listen) > 0
}

func isLoopback(a ma.Multiaddr) bool { return manet.IsIPLoopback(a) }

// checkAPI asks the running node's API with the home's token, or else tries
// whether it could be bound.
func checkAPI(ctx context.Context, home Home, listen string, running bool) finding {
	if info, err := os.Stat(home.APIToken()); err == nil && tooOpen(info.Mode()) {
		return fail("run chmod 600 "+home.APIToken(), "the API's token can be read by others (mode %v)", info.Mode().Perm())
	}
	if !running {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return fail("stop what uses it, or choose another address with --api-listen", "no node runs on this home, and its API could not listen on %s: %v", listen, err)
		}
		if err := l.Close(); err != nil {
			return fail("try again", "close: %v", err)
		}
		return warn("start it with kith up", "no node runs on this home; its API could listen on %s", listen)
	}
	at, err := home.ReadAPIAddress()
	if errors.Is(err, fs.ErrNotExist) {
		return fail("wait until it is up, or look at its log", "a kith runs on this home and serves no API")
	}
	if err != nil {
		return fail("stop the node, and start it again", "%v", err)
	}
	token, err := os.ReadFile(home.APIToken())
	if err != nil {
		return fail("stop the node, and start it again: it makes a new one", "the API's token can't be read: %v", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.Address+"/api/v1/id", nil)
	if err != nil {
		return fail("delete "+home.APIFile()+" and start the node again", "%v", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fail("look at the node's log", "the API at %s does not answer: %v", at.Address, err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return fail("try again, and look at the node's log", "the API at %s broke off: %v", at.Address, err)
	}
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return fail("restart the node, which reads its token at start; if another program or node listens there, choose another address with --api-listen",
			"the API at %s refuses this home's token in %s", at.Address, filepath.Base(home.APIToken()))
	default:
		return fail("another program may listen there: choose another address with --api-listen", "the API at %s answered %s to this home's token in %s", at.Address, res.Status, filepath.Base(home.APIToken()))
	}
	return fine("the API at %s answers to this home's token", at.Address)
}

func checkMembers(v vitals) finding {
	if len(v.members) > 0 {
		return fine("connected with %d members; %d known", len(v.members), v.known)
	}
	if v.known == 0 && len(v.troubles) == 0 {
		return warn("invite another machine: kith invite create, then there kith up --join LINE", "no other member is known yet")
	}
	var last p2p.Trouble
	for _, t := range v.troubles {
		if t.At.After(last.At) {
			last = t
		}
	}
	why := ""
	if last.Why != nil {
		why = fmt.Sprintf("; the last tried: %v", last.Why)
	}
	return fail("check the network and that the others run; kith peers names the problem of each", "none of the members known is connected%s", why)
}

// checkClock compares with the members' clocks, by what they claimed at hello.
// Where the clocks are too far apart hello fails, and there are no members.
func checkClock(v vitals) finding {
	members := v.members
	if len(members) == 0 {
		for _, t := range v.troubles {
			if p2p.RefusalCode(t.Why) == p2p.CodeClock {
				return fail("set this machine's clock, or theirs: tokens bear at most an hour", "%v", t.Why)
			}
		}
		return untried("no member is connected to compare with")
	}
	var apart []time.Duration
	for _, m := range members {
		apart = append(apart, m.ClockAhead)
	}
	slices.Sort(apart)
	median := apart[len(apart)/2]
	switch {
	case median.Abs() > auth.Skew:
		return fail("set this machine's clock; tokens bear at most an hour", "the middle of %d members' clocks is %s", len(members), beside(median))
	case median.Abs() > clockNote:
		return warn("set this machine's clock", "the middle of %d members' clocks is %s", len(members), beside(median))
	}
	return fine("within %s of the middle of %d members' clocks", max(median.Abs().Round(time.Second), time.Second), len(members))
}

func beside(ahead time.Duration) string {
	if ahead < 0 {
		return ahead.Abs().Round(time.Second).String() + " behind this one"
	}
	return ahead.Round(time.Second).String() + " ahead of this one"
}

// portOf names what a router would have to forward, by the addresses that the node
// is told to listen on.
func portOf(listen []string) string {
	var names []string
	for _, s := range listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		network, addr, err := manet.DialArgs(a)
		if err != nil {
			continue
		}
		_, port, err := net.SplitHostPort(addr)
		if name := strings.ToUpper(strings.TrimRight(network, "46")) + " port " + port; err == nil && port != "0" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "its port"
	}
	return strings.Join(names, " and ")
}

// checkReachable says what members found when they dialled this node.
func checkReachable(r p2p.Reachability, loopback bool, port string) finding {
	switch r.State {
	case p2p.ReachPublic:
		return fine("members dialled %s", strings.Join(texts(r.Reachable), ", "))
	case p2p.ReachPrivate, p2p.ReachRelayed:
		return warn("forward "+port+" in the router to this machine, or switch on UPnP there", "members could not dial %s; the node is %s", strings.Join(texts(r.Unreachable), ", "), r.State)
	case p2p.ReachLocal:
		if loopback {
			return untried("the node listens on loopback only")
		}
		return warn("for members elsewhere, forward "+port+" in the router or use one member that is publicly reachable", "nothing public is listened on or mapped: this LAN alone can reach the node")
	}
	return untried("no member that could dial back has been asked yet")
}

// checkRelay says whether a relay stands ready where one is needed.
func checkRelay(r p2p.Reachability, loopback bool) finding {
	switch {
	case len(r.Relays) > 0:
		return fine("reachable through %s", strings.Join(texts(r.Relays), ", "))
	case r.State == p2p.ReachPublic:
		return fine("none is needed: the node is publicly reachable, and relays for others")
	case loopback:
		return untried("the node listens on loopback only")
	case r.State == p2p.ReachPrivate:
		return fail("connect to a member that is publicly reachable: it relays", "others can't dial this node, and no member relays for it")
	}
	return untried("no publicly reachable member is connected to ask")
}
