package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	pool "github.com/libp2p/go-buffer-pool"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Stream carries messages of one protocol between two members, each within the
// protocol's MaxMessage, or MaxRequest on their way to who serves it. One goroutine may read while another writes.
type Stream struct {
	h    *Host
	p    Protocol
	s    network.Stream
	r    *bufio.Reader
	peer peer.ID
	head []byte

	reads, writes int // the most bytes of one message
	first         int // of a message's bytes that its length alone makes us hold
}

// wrapStream is for who serves the stream.
func (h *Host) wrapStream(p Protocol, s network.Stream) *Stream {
	return &Stream{h: h, p: p, s: s, r: bufio.NewReaderSize(s, h.bufSize()), peer: s.Conn().RemotePeer(),
		reads: p.MaxRequest, writes: p.MaxMessage, first: firstRead}
}

// HandleStream serves streams. Call it before Run. At most p.Streams are open
// for one peer; more are refused with a retry-after. f's context ends when the
// host stops. The stream is closed when f returns; f's error reaches the peer's
// ReadMsg as a refusal.
func (h *Host) HandleStream(p Protocol, f func(ctx context.Context, s *Stream) error) {
	id, p := h.protos.add(p)
	b := newBounds(p)
	h.gated.SetStreamHandler(id, func(raw network.Stream) {
		if !h.tasks.enter() {
			_ = raw.ResetWithError(network.StreamShutdown)
			return
		}
		defer h.tasks.leave()
		s := h.wrapStream(p, raw)
		start := time.Now()
		share, refusal := b.enter(s.peer, p.Streams, start)
		if refusal == nil {
			defer func() { b.leave(s.peer, time.Now()) }()
			refusal = share.take(start)
		}
		if refusal != nil {
			h.metrics.served(p, refusal.Code, 0)
			s.refuse(refusal)
			return
		}
		ctx, cancel := context.WithCancel(h.tasks.ctx)
		stop := context.AfterFunc(ctx, func() { _ = raw.Reset() })
		err := f(ctx, s)
		stop()
		cancel()
		var code Code
		if err != nil {
			h.misbehaved(s.peer, p, err)
			r := h.toRefusal(h.tasks.ctx, p, s.peer, err)
			code = r.Code
			s.refuse(r)
		} else {
			_ = s.Close()
		}
		h.metrics.served(p, code, time.Since(start))
	})
}

// Open opens a stream to a peer, dialling it when needed. The caller closes or
// resets it.
func (h *Host) Open(ctx context.Context, to peer.ID, p Protocol) (*Stream, error) {
	p = p.withDefaults()
	s, err := h.newStream(ctx, to, p, p.ID(h.cfg.Mesh))
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", p.Name, short(to), err)
	}
	out := h.wrapStream(p, s)
	// How many streams there are is for us to say here, so that a message's
	// buffer need not grow as its bytes come: that costs a copy.
	out.reads, out.writes, out.first = p.MaxMessage, p.MaxRequest, askedRead
	return out, nil
}

// Peer is who stands at the other end.
func (s *Stream) Peer() peer.ID { return s.peer }

// WriteMsg sends one message; it takes at most the protocol's deadline. An
// error breaks the stream.
func (s *Stream) WriteMsg(b []byte) error {
	if len(b) > s.writes {
		return fmt.Errorf("write %s: %w", s.p.Name, errTooLarge{uint64(len(b)), uint64(s.writes)})
	}
	return s.write(frame{kind: kindMessage, payload: b})
}

func (s *Stream) write(f frame) error {
	if err := s.s.SetWriteDeadline(time.Now().Add(s.p.Deadline)); err != nil {
		return fmt.Errorf("write %s: %w", s.p.Name, err)
	}
	head, rest := appendFrame(s.head[:0], f)
	s.head = head
	_, err := s.s.Write(head)
	if err == nil && len(rest) > 0 {
		_, err = s.s.Write(rest)
	}
	if err != nil {
		_ = s.s.Reset()
		return fmt.Errorf("write %s: %w", s.p.Name, err)
	}
	return nil
}

// ReadMsg waits for the next message, at most the protocol's deadline, and
// returns bytes that are the caller's to keep. io.EOF means that the peer is
// done; a *Refusal, that it refused.
func (s *Stream) ReadMsg() ([]byte, error) {
	if err := s.s.SetReadDeadline(time.Now().Add(s.p.Deadline)); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.p.Name, err)
	}
	b, err := readFrame(s.r, s.reads, s.first)
	if err == io.EOF {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.p.Name, err)
	}
	f, err := decodeFrame(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.p.Name, err)
	}
	switch f.kind {
	case kindMessage:
		if len(f.payload) > s.reads {
			return nil, fmt.Errorf("read %s: %w", s.p.Name, errTooLarge{uint64(len(f.payload)), uint64(s.reads)})
		}
		return f.payload, nil
	case kindRefusal:
		return nil, f.refusal
	}
	return nil, fmt.Errorf("read %s: %w", s.p.Name, errMalformed)
}

// ReadMsgPooled is ReadMsg for who gives the bytes back by FreeMsg: a large
// message costs no allocation then.
func (s *Stream) ReadMsgPooled() ([]byte, error) {
	if err := s.s.SetReadDeadline(time.Now().Add(s.p.Deadline)); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.p.Name, err)
	}
	// What is not a plain message of a length that we may trust is ReadMsg's.
	head, err := s.r.Peek(2)
	if err == nil {
		head, err = s.r.Peek(min(s.r.Buffered(), binary.MaxVarintLen32+1))
	}
	size, n := binary.Uvarint(head)
	if err != nil || n <= 0 || n >= len(head) || head[n] != kindMessage || size < 2 || size-1 > uint64(min(s.reads, s.first)) {
		return s.ReadMsg()
	}
	if _, err := s.r.Discard(n + 1); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.p.Name, err)
	}
	b := pool.Get(int(size) - 1)
	if _, err := io.ReadFull(s.r, b); err != nil {
		pool.Put(b)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %s: %w", s.p.Name, err)
	}
	return b, nil
}

// FreeMsg gives back the bytes of a ReadMsgPooled, which nobody may use any more.
func FreeMsg(b []byte) { pool.Put(b) }

// CloseWrite says that no more messages follow; the peer's ReadMsg returns
// io.EOF.
func (s *Stream) CloseWrite() error { return s.s.CloseWrite() }

// Close ends both directions, after what was written.
func (s *Stream) Close() error { return s.s.Close() }

// Reset ends both directions at once.
func (s *Stream) Reset() { _ = s.s.Reset() }

// Relayed reports whether the stream runs over a relay.
func (s *Stream) Relayed() bool { return isRelayed(s.s.Conn().RemoteMultiaddr()) }

func (s *Stream) refuse(r *Refusal) {
	if err := s.write(frame{kind: kindRefusal, refusal: r}); err != nil {
		return // reset by write
	}
	if err := s.s.Close(); err != nil && !errors.Is(err, network.ErrReset) {
		_ = s.s.Reset()
	}
}
