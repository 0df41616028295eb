package p2p

import (
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// interfaces describes this machine's addresses. It is "" where they are not
// known, or the host is simulated.
func (h *Host) interfaces() string {
	if h.cfg.Simulated {
		return ""
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	texts := make([]string, 0, len(addrs))
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// roam forgets how often known members could not be reached: this machine's
// addresses have changed, so what failed before may work now.
func (h *Host) roam() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	for _, p := range h.book.peers {
		p.fails, p.retry = 0, time.Time{}
	}
}

// clearBackoff makes libp2p dial where it failed before: when to try again is
// ours to say.
func clearBackoff(n network.Network, id peer.ID) {
	if s, ok := n.(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(id)
	}
}
