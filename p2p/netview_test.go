package p2p

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// viewOf is a machine on 192.168.1.0/24 with docker's bridge and a VPN.
func viewOf(cfg Config) *netView {
	v := newNetView(cfg)
	v.at = time.Now().Add(time.Hour) // what follows is not looked up again
	v.nets = []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("100.100.1.1/32")}
	v.bridges = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}
	v.own = map[netip.Addr]bool{
		netip.MustParseAddr("192.168.1.5"): true, netip.MustParseAddr("172.17.0.1"): true, netip.MustParseAddr("127.0.0.1"): true,
		netip.MustParseAddr("100.100.1.1"): true,
	}
	return v
}

func addrs(ss ...string) (out []ma.Multiaddr) {
	for _, s := range ss {
		out = append(out, ma.StringCast(s))
	}
	return out
}

var (
	everywhere = addrs("/ip4/0.0.0.0/tcp/4101")
	p          = peer.ID("somebody")
)

func TestDialable(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    Config
		addr   string
		others []string
		want   bool
	}{
		{"public", Config{Listen: everywhere}, "/ip4/8.8.8.8/tcp/1", nil, true},
		{"same LAN", Config{Listen: everywhere}, "/ip4/192.168.1.77/tcp/1", nil, true},
		{"other LAN", Config{Listen: everywhere}, "/ip4/192.168.2.77/tcp/1", nil, false},
		{"ten", Config{Listen: everywhere}, "/ip4/10.0.0.1/udp/1/quic-v1", nil, false},
		{"ten through a router of ours", Config{Listen: everywhere, Private: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "/ip4/10.0.0.1/tcp/1", nil, true},
		{"a container on our bridge", Config{Listen: everywhere}, "/ip4/172.17.0.4/tcp/1", nil, true},
		{"the same VPN", Config{Listen: everywhere}, "/ip4/100.64.9.9/tcp/1", nil, true},
		{"link local", Config{Listen: everywhere}, "/ip4/169.254.169.254/tcp/80", nil, false},
		{"loopback of who knows where", Config{Listen: everywhere}, "/ip4/127.0.0.1/tcp/1", []string{"/ip4/192.168.1.77/tcp/1"}, false},
		{"loopback of this machine", Config{Listen: everywhere}, "/ip4/127.0.0.1/tcp/1", []string{"/ip4/192.168.1.5/tcp/1"}, true},
		{"its relay runs on this machine", Config{Listen: everywhere}, "/ip4/127.0.0.1/tcp/1", []string{"/ip4/192.168.1.5/tcp/1/p2p-circuit"}, false},
		{"loopback mesh", Config{Listen: loopbackTCP}, "/ip4/127.0.0.1/tcp/1", nil, true},
		{"loopback asked for", Config{Listen: everywhere, Local: LocalAlways}, "/ip6/::1/tcp/1", nil, true},
		{"loopback never", Config{Listen: loopbackTCP, Local: LocalNever}, "/ip4/127.0.0.1/tcp/1", []string{"/ip4/192.168.1.5/tcp/1"}, false},
		{"the user said so", Config{Listen: everywhere, Bootstrap: []peer.AddrInfo{{ID: p, Addrs: addrs("/ip4/10.9.9.9/tcp/1")}}}, "/ip4/10.9.9.9/tcp/1", nil, true},
		{"mapped loopback", Config{Listen: everywhere}, "/ip6/::ffff:127.0.0.1/tcp/1", nil, false},
		{"nowhere", Config{Listen: everywhere}, "/ip4/0.0.0.0/tcp/1", nil, false},
		{"many", Config{Listen: everywhere}, "/ip4/224.0.0.1/udp/1/quic-v1", nil, false},
		{"relay on our LAN", Config{Listen: everywhere}, "/ip4/192.168.1.9/tcp/1/p2p/12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2/p2p-circuit", nil, true},
		{"name", Config{Listen: everywhere}, "/dns4/example.org/tcp/1", nil, true},
		{"simulated", Config{Simulated: true}, "/ip4/10.0.0.1/tcp/1", nil, true},
	} {
		if got := viewOf(c.cfg).dialable(p, ma.StringCast(c.addr), addrs(c.others...)); got != c.want {
			t.Errorf("%s: dialable(%s) = %v", c.name, c.addr, got)
		}
	}
}

func TestTell(t *testing.T) {
	all := addrs("/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.5/tcp/1", "/ip4/172.17.0.1/tcp/1", "/ip4/9.9.9.9/tcp/1", "/ip6/fe80::1/tcp/1",
		"/p2p-circuit", "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2/p2p-circuit")
	for _, c := range []struct {
		name string
		cfg  Config
		want []int
	}{
		{"auto", Config{Listen: everywhere}, []int{1, 3, 6}},
		{"loopback alone", Config{Listen: loopbackTCP}, []int{0, 1, 3, 6}},
		{"always", Config{Listen: everywhere, Local: LocalAlways}, []int{0, 1, 2, 3, 6}},
		{"never", Config{Listen: loopbackTCP, Local: LocalNever}, []int{1, 3, 6}},
	} {
		var want []ma.Multiaddr
		for _, i := range c.want {
			want = append(want, all[i])
		}
		if got := viewOf(c.cfg).tell(all); !slices.EqualFunc(got, want, ma.Multiaddr.Equal) {
			t.Errorf("%s: told %v, want %v", c.name, got, want)
		}
	}
}

func TestBridgeNames(t *testing.T) {
	for name, want := range map[string]bool{"docker0": true, "br-1a2b": true, "veth12": true, "eth0": false, "wlan0": false, "bridge": false, "en0": false, "virbr0": true} {
		if bridgeName(name) != want {
			t.Errorf("bridgeName(%s) = %v", name, !want)
		}
	}
}
