package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	maxRecordAddrs = 16
	maxBook        = 1024
	learnTTL       = time.Hour // of an address that nobody confirmed
	maxSeqAhead    = 24 * time.Hour
)

var errSelf = errors.New("the peer is this node itself")

// book holds the newest signed record of each peer that we heard of, and when
// we last met it as a member.
type book struct {
	h     *Host
	mu    sync.Mutex
	peers map[peer.ID]*page
	known map[string]peer.ID // by the records that peers holds: they verified once

	own      []byte // our own signed record, made anew when the addresses change
	ownAddrs []ma.Multiaddr
}

type page struct {
	record []byte
	seq    uint64
	addrs  []ma.Multiaddr // all that the record says
	learnt time.Time
	met    time.Time // zero: never a member to us
	last   ma.Multiaddr
	fails  int
	retry  time.Time
}

func newBook(h *Host) *book {
	return &book{h: h, peers: map[peer.ID]*page{}, known: map[string]peer.ID{}}
}

// Record is this node's signed peer record: the addresses it tells others. It
// is the same bytes until they change.
func (h *Host) Record() ([]byte, error) {
	addrs := h.net.tell(h.raw.Addrs())
	slices.SortFunc(addrs, func(a, b ma.Multiaddr) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	addrs = addrs[:min(len(addrs), maxRecordAddrs)]
	b := h.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.own != nil && slices.EqualFunc(addrs, b.ownAddrs, ma.Multiaddr.Equal) {
		return b.own, nil
	}
	env, err := record.Seal(&peer.PeerRecord{PeerID: h.id, Addrs: addrs, Seq: uint64(h.now().UnixNano())}, h.cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("sign own addresses: %w", err)
	}
	own, err := env.Marshal()
	if err != nil {
		return nil, fmt.Errorf("sign own addresses: %w", err)
	}
	b.own, b.ownAddrs = own, addrs
	return own, nil
}

// openRecord checks a signed peer record's size, signature and owner.
func openRecord(b []byte) (*peer.PeerRecord, error) {
	if len(b) == 0 || len(b) > maxRecord {
		return nil, fmt.Errorf("peer record of %d bytes: want 1 to %d", len(b), maxRecord)
	}
	rec := &peer.PeerRecord{}
	env, err := record.ConsumeTypedEnvelope(b, rec)
	if err != nil {
		return nil, fmt.Errorf("peer record: %w", err)
	}
	if !rec.PeerID.MatchesPublicKey(env.PublicKey) {
		return nil, errors.New("peer record: not signed by the peer it is about")
	}
	if len(rec.Addrs) > maxRecordAddrs {
		return nil, fmt.Errorf("peer record: %d addresses, the most is %d", len(rec.Addrs), maxRecordAddrs)
	}
	return rec, nil
}

// Learn takes a peer's signed record: its addresses that may be dialled from
// here are remembered. Older records than the newest known change nothing.
func (h *Host) Learn(rec []byte) (peer.ID, error) {
	if id, ok := h.book.holds(rec); ok {
		return id, nil
	}
	r, err := openRecord(rec)
	if err != nil {
		return "", err
	}
	if r.PeerID == h.id {
		return h.id, nil
	}
	if ahead := time.Unix(0, int64(min(r.Seq, 1<<62))).Sub(h.now()); ahead > maxSeqAhead {
		return "", fmt.Errorf("peer record of %s: made %s in the future", short(r.PeerID), ahead.Round(time.Hour))
	}
	if !h.book.put(r, rec) {
		return r.PeerID, nil
	}
	h.dialFrom(r.PeerID, r.Addrs)
	return r.PeerID, nil
}

// dialFrom gives libp2p the addresses that may be dialled.
func (h *Host) dialFrom(id peer.ID, addrs []ma.Multiaddr) {
	good := slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool { return !h.net.dialable(id, a, addrs) })
	h.raw.Peerstore().AddAddrs(id, good, learnTTL)
}

// RecordOf is the newest signed record known of a peer, or nil.
func (h *Host) RecordOf(id peer.ID) []byte {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	if p := h.book.peers[id]; p != nil {
		return p.record
	}
	return nil
}

// holds reports whether this very record is held, and not due to be taken anew.
func (b *book) holds(rec []byte) (peer.ID, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id, ok := b.known[string(rec)]
	return id, ok && time.Since(b.peers[id].learnt) < learnTTL/2
}

// put reports whether the record is news.
func (b *book) put(r *peer.PeerRecord, raw []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[r.PeerID]
	if p != nil && p.seq >= r.Seq {
		if fresh := time.Since(p.learnt) < learnTTL/2; fresh || p.seq > r.Seq {
			return false
		}
	}
	if p == nil {
		if len(b.peers) >= maxBook && !b.evict() {
			return false
		}
		p = &page{}
		b.peers[r.PeerID] = p
	}
	delete(b.known, string(p.record))
	p.record, p.seq, p.addrs, p.learnt = bytes.Clone(raw), r.Seq, r.Addrs, time.Now()
	b.known[string(raw)] = r.PeerID
	return true
}

// evict makes room: the unmet go before the met, the oldest first. Those who
// are connected stay.
func (b *book) evict() bool {
	var worst peer.ID
	var when time.Time
	unmet := false
	for id, p := range b.peers {
		if b.h.raw.Network().Connectedness(id) != network.NotConnected {
			continue
		}
		at, isUnmet := p.met, p.met.IsZero()
		if isUnmet {
			at = p.learnt
		}
		if worst == "" || isUnmet && !unmet || isUnmet == unmet && at.Before(when) {
			worst, when, unmet = id, at, isUnmet
		}
	}
	if worst != "" {
		delete(b.known, string(b.peers[worst].record))
		delete(b.peers, worst)
		b.h.raw.Peerstore().ClearAddrs(worst) // libp2p would keep a million
	}
	return worst != ""
}

// knows reports whether a peer was a member to us.
func (b *book) knows(id peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[id]
	return p != nil && !p.met.IsZero()
}

// met notes that a peer said hello as a member, and where we reached it.
func (b *book) met(id peer.ID) {
	var last ma.Multiaddr
	for _, c := range b.h.raw.Network().ConnsToPeer(id) {
		if c.Stat().Direction == network.DirOutbound && !isRelayed(c.RemoteMultiaddr()) {
			last = c.RemoteMultiaddr()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[id]
	if p == nil {
		if len(b.peers) >= maxBook && !b.evict() {
			return
		}
		p = &page{}
		b.peers[id] = p
	}
	p.met, p.fails, p.retry = b.h.now(), 0, time.Time{}
	if last != nil {
		p.last = last
	}
}
