package p2p

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/kith-mesh/kith/p2p/internal/pb"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
	"google.golang.org/protobuf/proto"
)

// Hello is the first thing two members say to each other.
var Hello = Protocol{Name: "hello", Version: "1.0.0", MaxMessage: 8 << 10, Deadline: StrangerTime, Streams: 2, Rate: 2, Burst: 16, Open: true}

// hello is what one side shows.
type hello struct {
	token    auth.Token
	agent    string
	capacity Capacity
	coord    coord.Coordinate
	clock    time.Time
	refused  *Refusal // the other side's token did not hold
}

func (h *Host) ownHello() hello {
	return hello{token: h.Token(), agent: h.cfg.Agent, capacity: h.Capacity(), coord: h.Coordinate(), clock: h.now()}
}

func (m hello) marshal() ([]byte, error) {
	out := &pb.Hello{Clock: m.clock.Unix()}
	if m.refused != nil {
		out.Refused, out.Reason = uint32(m.refused.Code), m.refused.Text
	} else {
		out.Token, out.Agent = m.token, m.agent
		out.Capacity, out.Coordinate = wireCapacity(m.capacity), wireCoord(m.coord)
	}
	return proto.Marshal(out)
}

func parseHello(b []byte) (hello, error) {
	var in pb.Hello
	if err := proto.Unmarshal(b, &in); err != nil {
		return hello{}, fmt.Errorf("%w: hello: %w", errMalformed, err)
	}
	m := hello{token: in.Token, clock: time.Unix(in.Clock, 0)}
	if in.Refused != 0 {
		m.refused = &Refusal{Code: Code(in.Refused), Text: cleanText(in.Reason[:min(len(in.Reason), maxRefusalText)])}
		return m, nil
	}
	if len(in.Agent) > maxAgent {
		return hello{}, fmt.Errorf("%w: hello: agent of %d bytes, the most is %d", errMalformed, len(in.Agent), maxAgent)
	}
	m.agent = cleanText(in.Agent)
	var err error
	if m.capacity, err = readCapacity(in.Capacity); err != nil {
		return hello{}, fmt.Errorf("%w: hello: %w", errMalformed, err)
	}
	m.coord = readCoord(in.Coordinate)
	return m, nil
}

// judge verifies a hello's token; a refusal is fit to be told to the peer.
func (h *Host) judge(id peer.ID, m hello) (auth.Grant, *Refusal) {
	grant, err := m.token.Verify(h.cfg.Mesh, id, h.now(), h.cfg.Revoked)
	if err == nil {
		return grant, nil
	}
	r := &Refusal{Code: CodeTokenMalformed, Text: err.Error()}
	switch {
	case errors.Is(err, auth.ErrOtherMesh):
		r.Code = CodeOtherMesh
	case errors.Is(err, auth.ErrRevoked):
		r.Code = CodeTokenRevoked
	case errors.Is(err, auth.ErrHolder):
		r.Code = CodeTokenHolder
	case errors.Is(err, auth.ErrExpired):
		r.Code = CodeTokenExpired
	case errors.Is(err, auth.ErrClock):
		r.Code = CodeClock
	}
	if apart := clockApart(m.clock, h.now()); apart > auth.Skew && (r.Code == CodeTokenExpired || r.Code == CodeClock) {
		r.Code = CodeClock
		r.Text = clockText(h.now(), m.clock)
	}
	return auth.Grant{}, r
}

func clockApart(a, b time.Time) time.Duration { return a.Sub(b).Abs() }

func clockText(here, there time.Time) string {
	return fmt.Sprintf("the clocks are more than an hour apart: here it is %s, there %s: set the wrong one",
		here.UTC().Format(time.RFC3339), there.UTC().Format(time.RFC3339))
}

// serveHello answers the diallers.
func (h *Host) serveHello() {
	id, p := h.protos.add(Hello)
	b := newBounds(p)
	h.raw.SetStreamHandler(id, func(s network.Stream) {
		if !h.tasks.enter() {
			_ = s.Reset()
			return
		}
		defer h.tasks.leave()
		from := s.Conn().RemotePeer()
		share, refusal := b.enter(from, p.Streams, time.Now())
		if refusal == nil {
			defer func() { b.leave(from, time.Now()) }()
			refusal = share.take(time.Now())
		}
		if refusal != nil {
			_ = s.ResetWithError(network.StreamRateLimited)
			return
		}
		if err := h.answerHello(s, p, from); err != nil {
			h.misbehaved(from, p, err)
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

func (h *Host) answerHello(s network.Stream, p Protocol, from peer.ID) error {
	if err := s.SetDeadline(time.Now().Add(p.Deadline)); err != nil {
		return err
	}
	theirs, err := readHello(s, p)
	if err != nil {
		return err
	}
	ours := h.ownHello()
	grant, refusal := h.judge(from, theirs)
	if refusal != nil {
		h.metrics.hello("refused")
		h.log.Info("hello refused", "peer", from, "code", refusal.Code, "why", refusal.Text)
		h.gate.refuse(from, fmt.Errorf("%w: %w", ErrStranger, refusal))
		ours.refused = refusal
	} else {
		h.metrics.hello("ok")
		h.gate.admit(from, theirs, grant)
	}
	return writeHello(s, ours)
}

func writeHello(w io.Writer, m hello) error {
	b, err := m.marshal()
	if err != nil {
		return err
	}
	return writeFrame(w, frame{kind: kindMessage, payload: b})
}

func readHello(r io.Reader, p Protocol) (hello, error) {
	b, err := readFrame(bufio.NewReaderSize(r, 1<<10), p.MaxMessage, firstRead)
	if err != nil {
		return hello{}, err
	}
	f, err := decodeFrame(b)
	if err != nil {
		return hello{}, err
	}
	if f.kind != kindMessage {
		return hello{}, errMalformed
	}
	return parseHello(f.payload)
}

// greet says hello to a peer that we dialled, and settles what it is.
func (g *gate) greet(ctx context.Context, id peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, StrangerTime)
	defer cancel()
	var err error
	for range 3 { // a stream may fall to a connection that is being replaced
		if err = g.greetOnce(ctx, id); err == nil || ctx.Err() != nil || errors.Is(err, ErrStranger) {
			break
		}
	}
	switch {
	case err == nil:
		g.h.metrics.hello("ok")
	case errors.Is(err, errNoHello):
		g.h.metrics.hello("none")
		g.refuse(id, err) // its time as a stranger runs
	case errors.Is(err, ErrStranger):
		g.h.metrics.hello("refused")
		g.refuse(id, err)
		g.h.log.Info("no membership with a peer", "peer", id, "why", err)
		_ = g.h.raw.Network().ClosePeer(id)
	default:
		g.h.log.Debug("hello failed", "peer", id, "err", err)
	}
}

// errNoHello is a peer that does not speak this mesh's hello.
var errNoHello = fmt.Errorf("%w: it does not speak this mesh's protocols", ErrStranger)

func (g *gate) greetOnce(ctx context.Context, id peer.ID) error {
	h := g.h
	sctx := network.WithNoDial(network.WithAllowLimitedConn(ctx, Hello.Name), Hello.Name)
	s, err := h.raw.NewStream(sctx, id, Hello.ID(h.cfg.Mesh))
	if err != nil {
		var unsupported multistream.ErrNotSupported[protocol.ID]
		if errors.As(err, &unsupported) {
			return h.noHello(id)
		}
		return err
	}
	defer s.Close()
	if by, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(by); err != nil {
			return err
		}
	}
	if err := writeHello(s, h.ownHello()); err != nil {
		_ = s.Reset()
		return err
	}
	theirs, err := readHello(s, Hello)
	if err != nil {
		_ = s.Reset()
		return err
	}
	if theirs.refused != nil {
		return fmt.Errorf("%w: it says: %w", ErrStranger, theirs.refused)
	}
	grant, refusal := h.judge(id, theirs)
	if refusal != nil {
		return fmt.Errorf("%w: %w", ErrStranger, refusal)
	}
	g.admit(id, theirs, grant)
	h.book.met(id)
	return nil
}

// noHello says more exactly what a peer without our hello is, by the protocols
// it told identify.
func (h *Host) noHello(id peer.ID) error {
	protos, err := h.raw.Peerstore().GetProtocols(id)
	if err != nil {
		return errNoHello
	}
	for _, p := range protos {
		rest, ok := strings.CutPrefix(string(p), "/kith/")
		if mesh, tail, cut := strings.Cut(rest, "/"); ok && cut && strings.HasPrefix(tail, Hello.Name+"/") {
			if mesh == h.cfg.Mesh.Prefix() {
				return fmt.Errorf("%w: it speaks another version of hello: upgrade the older of the two", errNoHello)
			}
			return fmt.Errorf("%w: %w", errNoHello, Refuse(CodeOtherMesh, "it belongs to mesh %s, this node to %s", cleanText(mesh[:min(len(mesh), 16)]), h.cfg.Mesh.Prefix()))
		}
	}
	return errNoHello
}
