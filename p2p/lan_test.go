package p2p

import (
	"context"
	"net"
	"testing"
	"time"
)

// multicast reports whether this machine has an interface that mDNS can use.
func multicast(t *testing.T) bool {
	t.Helper()
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err == nil && len(addrs) > 0 && i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 && !bridgeName(i.Name) {
			return true
		}
	}
	return false
}

func TestJoinLAN(t *testing.T) {
	if !multicast(t) {
		t.Skip("no interface with multicast")
	}
	t.Parallel()
	m := newTestMesh(t)
	cfg := m.config()
	cfg.Listen, cfg.NoMDNS, cfg.Charter, cfg.NoQUIC = addrs("/ip4/0.0.0.0/tcp/0"), false, m.charter(true), true
	m.host(cfg, nil)
	key, id := newKey(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	found, err := Discover(ctx, JoinConfig{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Charter.Mesh != m.id {
			continue
		}
		got, err := Join(t.Context(), JoinConfig{Key: key, LAN: &f})
		if err != nil || got.Grant.Subject != id {
			t.Errorf("joined %+v, %v", got.Grant, err)
		}
		return
	}
	t.Skipf("%d meshes found, not ours: this network carries no multicast", len(found))
}
