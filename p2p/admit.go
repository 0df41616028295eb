package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/internal/pb"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"
)

// JoinProtocol redeems an invite, or admits a newcomer to an open mesh. It is
// open: whoever asks is not a member yet.
var JoinProtocol = Protocol{Name: "join", Version: "1.0.0", MaxMessage: 48 << 10, MaxRequest: 1 << 10, Deadline: 10 * time.Second, Streams: 1, Rate: 0.5, Burst: 5, Open: true}

// charterProtocol tells newcomers on the LAN of an open mesh. It carries no
// mesh in its ID, since they don't know it yet.
const charterProtocol protocol.ID = "/kith/charter/" + charterVersion

const (
	maxJoinRecords = 8
	// joinsPerSecond bounds signing and the redeemer's disk for all newcomers
	// together.
	joinsPerSecond = 20
	joinBurst      = 200
)

func (h *Host) serveJoin() {
	limit := rate.NewLimiter(joinsPerSecond, joinBurst)
	h.Handle(JoinProtocol, func(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
		if !limit.Allow() {
			return nil, &Refusal{Code: CodeBusy, Text: "too many newcomers at once", RetryAfter: time.Second}
		}
		return h.admitNewcomer(ctx, from, req)
	})
	h.Handle(Renew, h.serveRenew)
	if h.openCharter() != nil {
		h.raw.SetStreamHandler(charterProtocol, h.tellCharter)
	}
}

// openCharter is our mesh's charter if it is open, or nil.
func (h *Host) openCharter() *auth.Charter {
	if h.cfg.Charter == nil {
		return nil
	}
	c, err := auth.ParseCharter(h.cfg.Charter)
	if err != nil || !c.Open {
		return nil
	}
	return &c
}

func (h *Host) tellCharter(s network.Stream) {
	if !h.tasks.enter() {
		_ = s.Reset()
		return
	}
	defer h.tasks.leave()
	err := s.SetDeadline(time.Now().Add(JoinProtocol.Deadline))
	if err == nil {
		err = writeFrame(s, frame{kind: kindMessage, payload: h.cfg.Charter})
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// admitNewcomer redeems what a newcomer shows for a token.
func (h *Host) admitNewcomer(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	var in pb.JoinRequest
	if err := proto.Unmarshal(req, &in); err != nil {
		return nil, Refuse(CodeMalformed, "join request: %v", err)
	}
	if len(in.Name) > auth.MaxName {
		return nil, Refuse(CodeMalformed, "name of %d bytes, the most is %d", len(in.Name), auth.MaxName)
	}
	if there := time.Unix(in.Clock, 0); clockApart(there, h.now()) > auth.Skew {
		return nil, Refuse(CodeClock, "%s", clockText(h.now(), there))
	}
	if h.cfg.Revoked != nil && h.cfg.Revoked(from) {
		return nil, Refuse(CodeTokenRevoked, "this peer was revoked")
	}
	if h.cfg.Root == nil && !h.Grant().Rights.Has(auth.Admit) {
		return nil, Refuse(CodeCannotAdmit, "%v", errCannotAdmit)
	}
	to := auth.Subject{Peer: from, Name: cleanText(in.Name)}
	if len(in.Secret) == 0 {
		c := h.openCharter()
		if c == nil {
			return nil, Refuse(CodeNotOpen, "this mesh takes nobody without an invite: ask a member for `kith invite create`")
		}
		if !h.onLAN(from) {
			return nil, Refuse(CodeNotOpen, "this mesh is open to its LAN alone, and you come from elsewhere: ask a member for `kith invite create`")
		}
		to.Rights = c.Rights &^ auth.Admit
	} else {
		secret, err := auth.SecretFromBytes(in.Secret)
		if err != nil {
			return nil, Refuse(CodeMalformed, "%v", err)
		}
		if h.cfg.Redeemer == nil {
			return nil, Refuse(CodeInviteUnknown, "%v", auth.ErrInviteUnknown)
		}
		to.Rights, to.Expires, err = h.cfg.Redeemer.Redeem(ctx, secret.Hash(), from)
		if err != nil {
			return nil, inviteRefusal(err)
		}
	}
	token, err := h.issue(to)
	if err != nil {
		return nil, fmt.Errorf("admit %s: %w", short(from), err)
	}
	h.log.Info("admitted a newcomer", "peer", from, "name", to.Name, "rights", to.Rights.String())
	return proto.Marshal(&pb.JoinAnswer{Token: token, Charter: h.cfg.Charter, Records: h.someRecords(), Clock: h.now().Unix()})
}

// onLAN reports whether all connections with a peer stay on this machine or on
// its LAN.
func (h *Host) onLAN(id peer.ID) bool {
	conns := h.raw.Network().ConnsToPeer(id)
	for _, c := range conns {
		if path := h.net.path(c); path != PathLAN && path != PathLoopback {
			return false
		}
	}
	return len(conns) > 0
}

// inviteRefusal numbers what a redeemer says.
func inviteRefusal(err error) error {
	for _, r := range []struct {
		is   error
		code Code
	}{
		{auth.ErrInviteUnknown, CodeInviteUnknown},
		{auth.ErrInviteSpent, CodeInviteSpent},
		{auth.ErrInviteExpired, CodeInviteExpired},
		{auth.ErrInviteRevoked, CodeInviteRevoked},
	} {
		if errors.Is(err, r.is) {
			return Refuse(r.code, "%v", r.is)
		}
	}
	return err
}

// someRecords is our own record and those of some members.
func (h *Host) someRecords() [][]byte {
	var out [][]byte
	if own, err := h.Record(); err == nil {
		out = append(out, own)
	}
	for _, m := range h.Members() {
		if len(out) >= maxJoinRecords {
			break
		}
		if r := h.RecordOf(m.ID); r != nil && m.Path != PathRelayed {
			out = append(out, r)
		}
	}
	return out
}

// Invite makes an invite to this mesh that this node redeems. The caller stores
// the secret's hash where its Redeemer finds it.
func (h *Host) Invite(rights auth.Rights, expires time.Time) (auth.Invite, error) {
	if h.cfg.Root == nil && !h.Grant().Rights.Has(auth.Admit) {
		return auth.Invite{}, fmt.Errorf("invite: %w", errCannotAdmit)
	}
	if h.cfg.Root == nil && !h.Grant().Rights.Has(rights) {
		return auth.Invite{}, fmt.Errorf("invite: this member holds %s and can't give %s", h.Grant().Rights, rights)
	}
	if !expires.After(h.now()) {
		return auth.Invite{}, fmt.Errorf("invite: it would end at %s, which is past", expires.Format(time.RFC3339))
	}
	own, err := h.Record()
	if err != nil {
		return auth.Invite{}, fmt.Errorf("invite: %w", err)
	}
	if r, err := openRecord(own); err != nil || len(r.Addrs) == 0 {
		return auth.Invite{}, errors.New("invite: this node has no address that others could reach: listen on one, or set the option that tells loopback addresses")
	}
	return auth.Invite{
		Mesh: h.cfg.Mesh, Issuer: h.id, Records: [][]byte{own}, Secret: auth.NewSecret(), Expires: expires, Rights: rights,
	}, nil
}
