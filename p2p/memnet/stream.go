package memnet

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

var (
	errReadClosed  = errors.New("memnet: stream closed for reading")
	errWriteClosed = errors.New("memnet: stream closed for writing")
)

// stream is one side of a stream; its fields are under the link's lock.
type stream struct {
	c      *conn
	peer   *stream
	number uint64
	opener bool

	in     []segment // what the other side wrote, from head on
	head   int
	unread int       // bytes of in, and of what a dead side will never read
	eof    time.Time // when the other side's CloseWrite arrives
	reset  time.Time // when the other side's Reset arrives
	rerr   error     // what it will say

	readClosed, writeClosed bool
	err                     error // this side's own Reset
	rdl, wdl                time.Time
	wake                    waker
}

type segment struct {
	at   time.Time
	data []byte
}

var _ network.MuxedStream = (*stream)(nil)

func (s *stream) broken(now time.Time) error {
	if s.err != nil {
		return s.err
	}
	if err := s.c.broken(now); err != nil {
		return err
	}
	if reached(s.reset, now) {
		return s.rerr
	}
	return nil
}

func (s *stream) Read(p []byte) (int, error) {
	mu := &s.c.link.mu
	mu.Lock()
	defer mu.Unlock()
	for {
		now := time.Now()
		if err := s.broken(now); err != nil {
			return 0, err
		}
		if s.readClosed {
			return 0, errReadClosed
		}
		if reached(s.rdl, now) {
			return 0, os.ErrDeadlineExceeded
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := s.take(p, now); n > 0 {
			s.peer.wake.all()
			return n, nil
		}
		next := s.eof
		if s.head < len(s.in) {
			next = s.in[s.head].at
		} else if reached(s.eof, now) {
			return 0, io.EOF
		}
		s.wake.wait(earliest(next, s.c.gone, s.reset, s.rdl))
	}
}

// take copies what has arrived.
func (s *stream) take(p []byte, now time.Time) (n int) {
	for n < len(p) && s.head < len(s.in) && reached(s.in[s.head].at, now) {
		seg := &s.in[s.head]
		k := copy(p[n:], seg.data)
		n += k
		if k < len(seg.data) {
			seg.data = seg.data[k:]
			break
		}
		*seg = segment{}
		s.head++
	}
	if s.head == len(s.in) {
		s.in, s.head = s.in[:0], 0
	}
	s.unread -= n
	return n
}

func (s *stream) Write(p []byte) (n int, err error) {
	c, mu := s.c, &s.c.link.mu
	mu.Lock()
	defer mu.Unlock()
	counted := false
	for {
		now := time.Now()
		if err := s.broken(now); err != nil {
			return n, err
		}
		if s.writeClosed {
			return n, errWriteClosed
		}
		if reached(s.wdl, now) {
			return n, os.ErrDeadlineExceeded
		}
		if n == len(p) {
			return n, nil
		}
		if !counted {
			c.sent.add(Count{1, int64(len(p))})
			counted = true
			if tap := c.link.net.cfg.Tap; tap != nil {
				tap(Pair{c.addr.Addr(), c.remote().addr.Addr()}, s.number, s.opener, p)
			}
		}
		to := s.peer
		if to.readClosed && !to.c.closed {
			c.arrive(len(p) - n)
			return len(p), nil
		}
		room := c.link.net.cfg.Window - to.unread
		if room <= 0 {
			s.wake.wait(earliest(c.gone, s.reset, s.wdl))
			continue
		}
		piece := p[n:min(len(p), n+min(room, maxSegment))]
		n += len(piece)
		to.unread += len(piece)
		at := c.arrive(len(piece))
		if to.c.closed {
			continue
		}
		to.in = append(to.in, segment{at, bytes.Clone(piece)})
		to.wake.poke(at)
	}
}

func (s *stream) CloseWrite() error {
	mu := &s.c.link.mu
	mu.Lock()
	defer mu.Unlock()
	s.closeWrite()
	s.settle()
	return nil
}

func (s *stream) closeWrite() {
	if s.writeClosed {
		return
	}
	s.writeClosed = true
	s.wake.all()
	if !s.c.closed {
		s.peer.eof = s.c.arrive(0)
		s.peer.wake.poke(s.peer.eof)
	}
}

func (s *stream) CloseRead() error {
	mu := &s.c.link.mu
	mu.Lock()
	defer mu.Unlock()
	s.closeRead()
	s.settle()
	return nil
}

func (s *stream) closeRead() {
	if s.readClosed {
		return
	}
	s.readClosed = true
	s.in, s.head, s.unread = nil, 0, 0
	s.wake.all()
	s.peer.wake.all()
}

func (s *stream) Close() error {
	mu := &s.c.link.mu
	mu.Lock()
	defer mu.Unlock()
	s.closeRead()
	s.closeWrite()
	s.settle()
	return nil
}

func (s *stream) Reset() error { return s.ResetWithError(network.StreamNoError) }

func (s *stream) ResetWithError(code network.StreamErrorCode) error {
	mu := &s.c.link.mu
	mu.Lock()
	defer mu.Unlock()
	if s.err != nil || s.readClosed && s.writeClosed {
		return nil
	}
	s.err = &network.StreamError{ErrorCode: code}
	s.writeClosed = true // the reset says so, no EOF does
	s.closeRead()
	if p := s.peer; !s.c.closed {
		p.reset, p.rerr = s.c.arrive(0), &network.StreamError{ErrorCode: code, Remote: true}
		p.wake.poke(p.reset)
	}
	s.settle()
	return nil
}

// settle drops a side that nothing can arrive at any more.
func (s *stream) settle() {
	if s.readClosed && s.writeClosed {
		delete(s.c.streams, s)
	}
}

func (s *stream) remap(f func(time.Time) time.Time) {
	for i := s.head; i < len(s.in); i++ {
		s.in[i].at = f(s.in[i].at)
	}
	if !s.eof.IsZero() {
		s.eof = f(s.eof)
	}
	if !s.reset.IsZero() {
		s.reset = f(s.reset)
	}
	s.wake.all()
}

func (s *stream) SetDeadline(t time.Time) error      { return s.setDeadlines(t, &s.rdl, &s.wdl) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.setDeadlines(t, &s.rdl) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, &s.wdl) }

func (s *stream) setDeadlines(t time.Time, which ...*time.Time) error {
	mu := &s.c.link.mu
	mu.Lock()
	defer mu.Unlock()
	for _, d := range which {
		*d = t
	}
	s.wake.all()
	return nil
}

// waker lets calls under a link's lock wait for a change or a time. It costs one
// timer, made at the first wait for a time.
type waker struct {
	mu      *sync.Mutex
	cond    *sync.Cond
	timer   *time.Timer
	at      time.Time // what the timer is set to; zero: to nothing
	waiting int
}

// wait returns at a change, at until, or for nothing: the caller looks again.
func (w *waker) wait(until time.Time) {
	if w.cond == nil {
		w.cond = sync.NewCond(w.mu)
	}
	w.waiting++
	w.arm(until)
	w.cond.Wait()
	w.waiting--
	if w.waiting == 0 && !w.at.IsZero() {
		w.timer.Stop()
		w.at = time.Time{}
	}
}

func (w *waker) arm(t time.Time) {
	if t.IsZero() || t.Equal(held) || !w.at.IsZero() && !t.Before(w.at) {
		return
	}
	w.at = t
	if d := time.Until(t); w.timer != nil {
		w.timer.Reset(d)
	} else {
		w.timer = time.AfterFunc(d, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.at = time.Time{}
			w.cond.Broadcast()
		})
	}
}

// all wakes every wait.
func (w *waker) all() {
	if w.waiting > 0 {
		w.cond.Broadcast()
	}
}

// poke says that something arrives at t.
func (w *waker) poke(t time.Time) {
	if w.waiting == 0 {
		return
	}
	if reached(t, time.Now()) {
		w.cond.Broadcast()
		return
	}
	w.arm(t)
}

// reached says whether t is set and not in the future.
func reached(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// earliest is the first of those times that are set, or zero.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
