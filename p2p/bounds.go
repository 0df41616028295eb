package p2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// bounds keeps what each peer may have open in one protocol, and how fast it
// may ask.
type bounds struct {
	p     Protocol
	mu    sync.Mutex
	peers map[peer.ID]*share
}

// share is one peer's part. It lives while a stream of that peer is open.
type share struct {
	streams int
	bucket  *rate.Limiter
	slots   chan struct{} // one in it for each request at work
	idle    time.Time     // when streams fell to 0
}

// keepShare is how long an empty share stays, so that closing and opening a
// stream does not refill its bucket.
const (
	keepShare = time.Minute
	maxShares = 4096
)

func newBounds(p Protocol) *bounds { return &bounds{p: p, peers: map[peer.ID]*share{}} }

// enter counts a stream in. limit bounds the streams open at once.
func (b *bounds) enter(id peer.ID, limit int, now time.Time) (*share, *Refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.peers[id]
	if s == nil {
		if len(b.peers) >= maxShares {
			b.sweep(now, keepShare)
		}
		if len(b.peers) >= maxShares { // identities cost nothing: forget who is not here
			b.sweep(now, 0)
		}
		if len(b.peers) >= maxShares {
			return nil, &Refusal{Code: CodeBusy, Text: "too many peers at once", RetryAfter: time.Second}
		}
		s = &share{bucket: rate.NewLimiter(b.p.Rate, b.p.Burst), slots: make(chan struct{}, b.p.Streams)}
		b.peers[id] = s
	}
	if s.streams >= limit {
		return nil, &Refusal{Code: CodeBusy, Text: "too many streams at once", RetryAfter: time.Second}
	}
	s.streams++
	return s, nil
}

func (b *bounds) leave(id peer.ID, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.peers[id]
	if s == nil {
		return
	}
	s.streams--
	s.idle = now
	if len(b.peers) > maxShares/2 {
		b.sweep(now, keepShare)
	}
}

// sweep forgets who has had no stream open for so long.
func (b *bounds) sweep(now time.Time, idle time.Duration) {
	for id, s := range b.peers {
		if s.streams == 0 && now.Sub(s.idle) >= idle {
			delete(b.peers, id)
		}
	}
}

// take draws from the bucket; a refusal says when there is enough again.
func (s *share) take(now time.Time) *Refusal {
	if s.bucket.AllowN(now, 1) {
		return nil
	}
	r := s.bucket.ReserveN(now, 1)
	after := r.DelayFrom(now)
	r.CancelAt(now)
	return &Refusal{Code: CodeRate, Text: "too many requests", RetryAfter: max(after, time.Millisecond)}
}

// acquire waits for a slot: not reading on is what slows an eager peer down.
func (s *share) acquire(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *share) release() { <-s.slots }
