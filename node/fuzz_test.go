package node

import (
	"crypto/rand"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/p2p/auth"
)

// Whatever stands in an invite for its issuer's addresses, they are the
// issuer's or they are refused.
func FuzzInviteAddresses(f *testing.F) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	for _, addrs := range [][]ma.Multiaddr{nil, {ma.StringCast("/ip4/192.0.2.1/tcp/4101"), ma.StringCast("/dns4/example.org/udp/1/quic-v1")}} {
		env, err := record.Seal(&peer.PeerRecord{PeerID: id, Addrs: addrs, Seq: 1}, key)
		if err != nil {
			f.Fatal(err)
		}
		b, err := env.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := issuerOf(auth.Invite{Issuer: id, Records: [][]byte{b}})
		if err != nil && len(got) > 0 {
			t.Error("refused and used")
		}
		for _, p := range got {
			if p.ID != id {
				t.Errorf("the addresses of %s", p.ID)
			}
		}
	})
}
