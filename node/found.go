package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

// FounderTerm is how long the founder's own token lasts. The founder holds the
// root key and renews it at every start that finds it in its last third.
const FounderTerm = 365 * 24 * time.Hour

// Mesh is what Found made.
type Mesh struct {
	ID   auth.MeshID
	Peer peer.ID
	Name string
	Open bool
}

// ErrHasMesh says that a home already belongs to a mesh.
var ErrHasMesh = errors.New("this home already belongs to a mesh: give the new one its own with --home")

// Found makes a new mesh, with this home's node as its founder and first
// member. An open mesh may be joined without an invite from the same LAN.
func Found(home Home, name string, open bool, now time.Time) (Mesh, error) {
	var m Mesh
	if err := home.prepare(); err != nil {
		return m, err
	}
	release, err := home.tryLock()
	if err != nil {
		return m, err
	}
	defer release() // nothing to say: the process or the caller goes on
	return found(home, name, open, now)
}

// found is Found on a home that is prepared and locked.
func found(home Home, name string, open bool, now time.Time) (Mesh, error) {
	var m Mesh
	if home.HasMesh() {
		return m, fmt.Errorf("home %s: %w", home, ErrHasMesh)
	}
	key, err := p2p.LoadOrCreateKey(home.Key())
	if err != nil {
		return m, err
	}
	if err := os.MkdirAll(filepath.Dir(home.Root()), 0o700); err != nil {
		return m, fmt.Errorf("node: %w", err)
	}
	root, err := p2p.LoadOrCreateKey(home.Root())
	if err != nil {
		return m, err
	}
	if m.ID, err = auth.MeshOf(root.GetPublic()); err != nil {
		return m, err
	}
	if m.Peer, err = peer.IDFromPrivateKey(key); err != nil {
		return m, err
	}
	m.Name, m.Open = name, open
	charter, err := auth.Charter{Name: name, Open: open, Rights: auth.MemberRights, Issued: now}.Sign(root)
	if err != nil {
		return m, err
	}
	token, err := founderToken(root, m.Peer, now)
	if err != nil {
		return m, err
	}
	// The token comes last: its presence says that the mesh is whole.
	if err := writeFile(home.Charter(), charter, 0o600); err != nil {
		return m, err
	}
	return m, writeFile(home.Token(), token, 0o600)
}

func founderToken(root crypto.PrivKey, id peer.ID, now time.Time) (auth.Token, error) {
	return auth.Mint(root, auth.Subject{Peer: id, Rights: auth.AllRights, Expires: now.Add(FounderTerm), Name: "founder", Issued: now})
}

// membership is what a home holds of its mesh.
type membership struct {
	key     crypto.PrivKey
	id      peer.ID
	root    crypto.PrivKey // nil but at the founder
	mesh    auth.MeshID
	token   auth.Token
	grant   auth.Grant
	charter []byte
	about   auth.Charter
}

// loadMembership reads a home that belongs to a mesh. The founder's own token
// is minted anew, and written, when its time draws to an end.
func loadMembership(home Home, now time.Time) (membership, error) {
	m, minted, err := readMembership(home, now)
	if err != nil || !minted {
		return m, err
	}
	return m, writeFile(home.Token(), m.token, 0o600)
}

// readMembership is loadMembership without the writing. A home that lacks a
// part is an error: a new key would be another node's.
func readMembership(home Home, now time.Time) (m membership, minted bool, err error) {
	if !home.HasMesh() {
		return m, false, fmt.Errorf("home %s: %w", home, ErrNoMesh)
	}
	if m.key, err = p2p.LoadKey(home.Key()); err != nil {
		return m, false, fmt.Errorf("node: %w", err)
	}
	if m.id, err = peer.IDFromPrivateKey(m.key); err != nil {
		return m, false, err
	}
	if m.charter, err = os.ReadFile(home.Charter()); err != nil {
		return m, false, fmt.Errorf("node: read the mesh's charter: %w", err)
	}
	if m.about, err = auth.ParseCharter(m.charter); err != nil {
		return m, false, fmt.Errorf("node: %s: %w", home.Charter(), err)
	}
	m.mesh = m.about.Mesh
	raw, err := os.ReadFile(home.Token())
	if err != nil {
		return m, false, fmt.Errorf("node: read the member token: %w", err)
	}
	m.token = raw
	if m.root, err = p2p.LoadKey(home.Root()); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return m, false, fmt.Errorf("node: the mesh's root: %w", err)
		}
		m.root = nil
	}
	m.grant, err = m.token.Verify(m.mesh, m.id, now, nil)
	if m.root != nil && (errors.Is(err, auth.ErrExpired) || err == nil && m.grant.LastThird(now)) {
		if m.token, err = founderToken(m.root, m.id, now); err != nil {
			return m, false, err
		}
		minted = true
		m.grant, err = m.token.Verify(m.mesh, m.id, now, nil)
	}
	if err != nil {
		return m, false, fmt.Errorf("node: member token of %s: %w", home, err)
	}
	return m, minted, nil
}
