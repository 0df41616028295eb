package shape

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Dialer returns what tcp.WithDialerForAddr takes: it delays connections to the
// addresses ("host:port") of the table by their one-way delay in each direction,
// and leaves all others alone.
func Dialer(delays map[string]time.Duration) tcp.DialerForAddr {
	table := make(map[string]time.Duration, len(delays))
	for addr, d := range delays {
		table[canonical(addr)] = d
	}
	return func(raddr ma.Multiaddr) (tcp.ContextDialer, error) {
		_, addr, err := manet.DialArgs(raddr)
		if err != nil {
			return nil, fmt.Errorf("shape: %s: %w", raddr, err)
		}
		if d := table[canonical(addr)]; d > 0 {
			return dialer{delay: d}, nil
		}
		return &net.Dialer{}, nil
	}
}

// canonical is one spelling for an address; a name stays as it is.
func canonical(addr string) string {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
	}
	return addr
}

type dialer struct {
	net.Dialer
	delay time.Duration
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	trip := time.NewTimer(2 * d.delay)
	defer trip.Stop()
	select {
	case <-trip.C:
		return Delay(c, d.delay), nil
	case <-ctx.Done():
		c.Close()
		return nil, fmt.Errorf("shape: dial %s: %w", address, ctx.Err())
	}
}
