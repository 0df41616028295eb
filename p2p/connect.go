package p2p

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// openTimeout bounds dialling, hello and opening a stream together.
const openTimeout = 15 * time.Second

// Unreachable says which addresses of a peer were tried, and what came of each.
type Unreachable struct {
	Peer  peer.ID
	Tried []Attempt
	Cause error
}

// Attempt is one address that did not answer.
type Attempt struct {
	Addr ma.Multiaddr
	Why  string
}

// Error lists every address.
func (u *Unreachable) Error() string {
	if len(u.Tried) == 0 {
		return fmt.Sprintf("peer %s can't be reached: %v", short(u.Peer), u.Cause)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "peer %s can't be reached; tried", short(u.Peer))
	for i, t := range u.Tried {
		if i > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, " %s (%s)", t.Addr, t.Why)
	}
	return b.String()
}

// Unwrap gives libp2p's own error.
func (u *Unreachable) Unwrap() error { return u.Cause }

// errNoAddr is a peer of which no address is known.
var errNoAddr = errors.New("no address of it is known that may be dialled from here")

func unreachable(id peer.ID, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	u := &Unreachable{Peer: id, Cause: err}
	var d *swarm.DialError
	if errors.As(err, &d) {
		for _, t := range d.DialErrors {
			u.Tried = append(u.Tried, Attempt{t.Address, plainDial(t.Cause)})
		}
	}
	if errors.Is(err, swarm.ErrNoAddresses) || errors.Is(err, swarm.ErrNoGoodAddresses) && len(u.Tried) == 0 {
		u.Cause = fmt.Errorf("%w (%w)", errNoAddr, err)
	}
	return u
}

// plainDial is a dial error in the words of whoever has to mend it.
func plainDial(err error) string {
	switch {
	case err == nil:
		return "no answer"
	case errors.Is(err, swarm.ErrGaterDisallowedConnection):
		return "not dialled: a private or loopback address that is not on this LAN or machine"
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "i/o timeout"):
		return "no answer: a firewall or NAT may drop packets"
	case strings.Contains(err.Error(), "connection refused"):
		return "connection refused: nothing listens there"
	case strings.Contains(err.Error(), "peer id mismatch"):
		return "another peer answers there: the address is out of date"
	case strings.Contains(err.Error(), "no route to host"), strings.Contains(err.Error(), "network is unreachable"):
		return "no route to it"
	}
	return cleanText(err.Error())
}

// dial opens a connection, and says what was tried when there is none.
func (h *Host) dial(ctx context.Context, pi peer.AddrInfo) error {
	if pi.ID == h.id {
		return errSelf
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return unreachable(pi.ID, h.raw.Connect(ctx, pi))
}

// Connect dials a peer and waits until both sides have said hello. Its error
// says why the peer is no member to us: unreachable (with the addresses tried),
// of another mesh, an expired token, clocks apart. The addresses count as given
// by this machine's user: they are dialled wherever they are.
func (h *Host) Connect(ctx context.Context, pi peer.AddrInfo) error {
	if len(pi.Addrs) > 0 {
		h.net.trust(pi)
	}
	if err := h.dial(ctx, pi); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := h.gate.wait(ctx, pi.ID); err != nil {
		return fmt.Errorf("connect to %s: %w", short(pi.ID), err)
	}
	return nil
}

// direct reports whether there is a connection that is not over a limited
// relay.
func (h *Host) direct(id peer.ID) bool {
	return h.raw.Network().Connectedness(id) == network.Connected
}

// short is a peer ID as logs and errors show it: its last twelve characters.
func short(id peer.ID) string {
	s := id.String()
	if len(s) > 12 {
		return "…" + s[len(s)-12:]
	}
	return s
}
