package p2p

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	maxPending = 4096        // requests waiting on one stream
	pipeIdle   = time.Minute // then it is closed
)

// ErrLost says that the stream ended before the answer came: the request may
// have been served or not.
var ErrLost = errors.New("connection lost before the answer")

// Call sends one request and waits for its answer, at most p's deadline. All
// calls to a peer in a protocol share one kept-open stream; Call dials when
// there is no connection. A refusal comes back as a *Refusal.
func (h *Host) Call(ctx context.Context, to peer.ID, p Protocol, req []byte) ([]byte, error) {
	p = p.withDefaults()
	if len(req) > p.MaxRequest {
		return nil, fmt.Errorf("call %s: %w", p.Name, errTooLarge{uint64(len(req)), uint64(p.MaxRequest)})
	}
	ctx, cancel := context.WithTimeout(ctx, p.Deadline)
	defer cancel()
	start := time.Now()
	resp, err := h.caller.call(ctx, to, p, req)
	h.metrics.called(p, err, time.Since(start))
	if err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", p.Name, short(to), err)
	}
	return resp, nil
}

// caller holds the kept-open streams of this node's own requests.
type caller struct {
	h     *Host
	mu    sync.Mutex
	pipes map[pipeKey]*pipe
}

type pipeKey struct {
	to peer.ID
	id protocol.ID
}

func newCaller(h *Host) *caller { return &caller{h: h, pipes: map[pipeKey]*pipe{}} }

func (c *caller) call(ctx context.Context, to peer.ID, p Protocol, req []byte) ([]byte, error) {
	key := pipeKey{to, p.ID(c.h.cfg.Mesh)}
	for {
		v, err := c.pipe(ctx, key, p)
		if err != nil {
			return nil, err
		}
		resp, sent, err := v.call(ctx, req)
		if err != nil && !sent && ctx.Err() == nil {
			c.drop(key, v) // it died while it was idle
			continue
		}
		return resp, err
	}
}

// pipe returns the open stream for key, or opens it; others who want it wait.
func (c *caller) pipe(ctx context.Context, key pipeKey, p Protocol) (*pipe, error) {
	c.mu.Lock()
	v := c.pipes[key]
	if v != nil && v.limited && c.h.direct(key.to) {
		delete(c.pipes, key) // leave the relay; its pending answers still come
		go0(c.h, v.retire)
		v = nil
	}
	if v == nil {
		v = newPipe(c.h, key, p)
		c.pipes[key] = v
		if !c.h.tasks.spawn(v.run) {
			delete(c.pipes, key)
			c.mu.Unlock()
			return nil, context.Canceled
		}
	}
	c.mu.Unlock()
	select {
	case <-v.open:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if v.failed != nil {
		return nil, v.failed
	}
	return v, nil
}

func go0(h *Host, f func()) { h.tasks.spawn(func(context.Context) { f() }) }

func (c *caller) drop(key pipeKey, v *pipe) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pipes[key] == v {
		delete(c.pipes, key)
	}
}

// sweep closes the streams that nobody used for a while.
func (c *caller) sweep(now time.Time) {
	c.mu.Lock()
	var old []*pipe
	for key, v := range c.pipes {
		if v.idleSince(now) > pipeIdle {
			delete(c.pipes, key)
			old = append(old, v)
		}
	}
	c.mu.Unlock()
	for _, v := range old {
		v.retire()
	}
}

type answer struct {
	payload []byte
	err     error
}

// pipe is one request stream, seen by the caller.
type pipe struct {
	h    *Host
	key  pipeKey
	p    Protocol
	open chan struct{} // closed by run when s or failed is set

	failed  error
	s       network.Stream
	limited bool // over a relay; read under caller.mu after open
	w       chan struct{}

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan answer
	dead    error
	used    time.Time
	retired bool
}

func newPipe(h *Host, key pipeKey, p Protocol) *pipe {
	return &pipe{h: h, key: key, p: p, open: make(chan struct{}), w: make(chan struct{}, 1),
		pending: map[uint64]chan answer{}, used: time.Now()}
}

// run opens the stream and reads it until it ends.
func (v *pipe) run(ctx context.Context) {
	defer v.h.caller.drop(v.key, v)
	s, err := v.h.newStream(ctx, v.key.to, v.p, v.key.id)
	if err != nil {
		v.failed = err
		close(v.open)
		return
	}
	v.s = s
	v.h.caller.mu.Lock()
	v.limited = s.Conn().Stat().Limited
	v.h.caller.mu.Unlock()
	close(v.open)
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	err = v.read(bufio.NewReaderSize(s, v.h.bufSize()))
	v.end(err)
}

func (v *pipe) read(r *bufio.Reader) error {
	for {
		b, err := readTimed(v.s, r, v.p.Deadline, v.p.MaxMessage)
		if err != nil {
			return err
		}
		f, err := decodeFrame(b)
		if err != nil {
			return err
		}
		a := answer{payload: f.payload}
		switch f.kind {
		case kindResponse:
			if len(f.payload) > v.p.MaxMessage {
				return errTooLarge{uint64(len(f.payload)), uint64(v.p.MaxMessage)}
			}
		case kindRefusal:
			a = answer{err: f.refusal}
		default:
			return errMalformed
		}
		v.mu.Lock()
		ch := v.pending[f.id]
		delete(v.pending, f.id)
		done := v.retired && len(v.pending) == 0
		v.mu.Unlock()
		if ch != nil { // nil: given up
			ch <- a
		}
		if done {
			return ErrLost
		}
	}
}

// end fails what still waits.
func (v *pipe) end(err error) {
	v.h.misbehaved(v.key.to, v.p, err)
	_ = v.s.Reset()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dead = fmt.Errorf("%w: %w", ErrLost, err)
	for _, ch := range v.pending {
		ch <- answer{err: v.dead}
	}
	v.pending = nil
}

// retire closes the stream once nothing waits on it.
func (v *pipe) retire() {
	<-v.open
	v.mu.Lock()
	v.retired = true
	empty := len(v.pending) == 0
	v.mu.Unlock()
	if empty && v.s != nil {
		_ = v.s.Close()
		_ = v.s.Reset()
	}
}

func (v *pipe) idleSince(now time.Time) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.pending) > 0 {
		return 0
	}
	return now.Sub(v.used)
}

// call reports in sent whether the request may have reached the peer.
func (v *pipe) call(ctx context.Context, req []byte) (resp []byte, sent bool, err error) {
	ch := make(chan answer, 1)
	v.mu.Lock()
	if v.dead != nil || v.retired {
		v.mu.Unlock()
		return nil, false, ErrLost
	}
	if len(v.pending) >= maxPending {
		v.mu.Unlock()
		return nil, true, &Refusal{Code: CodeBusy, Text: "too many requests wait for this peer", RetryAfter: 100 * time.Millisecond}
	}
	v.next++
	id := v.next
	v.pending[id] = ch
	v.used = time.Now()
	v.mu.Unlock()
	f := frame{kind: kindRequest, id: id, payload: req}
	if by, ok := ctx.Deadline(); ok {
		f.wait = max(time.Until(by), time.Millisecond)
	}
	if err := v.write(ctx, f); err != nil {
		v.forget(id)
		return nil, true, err
	}
	select {
	case a := <-ch:
		return a.payload, true, a.err
	case <-ctx.Done():
		if v.forget(id) {
			go0(v.h, func() { v.cancel(id) })
			return nil, true, context.Cause(ctx)
		}
		a := <-ch
		return a.payload, true, a.err
	}
}

// forget reports whether the answer had not come yet.
func (v *pipe) forget(id uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.pending[id]
	delete(v.pending, id)
	return ok
}

// cancel tells the peer to stop working on a request; late is no harm.
func (v *pipe) cancel(id uint64) {
	ctx, stop := context.WithTimeout(v.h.tasks.ctx, v.p.Deadline)
	defer stop()
	if err := v.write(ctx, frame{kind: kindCancel, id: id}); err != nil {
		v.h.log.Debug("cancel not sent", "peer", v.key.to, "protocol", v.p.Name, "err", err)
	}
}

// write sends one frame whole, or breaks the stream.
func (v *pipe) write(ctx context.Context, f frame) error {
	select {
	case v.w <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-v.w }()
	if err := v.s.SetWriteDeadline(time.Now().Add(v.p.Deadline)); err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	if err := writeFrame(v.s, f); err != nil {
		_ = v.s.Reset()
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil
}
