package auth_test

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The root mints a token for a member that may admit others; that one passes on
// less than it holds.
func Example() {
	root, rootPub, _ := crypto.GenerateEd25519Key(rand.Reader)
	mesh, _ := auth.MeshOf(rootPub)
	admin, adminPub, _ := crypto.GenerateEd25519Key(rand.Reader)
	adminID, _ := peer.IDFromPublicKey(adminPub)
	_, workerPub, _ := crypto.GenerateEd25519Key(rand.Reader)
	workerID, _ := peer.IDFromPublicKey(workerPub)

	now := time.Now()
	own, _ := auth.Mint(root, auth.Subject{Peer: adminID, Rights: auth.AllRights, Issued: now, Expires: now.Add(90 * 24 * time.Hour)})
	token, err := auth.Delegate(admin, own, auth.Subject{Peer: workerID, Rights: auth.Work, Issued: now, Expires: now.Add(24 * time.Hour)})
	if err != nil {
		fmt.Println(err)
		return
	}
	grant, err := token.Verify(mesh, workerID, now, nil)
	fmt.Println(grant.Rights, grant.Depth, grant.Issuer == adminID, err)
	// Output: work 2 true <nil>
}
