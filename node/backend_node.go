package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

// ID says who the node is.
func (n *Node) ID(context.Context) (api.Identity, error) { return n.identity(), nil }

func (n *Node) identity() api.Identity {
	g := n.grant()
	return api.Identity{
		Peer: n.member.id.String(), Mesh: string(n.member.mesh), MeshName: n.member.about.Name, Open: n.member.about.Open,
		Name: g.Name, Rights: rightsOf(g.Rights), Expires: g.Expires, Addresses: texts(n.host.Raw().Addrs()), Founder: n.member.root != nil,
	}
}

func texts(addrs []ma.Multiaddr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// Ready is nil once every service is up.
func (n *Node) Ready(context.Context) error {
	select {
	case <-n.ready:
		return nil
	default:
		return errors.New("services are starting")
	}
}

// Status says how the node is.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	s := api.Status{
		Identity: n.identity(), Version: Version(), Started: n.started, Home: string(n.cfg.Home), Light: n.cfg.Light,
		Reachability: n.reachability(), Members: len(n.host.Members()), Known: len(n.host.Known()), Neighbours: len(n.host.Neighbours()),
		Policy: n.showPolicy(),
	}
	if err := n.Ready(ctx); err != nil {
		s.NotReady = err.Error()
	} else {
		s.Ready = true
	}
	if a, err := n.api.Listen(); err == nil {
		s.API = a.String()
	}
	use, err := n.store.Usage(ctx)
	if err != nil {
		return s, fmt.Errorf("store usage: %w", err)
	}
	pins, err := n.store.Pins(ctx)
	if err != nil {
		return s, fmt.Errorf("pins: %w", err)
	}
	s.Store = api.Store{Bytes: use.Bytes, Max: use.Max, Pinned: int64(len(pins))}
	s.Work.Slots = n.limits.Slots
	if w, ok := n.market.Work(); ok {
		s.Work.Running, s.Work.Queued = int(w.Running), int(w.Queued)
	}
	if s.Work.Owed, err = n.state.Owed(ctx); err != nil {
		return s, err
	}
	views, err := n.market.Jobs(ctx)
	if err != nil {
		return s, fmt.Errorf("jobs: %w", err)
	}
	for _, v := range views {
		if !v.Published && v.Record.Origin() && !v.Status.State.Over() {
			s.Work.Jobs++
		}
	}
	return s, nil
}

func (n *Node) reachability() api.Reachability {
	r := n.host.Reachability()
	out := api.Reachability{State: string(r.State), Addresses: texts(r.Told), Relays: texts(r.Relays)}
	switch r.State {
	case p2p.ReachLocal:
		out.State, out.Detail = "private", "only this machine and its LAN can reach the node: nothing public is listened on or mapped"
		if n.loopbackOnly() {
			out.State, out.Detail = "loopback", "it listens on loopback only: nodes on this machine can reach it"
		}
	case p2p.ReachUnknown:
		out.Detail = "no member has tried yet"
	case p2p.ReachPrivate:
		out.Detail = "members could not dial it; it goes through relays when one is there"
	}
	return out
}

func (n *Node) loopbackOnly() bool {
	for _, a := range n.host.Raw().Addrs() {
		if !isLoopback(a) {
			return false
		}
	}
	return true
}

// Peers lists the members known, connected ones first, the nearest first.
func (n *Node) Peers(context.Context) ([]api.Peer, error) {
	links := map[peer.ID]p2p.Neighbour{}
	for _, l := range n.host.Neighbours() {
		links[l.ID] = l
	}
	var out []api.Peer
	seen := map[peer.ID]bool{}
	add := func(p api.Peer, id peer.ID, c p2p.Capacity) {
		seen[id] = true
		p.ID = id.String()
		if d, ok := n.host.Predict(id); ok {
			p.PredictedMs = ms(d)
		}
		if l, ok := links[id]; ok {
			p.Link = "near"
			if l.Far {
				p.Link = "far"
			}
		}
		p.Capacity = api.Capacity{Cores: c.Cores, Memory: c.Memory, Disk: c.Disk, Kinds: c.Kinds, Paused: c.Paused}
		out = append(out, p)
	}
	for _, m := range n.host.Members() {
		p := api.Peer{Name: m.Grant.Name, Connected: true, Path: string(m.Path), RTTMs: ms(m.RTT), Agent: m.Agent,
			Rights: rightsOf(m.Grant.Rights), Expires: m.Grant.Expires, Since: m.Since}
		if m.Addr != nil {
			p.Address = m.Addr.String()
		}
		add(p, m.ID, m.Capacity)
	}
	troubles := n.host.Troubles()
	problem := func(id peer.ID) string {
		if t := troubles[id]; t.Why != nil {
			return t.Why.Error()
		}
		return ""
	}
	for _, k := range n.host.Known() {
		if !seen[k.ID] && k.ID != n.host.ID() {
			add(api.Peer{RTTMs: ms(k.RTT), Problem: problem(k.ID)}, k.ID, k.Capacity)
		}
	}
	for id, t := range troubles { // of members met in an earlier life
		if !seen[id] && !stranger(t.Why) {
			add(api.Peer{Problem: problem(id)}, id, p2p.Capacity{})
		}
	}
	slices.SortFunc(out, func(a, b api.Peer) int {
		if a.Connected != b.Connected {
			if a.Connected {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(near(a), near(b)), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// stranger reports whether a trouble is with a peer that is no member of this
// mesh, rather than one that can't be reached or whose token does not hold now.
func stranger(why error) bool {
	switch p2p.RefusalCode(why) {
	case p2p.CodeClock, p2p.CodeTokenExpired, p2p.CodeTokenRevoked:
		return false
	}
	return errors.Is(why, p2p.ErrStranger)
}

// near is what a peer is sorted by: its measured RTT, else the predicted.
func near(p api.Peer) float64 {
	if p.RTTMs > 0 {
		return p.RTTMs
	}
	if p.PredictedMs > 0 {
		return p.PredictedMs
	}
	return 1e12
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

const (
	inviteTerm    = 24 * time.Hour
	maxInviteTerm = 365 * 24 * time.Hour
)

// mayInvite reports whether this node's token lets it admit.
func (n *Node) mayInvite() bool { return n.grant().Rights.Has(auth.Admit) }

// CreateInvite makes an invite durable, then shows its line.
func (n *Node) CreateInvite(ctx context.Context, req api.InviteRequest) (api.Invite, error) {
	if !n.mayInvite() {
		return api.Invite{}, api.Refused(0, "make it on the mesh's founder, or a member with the right admit", "this node's token does not let it admit new members")
	}
	term := inviteTerm
	if req.ExpiresIn != "" {
		d, err := time.ParseDuration(req.ExpiresIn)
		if err != nil || d <= 0 || d > maxInviteTerm {
			return api.Invite{}, api.Invalid("such as 30m or 24h, up to 8760h", "expiresIn: %q is not a usable duration", req.ExpiresIn)
		}
		term = d
	}
	rights := auth.MemberRights
	if len(req.Rights) > 0 {
		rights = 0
		for _, text := range req.Rights {
			r, err := auth.ParseRights(text)
			if err != nil {
				return api.Invite{}, api.Invalid("", "rights: %v", err)
			}
			rights |= r
		}
	}
	if !n.grant().Rights.Has(rights) {
		return api.Invite{}, api.Refused(0, "ask for fewer", "this node has the rights %v and can't give %v", n.grant().Rights, rights)
	}
	if len(req.Name) > state.MaxInviteName {
		return api.Invite{}, api.Invalid("", "name: %d bytes are more than %d", len(req.Name), state.MaxInviteName)
	}
	records, err := n.inviteRecords(req.Local)
	if err != nil {
		return api.Invite{}, err
	}
	now := n.cfg.Now()
	secret := auth.NewSecret()
	kept := state.Invite{Hash: secret.Hash(), Name: req.Name, Rights: rights, Uses: max(1, req.Uses), Expires: now.Add(term), Created: now}
	if err := n.state.AddInvite(ctx, kept); err != nil {
		return api.Invite{}, err
	}
	line := auth.Invite{Mesh: n.member.mesh, Issuer: n.member.id, Records: records, Secret: secret, Expires: kept.Expires, Rights: rights}.String()
	out := showInvite(kept)
	out.Line = line
	return out, nil
}

// inviteRecords are the signed addresses that an invite carries: the node's own,
// and those of a few members that it is connected to.
func (n *Node) inviteRecords(local bool) ([][]byte, error) {
	own, err := n.host.Record()
	if local {
		own, err = n.localRecord()
	}
	if err != nil {
		return nil, err
	}
	env, err := record.UnmarshalEnvelope(own)
	if err != nil {
		return nil, err
	}
	var r peer.PeerRecord
	if err := env.TypedRecord(&r); err != nil {
		return nil, err
	}
	if len(r.Addrs) == 0 {
		return nil, api.Conflict("listen on another address with kith up --listen, or invite with --local for nodes on this machine",
			"this node has no address that another machine could dial: it listens on %v", texts(n.host.Raw().Addrs()))
	}
	return [][]byte{own}, nil
}

// localRecord is a peer record with every address that is listened on.
func (n *Node) localRecord() ([]byte, error) {
	env, err := record.Seal(&peer.PeerRecord{PeerID: n.member.id, Addrs: n.host.Raw().Addrs(), Seq: peer.TimestampSeq()}, n.member.key)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

func showInvite(i state.Invite) api.Invite {
	return api.Invite{ID: i.ID(), Name: i.Name, Uses: i.Uses, Used: len(i.Peers), Rights: rightsOf(i.Rights), Created: i.Created, Expires: i.Expires, Revoked: i.Revoked}
}

// Invites lists what this node issued.
func (n *Node) Invites(ctx context.Context) ([]api.Invite, error) {
	all, err := n.state.Invites(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Invite, 0, len(all))
	for _, i := range all {
		out = append(out, showInvite(i))
	}
	return out, nil
}

// RevokeInvite ends an invite; who came by it stays a member.
func (n *Node) RevokeInvite(ctx context.Context, id string) error {
	_, err := n.state.RevokeInvite(ctx, id)
	if errors.Is(err, state.ErrNotFound) {
		return api.NotFound("kith invite ls lists them", "no invite %q", id)
	}
	return err
}

// inviteOutUses is how many nodes may join by the invite of --invite-out.
const inviteOutUses = 1000

// writeInvite makes an invite for others that can read the file.
func (n *Node) writeInvite(name string) error {
	i, err := n.CreateInvite(context.Background(), api.InviteRequest{Uses: inviteOutUses, Name: "invite-out"})
	if err != nil {
		return fmt.Errorf("write an invite to %s: %w", name, err)
	}
	return writeFile(name, []byte(i.Line+"\n"), 0o600)
}
