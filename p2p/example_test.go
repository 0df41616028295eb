package p2p_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Two members of a mesh, and a protocol between them.
func Example() {
	root, rootPub, _ := crypto.GenerateEd25519Key(rand.Reader)
	mesh, _ := auth.MeshOf(rootPub)
	greet := p2p.Protocol{Name: "greet", Version: "1.0.0", MaxMessage: 1 << 10, Deadline: 5 * time.Second}
	member := func() *p2p.Host {
		key, pub, _ := crypto.GenerateEd25519Key(rand.Reader)
		id, _ := peer.IDFromPublicKey(pub)
		token, _ := auth.Mint(root, auth.Subject{Peer: id, Rights: auth.MemberRights, Expires: time.Now().Add(time.Hour)})
		h, err := p2p.New(p2p.Config{Key: key, Mesh: mesh, Token: token, Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}})
		if err != nil {
			panic(err)
		}
		return h
	}
	a, b := member(), member()
	b.Handle(greet, func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
		if m, ok := b.Member(from); !ok || !m.Grant.Rights.Has(auth.Work) {
			return nil, p2p.Refuse(p2p.CodeRights, "you may not")
		}
		return append([]byte("hello, "), req...), nil
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for _, h := range []*p2p.Host{a, b} {
		go func() { done <- h.Run(ctx) }()
		<-h.Ready()
	}
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Reachability().Listening}); err != nil {
		fmt.Println(err)
	}
	answer, err := a.Call(ctx, b.ID(), greet, []byte("kith"))
	fmt.Println(string(answer), err)
	stop()
	<-done
	<-done
	// Output: hello, kith <nil>
}
