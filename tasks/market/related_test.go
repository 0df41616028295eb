package market

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
)

// Who is reached in one network, on this machine or by relays alone, or came by
// one member, is related.
func TestKin(t *testing.T) {
	member := func(branch string, path p2p.Path, addr string) p2p.Member {
		m := p2p.Member{Grant: auth.Grant{Branch: peer.ID(branch)}, Path: path}
		if addr != "" {
			m.Addr = ma.StringCast(addr)
		}
		return m
	}
	for _, c := range []struct {
		a, b p2p.Member
		want bool
	}{
		{member("a", p2p.PathDirect, "/ip4/192.0.2.1/tcp/1"), member("b", p2p.PathDirect, "/ip4/192.0.2.200/udp/2/quic-v1"), true},
		{member("a", p2p.PathDirect, "/ip4/192.0.2.1/tcp/1"), member("b", p2p.PathDirect, "/ip4/192.0.3.1/tcp/1"), false},
		{member("a", p2p.PathDirect, "/ip6/2001:db8:1:2::1/tcp/1"), member("b", p2p.PathDirect, "/ip6/2001:db8:1:3::1/tcp/1"), true},
		{member("a", p2p.PathDirect, "/ip6/2001:db8:1:2::1/tcp/1"), member("b", p2p.PathDirect, "/ip6/2001:db8:2:2::1/tcp/1"), false},
		{member("a", p2p.PathDirect, "/ip6/::ffff:192.0.2.1/tcp/1"), member("b", p2p.PathDirect, "/ip4/192.0.2.9/tcp/1"), true},
		{member("a", p2p.PathDirect, "/ip4/192.0.2.1/tcp/1"), member("a", p2p.PathDirect, "/ip4/192.0.3.1/tcp/1"), true},
		{member("a", p2p.PathLoopback, "/ip4/127.0.0.1/tcp/1"), member("b", p2p.PathLoopback, "/ip4/192.0.3.1/tcp/1"), true},
		{member("a", p2p.PathRelayed, "/ip4/192.0.2.1/tcp/1"), member("b", p2p.PathRelayed, "/ip4/192.0.3.1/tcp/1"), true},
		{member("a", p2p.PathLAN, "/ip4/10.0.0.1/tcp/1"), member("b", p2p.PathRelayed, "/ip4/10.0.0.1/tcp/1"), false},
		{member("", p2p.PathNone, ""), member("", p2p.PathNone, ""), false},
	} {
		a, b := kinOf(c.a), kinOf(c.b)
		if got := slices.ContainsFunc(a, func(k string) bool { return slices.Contains(b, k) }); got != c.want {
			t.Errorf("%v and %v: related %v, want %v", a, b, got, c.want)
		}
	}
}

// What a job's peers have in common is known where it is decided: those of this
// mesh, in networks of their own, are not related.
func TestUnrelatedQuorum(t *testing.T) {
	inMesh(t, 4, nil, func(m *mesh) {
		n := m.all[0]
		if kin := n.svc.kin(m.all[1].id); len(kin) != 2 {
			t.Errorf("known of a worker: %v, want its network and by whom it came", kin)
		}
		spec, _ := lineJob(n, 8)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		v := m.done(n, m.submit(n, spec))
		results, err := n.svc.Results(t.Context(), v.Record.ID, tasks.StageMap)
		if err != nil || len(results) != 8 {
			t.Fatalf("%d results, %v", len(results), err)
		}
		for _, r := range results {
			if r.Related {
				t.Errorf("task %d is of related peers: %v", r.Ref.Index, r.Workers)
			}
		}
	})
}
