package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/internal/pb"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
)

const (
	keepEvery         = 5 * time.Second // reconnecting
	recheckEvery      = time.Minute     // tokens of members
	saveEvery         = 2 * time.Minute // peer cache
	healEvery         = time.Minute     // a try at somebody who is not connected
	fewMembers        = 4               // below it, known members are dialled
	redialAtOnce      = 4
	redialBackoff     = 2 * time.Second
	mostRedialBackoff = 5 * time.Minute
	aloneBackoff      = 20 * time.Second // at most, for who has no member at all
)

// Renew asks a member that may admit for a token with a later end. The request
// is empty: what is renewed is what the asker's hello showed.
var Renew = Protocol{Name: "renew", Version: "1.0.0", MaxMessage: 8 << 10, Deadline: 10 * time.Second, Streams: 1, Rate: 0.1, Burst: 5}

// keep runs what happens now and then: reconnecting, checking tokens, renewing
// our own, closing idle streams, saving the cache.
func (h *Host) keep(ctx context.Context) {
	rng := rand.New(rand.NewPCG(h.cfg.Seed, 0x6b656570))
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	start := time.Now()
	checked, saved, healed := start, start, start
	at := h.interfaces()
	inCache := map[peer.ID]bool{} // members that were saved since the start
	for {
		if now := h.interfaces(); now != at {
			at = now
			h.log.Info("this machine's addresses changed: known members are tried again")
			h.roam()
		}
		h.reconnect(ctx, rng, time.Since(healed) >= healEvery)
		if time.Since(healed) >= healEvery {
			healed = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		h.caller.sweep(time.Now())
		if time.Since(checked) >= recheckEvery {
			checked = time.Now()
			h.Recheck()
			h.renew(ctx)
		}
		// A new member is saved at once: killed now, the node must find the mesh again.
		members := h.memberIDs()
		if time.Since(saved) >= saveEvery || slices.ContainsFunc(members, func(id peer.ID) bool { return !inCache[id] }) {
			saved = time.Now()
			clear(inCache)
			for _, id := range members {
				inCache[id] = true
			}
			h.saveCache()
		}
	}
}

// Recheck closes the members whose tokens have expired or been revoked since
// their hello. It happens every minute by itself; call it when somebody was
// revoked.
func (h *Host) Recheck() {
	type held struct {
		id    peer.ID
		token auth.Token
		grant auth.Grant
	}
	var members []held
	h.gate.mu.Lock()
	for id, p := range h.gate.peers {
		if p.member {
			members = append(members, held{id, p.token, p.grant})
		}
	}
	h.gate.mu.Unlock()
	now := h.now()
	for _, m := range members {
		if h.cfg.Revoked == nil && !now.After(m.grant.Expires.Add(auth.Skew)) {
			continue
		}
		if _, err := m.token.Verify(h.cfg.Mesh, m.id, now, h.cfg.Revoked); err != nil {
			h.log.Info("membership ended", "peer", m.id, "why", err)
			h.gate.refuse(m.id, fmt.Errorf("%w: %w", ErrStranger, err))
			_ = h.raw.Network().ClosePeer(m.id)
		}
	}
}

// reconnect dials known members when few are connected, and one of the others
// now and then, so that the two halves of a cut mesh find each other again.
func (h *Host) reconnect(ctx context.Context, rng *rand.Rand, heal bool) {
	members, _ := h.gate.count()
	want := 0
	switch {
	case members < fewMembers:
		want = redialAtOnce
	case heal:
		want = 1
	}
	most := mostRedialBackoff
	if members == 0 {
		most = aloneBackoff
	}
	for _, d := range h.due(rng, want, most) {
		h.tasks.spawn(func(context.Context) { h.redial(ctx, d) })
	}
}

// dialee is a peer to be dialled again.
type dialee struct {
	id    peer.ID
	addrs []ma.Multiaddr
	last  ma.Multiaddr
	boot  bool
}

// due picks n peers that are not connected and whose backoff has passed: the
// bootstrap ones first, then at random among those that were members to us.
func (h *Host) due(rng *rand.Rand, n int, most time.Duration) []dialee {
	if n == 0 {
		return nil
	}
	now := time.Now()
	b := h.book
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []dialee
	for _, pi := range h.cfg.Bootstrap {
		p := b.peers[pi.ID]
		if p == nil {
			p = &page{}
			b.peers[pi.ID] = p
		}
		if pi.ID != h.id && !now.Before(p.retry) && !h.connectedTo(pi.ID) {
			out = append(out, dialee{id: pi.ID, addrs: pi.Addrs, boot: true})
		}
	}
	var rest []dialee
	for id, p := range b.peers {
		if p.met.IsZero() || now.Before(p.retry) || h.connectedTo(id) ||
			slices.ContainsFunc(out, func(d dialee) bool { return d.id == id }) {
			continue
		}
		rest = append(rest, dialee{id: id, addrs: p.addrs, last: p.last})
	}
	slices.SortFunc(rest, func(a, b dialee) int { return compareIDs(a.id, b.id) })
	rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	out = append(out, rest...)
	out = out[:min(len(out), n)]
	for _, d := range out { // until the try is over, nobody tries again
		p := b.peers[d.id]
		wait := min(redialBackoff<<min(p.fails, 16), most)
		p.fails++
		p.retry = now.Add(wait/2 + time.Duration(rng.Int64N(int64(wait))))
	}
	return out
}

func (h *Host) connectedTo(id peer.ID) bool {
	return h.raw.Network().Connectedness(id) != network.NotConnected
}

func (h *Host) redial(ctx context.Context, d dialee) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	clearBackoff(h.raw.Network(), d.id)
	var err error
	if d.boot {
		err = h.Connect(ctx, peer.AddrInfo{ID: d.id, Addrs: d.addrs})
	} else {
		if d.last != nil { // it was reached there before
			h.net.trust(peer.AddrInfo{ID: d.id, Addrs: []ma.Multiaddr{d.last}})
			h.raw.Peerstore().AddAddrs(d.id, []ma.Multiaddr{d.last}, learnTTL)
		}
		h.dialFrom(d.id, d.addrs)
		err = h.Connect(ctx, peer.AddrInfo{ID: d.id})
	}
	if err != nil && ctx.Err() == nil {
		h.gate.troubles.note(d.id, err)
		h.log.Debug("a known peer was not reached", "peer", d.id, "err", err)
	}
}

var errCannotAdmit = errors.New("this member's token does not allow it to admit")

// issue makes a token for another: from the root key where we hold it, else
// from our own token, which bounds it.
func (h *Host) issue(to auth.Subject) (auth.Token, error) {
	to.Issued = h.now()
	if to.Expires.IsZero() {
		to.Expires = to.Issued.Add(h.cfg.TokenTTL)
	}
	if h.cfg.Root != nil {
		return auth.Mint(h.cfg.Root, to)
	}
	own := h.Grant()
	if !own.Rights.Has(auth.Admit) {
		return nil, errCannotAdmit
	}
	to.Rights &= own.Rights
	if to.Expires.After(own.Expires) {
		to.Expires = own.Expires
	}
	return auth.Delegate(h.cfg.Key, h.Token(), to)
}

// serveRenew gives a member a token like its own that lasts longer.
func (h *Host) serveRenew(_ context.Context, from peer.ID, _ []byte) ([]byte, error) {
	m, ok := h.Member(from)
	if !ok {
		return nil, Refuse(CodeNotMember, "say hello first")
	}
	token, err := h.issue(auth.Subject{Peer: from, Rights: m.Grant.Rights, Name: m.Grant.Name})
	if errors.Is(err, errCannotAdmit) || errors.Is(err, auth.ErrWidens) {
		return nil, Refuse(CodeCannotAdmit, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&pb.RenewAnswer{Token: token})
}

// renew replaces our own token in its last third, and says hello with it.
func (h *Host) renew(ctx context.Context) {
	own := h.Grant()
	if !own.LastThird(h.now()) {
		return
	}
	if h.cfg.Root != nil {
		token, err := h.issue(auth.Subject{Peer: h.id, Rights: own.Rights, Name: own.Name})
		if err == nil {
			err = h.adopt(own, token)
		}
		if err != nil {
			h.log.Warn("own token not renewed", "err", err)
		}
		return
	}
	for _, m := range h.Members() {
		if !m.Grant.Rights.Has(auth.Admit) {
			continue
		}
		b, err := h.Call(ctx, m.ID, Renew, nil)
		var answer pb.RenewAnswer
		if err == nil {
			err = proto.Unmarshal(b, &answer)
		}
		if err == nil {
			err = h.adopt(own, answer.Token)
		}
		if err == nil {
			return
		}
		h.log.Debug("token not renewed by a member", "peer", m.ID, "err", err)
	}
	if h.now().After(own.Expires) {
		h.log.Warn("own token has expired and no connected member renews it: ask for a new invite", "expired", own.Expires)
	}
}

// adopt takes a new token of our own if it is better, stores it, and shows it
// to everybody connected.
func (h *Host) adopt(own auth.Grant, token auth.Token) error {
	g, err := token.Verify(h.cfg.Mesh, h.id, h.now(), nil)
	if err != nil {
		return err
	}
	if !g.Rights.Has(own.Rights) || !g.Expires.After(own.Expires) {
		return fmt.Errorf("the offered token is no better: %s until %s", g.Rights, g.Expires)
	}
	if h.cfg.OnToken != nil {
		if err := h.cfg.OnToken(token); err != nil {
			return fmt.Errorf("store the new token: %w", err)
		}
	}
	h.own.Store(&ownToken{token, g})
	h.log.Info("own token renewed", "until", g.Expires)
	for _, m := range h.Members() {
		h.tasks.spawn(func(ctx context.Context) { h.gate.greet(ctx, m.ID) })
	}
	return nil
}
