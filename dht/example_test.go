package dht_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/dht"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

// A node alone in its mesh has nobody to tell of its root.
func Example() {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	mesh, err := auth.MeshOf(key.GetPublic())
	if err != nil {
		log.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		log.Fatal(err)
	}
	token, err := auth.Mint(key, auth.Subject{Peer: id, Rights: auth.AllRights, Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	h, err := p2p.New(p2p.Config{Key: key, Mesh: mesh, Token: token, NoMDNS: true, NoPortMap: true})
	if err != nil {
		log.Fatal(err)
	}
	table, err := dht.New(h, dht.Config{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- h.Run(ctx) }()
	go func() { done <- table.Run(ctx) }()

	root := cid.MustParse("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
	found, err := table.FindProviders(ctx, root, 4)
	fmt.Println(len(found), err)
	cancel()
	fmt.Println(<-done, <-done)
	// Output:
	// 0 <nil>
	// <nil> <nil>
}
