package transfer_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	_ "modernc.org/sqlite"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
)

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// node makes a member of the root key's mesh, with a store in memory.
func node(root crypto.PrivKey) (*p2p.Host, *storage.Store, *transfer.Service) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	mesh := must(auth.MeshOf(root.GetPublic()))
	subject := auth.Subject{Peer: must(peer.IDFromPrivateKey(key)), Rights: auth.AllRights, Issued: time.Now(), Expires: time.Now().Add(time.Hour)}
	h := must(p2p.New(p2p.Config{Key: key, Mesh: mesh, Token: must(auth.Mint(root, subject)), NoMDNS: true, NoPortMap: true,
		Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}}))
	db := must(sql.Open("sqlite", ":memory:"))
	db.SetMaxOpenConns(1)
	st := must(storage.Open(storage.Config{DB: db}))
	return h, st, must(transfer.New(h, st, transfer.Config{}))
}

func Example() {
	root, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	giverHost, giverStore, giver := node(root)
	host, store, service := node(root)

	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	runs := []func(context.Context) error{giverHost.Run, host.Run, giver.Run, service.Run}
	for _, run := range runs {
		go func() { done <- run(ctx) }()
	}
	<-giverHost.Ready()
	<-host.Ready()

	added := must(giverStore.AddBytes(ctx, []byte("carried over"), storage.AddOptions{}))
	if err := host.Connect(ctx, peer.AddrInfo{ID: giverHost.ID(), Addrs: giverHost.Raw().Addrs()}); err != nil {
		log.Fatal(err)
	}
	if err := service.Fetch(ctx, transfer.All(added.CID, giverHost.ID()), nil); err != nil {
		log.Fatal(err)
	}
	r := must(store.Open(ctx, added.CID, "", 0, -1))
	fmt.Printf("%s\n", must(io.ReadAll(r)))

	stop()
	for range runs {
		if err := <-done; err != nil {
			log.Fatal(err)
		}
	}
	// Output: carried over
}
