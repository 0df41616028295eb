package p2p

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/internal/pb"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multistream"
	"google.golang.org/protobuf/proto"
)

// JoinConfig says who joins what. Set Invite, or LAN to what Discover found.
type JoinConfig struct {
	Key    crypto.PrivKey
	Invite *auth.Invite
	LAN    *Found
	Name   string // told to the mesh, for people

	NoQUIC  bool
	Dialer  tcp.DialerForAddr
	Options []libp2p.Option // replaces transports and security, as in Config

	Now func() time.Time // default time.Now
	Log *slog.Logger
}

// Joined is what a newcomer starts its Host with.
type Joined struct {
	Mesh    auth.MeshID
	Token   auth.Token
	Grant   auth.Grant
	Charter []byte // signed; nil if the mesh has none
	Issuer  peer.AddrInfo
	Peers   []peer.AddrInfo // who to connect to first, the issuer among them
	Records [][]byte        // their signed records, for Host.Learn
}

// JoinError says why joining failed, in the words of whoever has to mend it,
// and wraps the cause.
type JoinError struct {
	Why   string
	Cause error
}

// Error gives the reason, then what is under it.
func (e *JoinError) Error() string {
	if e.Cause == nil {
		return "join: " + e.Why
	}
	return "join: " + e.Why + ": " + e.Cause.Error()
}

// Unwrap gives the cause.
func (e *JoinError) Unwrap() error { return e.Cause }

// Join redeems an invite at its issuer, or asks a member of an open mesh, for a
// member token. It dials from a host of its own that is gone when it returns.
func Join(ctx context.Context, cfg JoinConfig) (Joined, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Key == nil {
		return Joined{}, &JoinError{Why: "no key: make one with LoadOrCreateKey"}
	}
	var mesh auth.MeshID
	var issuer peer.AddrInfo
	req := &pb.JoinRequest{Name: cfg.Name, Clock: cfg.Now().Unix()}
	switch {
	case cfg.Invite != nil:
		mesh, issuer.ID = cfg.Invite.Mesh, cfg.Invite.Issuer
		for _, r := range cfg.Invite.Records {
			rec, err := openRecord(r)
			if err != nil {
				return Joined{}, &JoinError{"the invite's addresses do not verify", err}
			}
			if rec.PeerID == issuer.ID {
				issuer.Addrs = append(issuer.Addrs, rec.Addrs...)
			}
		}
		req.Secret = cfg.Invite.Secret.Reveal()
	case cfg.LAN != nil:
		mesh, issuer = cfg.LAN.Charter.Mesh, cfg.LAN.Peer
	default:
		return Joined{}, &JoinError{Why: "neither an invite nor a mesh of the LAN was given"}
	}
	if len(issuer.Addrs) == 0 {
		return Joined{}, &JoinError{Why: "the invite holds no address of its issuer: make it again while the issuer is reachable"}
	}
	h, err := newcomerHost(cfg)
	if err != nil {
		return Joined{}, &JoinError{"this machine can't dial", err}
	}
	defer h.Close()
	if issuer.ID == h.ID() {
		return Joined{}, &JoinError{Why: "this invite was made by this very node"}
	}
	answer, err := ask(ctx, h, mesh, issuer, req)
	if err != nil {
		return Joined{}, joinError(err, cfg)
	}
	out, err := readJoinAnswer(answer, mesh, h.ID(), issuer, cfg.Now())
	if err != nil {
		return Joined{}, &JoinError{"the issuer's answer does not hold", err}
	}
	return out, nil
}

// newcomerHost dials and does nothing else.
func newcomerHost(cfg JoinConfig) (host.Host, error) {
	opts := []libp2p.Option{
		libp2p.Identity(cfg.Key), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.UserAgent("kith"),
		libp2p.DisableIdentifyAddressDiscovery(), libp2p.ForceReachabilityPrivate(),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}), libp2p.ResourceManager(&network.NullResourceManager{}),
	}
	if len(cfg.Options) > 0 {
		return libp2p.New(append(append(opts, libp2p.DisableRelay()), cfg.Options...)...)
	}
	var tcpOpts []any
	if cfg.Dialer != nil {
		tcpOpts = []any{tcp.WithDialerForAddr(cfg.Dialer)}
	}
	opts = append(opts, libp2p.EnableRelay())
	return libp2p.New(append(opts, transports(cfg.NoQUIC, tcpOpts...)...)...)
}

// ask sends the request and returns the answer's bytes.
func ask(ctx context.Context, h host.Host, mesh auth.MeshID, to peer.AddrInfo, req *pb.JoinRequest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*openTimeout)
	defer cancel()
	if err := h.Connect(ctx, to); err != nil {
		return nil, unreachable(to.ID, err)
	}
	b, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	s, err := h.NewStream(network.WithAllowLimitedConn(ctx, JoinProtocol.Name), to.ID, JoinProtocol.ID(mesh))
	if err != nil {
		var unsupported multistream.ErrNotSupported[protocol.ID]
		if errors.As(err, &unsupported) {
			return nil, wrongPeer(h, to.ID, mesh)
		}
		return nil, err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(JoinProtocol.Deadline)); err != nil {
		return nil, err
	}
	if err := writeFrame(s, frame{kind: kindRequest, id: 1, wait: JoinProtocol.Deadline, payload: b}); err != nil {
		return nil, err
	}
	raw, err := readFrame(bufio.NewReader(s), JoinProtocol.MaxMessage, firstRead)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrLost
		}
		return nil, err
	}
	f, err := decodeFrame(raw)
	switch {
	case err != nil:
		return nil, err
	case f.kind == kindRefusal:
		return nil, f.refusal
	case f.kind != kindResponse || f.id != 1:
		return nil, errMalformed
	}
	return f.payload, nil
}

// wrongPeer says what a peer without our mesh's join protocol is.
func wrongPeer(h host.Host, id peer.ID, mesh auth.MeshID) error {
	protos, err := h.Peerstore().GetProtocols(id)
	if err != nil {
		return err
	}
	for _, p := range protos {
		rest, ok := strings.CutPrefix(string(p), "/kith/")
		other, tail, cut := strings.Cut(rest, "/")
		if !ok || !cut || !strings.HasPrefix(tail, Hello.Name+"/") {
			continue
		}
		if other != mesh.Prefix() {
			return Refuse(CodeOtherMesh, "the peer belongs to mesh %s, the invite is for %s", cleanText(other[:min(len(other), 16)]), mesh.Prefix())
		}
		return errors.New("the peer is of this mesh but speaks another version of join: upgrade the older of the two")
	}
	return errors.New("what answers at that address is not a kith node")
}

// joinError puts a plain reason before the cause.
func joinError(err error, cfg JoinConfig) error {
	var u *Unreachable
	var r *Refusal
	switch {
	case errors.As(err, &u):
		why := "the issuer can't be reached: check that it runs and that one of its addresses can be reached from here"
		if cfg.Invite != nil && cfg.Now().After(cfg.Invite.Expires) {
			why = "the invite ended at " + cfg.Invite.Expires.UTC().Format(time.RFC3339) + ", and the issuer can't be reached"
		}
		return &JoinError{why, err}
	case errors.As(err, &r):
		why := "the issuer refuses"
		switch r.Code {
		case CodeInviteSpent:
			why = "the invite is spent"
		case CodeInviteExpired:
			why = "the invite has expired"
		case CodeInviteUnknown:
			why = "the invite is unknown to its issuer"
		case CodeInviteRevoked:
			why = "the invite was revoked"
		case CodeClock:
			why = "a clock is wrong"
		case CodeOtherMesh:
			why = "it is another mesh"
		case CodeNotOpen:
			why = "the mesh is not open"
		case CodeTokenRevoked:
			why = "this node was revoked"
		}
		return &JoinError{why, err}
	case errors.Is(err, context.DeadlineExceeded):
		return &JoinError{"the issuer did not answer in time", err}
	}
	return &JoinError{"the issuer did not answer as it should", err}
}

// readJoinAnswer checks all that an issuer sent.
func readJoinAnswer(b []byte, mesh auth.MeshID, self peer.ID, issuer peer.AddrInfo, now time.Time) (Joined, error) {
	var in pb.JoinAnswer
	if err := proto.Unmarshal(b, &in); err != nil {
		return Joined{}, err
	}
	out := Joined{Mesh: mesh, Token: in.Token, Charter: in.Charter, Issuer: issuer}
	var err error
	if out.Grant, err = out.Token.Verify(mesh, self, now, nil); err != nil {
		if there := time.Unix(in.Clock, 0); clockApart(there, now) > auth.Skew {
			return Joined{}, Refuse(CodeClock, "%s", clockText(now, there))
		}
		return Joined{}, err
	}
	if len(in.Charter) == 0 {
		out.Charter = nil
	} else if c, err := auth.ParseCharter(in.Charter); err != nil {
		return Joined{}, err
	} else if c.Mesh != mesh {
		return Joined{}, fmt.Errorf("its charter is of mesh %s", c.Mesh.Prefix())
	}
	if len(in.Records) > maxJoinRecords {
		return Joined{}, fmt.Errorf("%d peer records, the most is %d", len(in.Records), maxJoinRecords)
	}
	out.Peers = []peer.AddrInfo{issuer}
	for _, r := range in.Records {
		rec, err := openRecord(r)
		if err != nil {
			return Joined{}, err
		}
		out.Records = append(out.Records, r)
		if rec.PeerID != issuer.ID && rec.PeerID != self {
			out.Peers = append(out.Peers, peer.AddrInfo{ID: rec.PeerID, Addrs: rec.Addrs})
		}
	}
	return out, nil
}
