package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// pipesPerPeer bounds the request streams one peer may keep open in a
// protocol: one, and those that it is replacing.
const pipesPerPeer = 4

// Handle serves requests. Call it before Run. At most p.Streams calls of f run
// at once for one peer; f's context ends with p's deadline, when the caller
// gives up, and when the host stops. A *Refusal that f returns reaches the
// caller as it is; any other error reaches members as CodeInternal with its
// text, strangers without.
func (h *Host) Handle(p Protocol, f func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)) {
	id, p := h.protos.add(p)
	b := newBounds(p)
	h.gated.SetStreamHandler(id, func(s network.Stream) {
		if !h.tasks.enter() {
			_ = s.ResetWithError(network.StreamShutdown)
			return
		}
		defer h.tasks.leave()
		srv := &server{h: h, p: p, s: s, from: s.Conn().RemotePeer(), f: f}
		srv.run(h.tasks.ctx, b)
	})
}

// server serves one kept-open request stream.
type server struct {
	h    *Host
	p    Protocol
	s    network.Stream
	from peer.ID
	f    func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)

	w       sync.Mutex // one frame at a time
	mu      sync.Mutex
	running map[uint64]context.CancelFunc
	wg      sync.WaitGroup
}

func (v *server) run(ctx context.Context, b *bounds) {
	share, refusal := b.enter(v.from, pipesPerPeer, time.Now())
	if refusal != nil {
		_ = v.s.ResetWithError(network.StreamResourceLimitExceeded)
		return
	}
	defer func() { b.leave(v.from, time.Now()) }()
	v.running = map[uint64]context.CancelFunc{}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = v.s.Reset() })
	defer func() {
		stop()
		cancel()
		v.wg.Wait()
	}()
	r := bufio.NewReaderSize(v.s, v.h.bufSize())
	for {
		b, err := readTimed(v.s, r, v.p.Deadline, v.p.MaxRequest)
		if err == nil {
			err = v.take(ctx, share, b)
		}
		if err == io.EOF { // the caller is done asking, not done listening
			v.wg.Wait()
			_ = v.s.Close()
			return
		}
		if err != nil {
			v.h.misbehaved(v.from, v.p, err)
			_ = v.s.ResetWithError(network.StreamProtocolViolation)
			return
		}
	}
}

// readTimed waits for a frame as long as it takes, and then for its rest no
// longer than the deadline.
func readTimed(s network.Stream, r *bufio.Reader, deadline time.Duration, max int) ([]byte, error) {
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	if there, err := r.Peek(r.Buffered()); err != nil {
		return nil, err
	} else if size, n := binary.Uvarint(there); n > 0 && size <= uint64(len(there)-n) {
		return readFrame(r, max, firstRead) // all of it has arrived
	}
	if err := s.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		return nil, err
	}
	b, err := readFrame(r, max, firstRead)
	if err != nil {
		return nil, err
	}
	return b, s.SetReadDeadline(time.Time{})
}

// take starts one request or cancels one; its error ends the stream.
func (v *server) take(ctx context.Context, share *share, b []byte) error {
	f, err := decodeFrame(b)
	if err != nil {
		return err
	}
	switch f.kind {
	case kindCancel:
		v.mu.Lock()
		cancel := v.running[f.id]
		v.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return nil
	case kindRequest:
	default:
		return errMalformed
	}
	if refusal := share.take(time.Now()); refusal != nil {
		v.h.metrics.served(v.p, refusal.Code, 0)
		return v.write(frame{kind: kindRefusal, id: f.id, refusal: refusal})
	}
	if err := share.acquire(ctx); err != nil {
		return err
	}
	wait := v.p.Deadline
	if f.wait > 0 {
		wait = min(wait, f.wait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	v.mu.Lock()
	_, twice := v.running[f.id]
	if !twice {
		v.running[f.id] = cancel
	}
	v.mu.Unlock()
	if twice {
		cancel()
		share.release()
		return errMalformed
	}
	v.wg.Go(func() {
		defer share.release()
		defer cancel()
		v.answer(ctx, f)
	})
	return nil
}

func (v *server) answer(ctx context.Context, f frame) {
	start := time.Now()
	resp, err := v.f(ctx, v.from, f.payload)
	out := frame{kind: kindResponse, id: f.id, payload: resp}
	if err == nil && len(resp) > v.p.MaxMessage {
		err = Refuse(CodeTooLarge, "the answer has %d bytes, the most is %d", len(resp), v.p.MaxMessage)
	}
	var code Code
	if err != nil {
		r := v.h.toRefusal(ctx, v.p, v.from, err)
		code = r.Code
		out = frame{kind: kindRefusal, id: f.id, refusal: r}
	}
	v.h.metrics.served(v.p, code, time.Since(start))
	v.mu.Lock()
	delete(v.running, f.id)
	v.mu.Unlock()
	if err := v.write(out); err != nil {
		_ = v.s.Reset() // the reader sees it
	}
}

// write gives a slow reader the protocol's deadline; a frame half written
// leaves nothing to continue from.
func (v *server) write(f frame) error {
	v.w.Lock()
	defer v.w.Unlock()
	if err := v.s.SetWriteDeadline(time.Now().Add(v.p.Deadline)); err != nil {
		return err
	}
	return writeFrame(v.s, f)
}

// toRefusal is what a handler's error becomes on the wire.
func (h *Host) toRefusal(ctx context.Context, p Protocol, from peer.ID, err error) *Refusal {
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return r
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return Refuse(CodeDeadline, "not done in time")
	}
	if errors.Is(err, network.ErrReset) {
		h.log.Debug("peer broke off", "protocol", p.Name, "peer", from, "err", err)
		return Refuse(CodeInternal, "failed on this side")
	}
	h.log.Warn("handler failed", "protocol", p.Name, "peer", from, "err", err)
	if p.Open && !h.gate.isMember(from) {
		return Refuse(CodeInternal, "internal error")
	}
	return Refuse(CodeInternal, "%s", err.Error())
}

// misbehaved logs what a peer did against a protocol. Ends of streams and
// connections are nobody's fault.
func (h *Host) misbehaved(from peer.ID, p Protocol, err error) {
	var large errTooLarge
	if errors.As(err, &large) || errors.Is(err, errMalformed) {
		h.metrics.misbehaved(p)
		h.log.Warn("peer misbehaved", "peer", from, "protocol", p.Name, "err", err)
	}
}
