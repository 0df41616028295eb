package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/shape"
)

// ErrBadInvite says that an invite line can't be read.
var ErrBadInvite = errors.New("the invite line can't be read")

// ErrRefused says that a mesh does not let this node in.
var ErrRefused = errors.New("the mesh refuses this node")

// ErrConfig says that a node can't run with what it was told.
var ErrConfig = errors.New("config not valid")

// ofKind lets errors.Is find a kind in an error whose text says it already.
type ofKind struct {
	error
	kind error
}

func (e ofKind) Unwrap() []error { return []error{e.error, e.kind} }

const (
	lanSearch = 10 * time.Second
	lanName   = "lan"
)

// ensureMember founds or joins a mesh if the home belongs to none and the config
// says how. A home that belongs to one stays with it: an invite to the same mesh
// is not needed any more, one to another is an error.
func (n *Node) ensureMember(ctx context.Context) error {
	line := n.cfg.Join
	if n.cfg.Home.HasMesh() {
		if line == "" || line == lanName {
			return n.sameMeshFile()
		}
		return n.sameMesh(line)
	}
	switch {
	case n.cfg.JoinFile != "":
		var err error
		if line, err = awaitFile(ctx, n.cfg.JoinFile, func() { n.log.Info("waiting for the invite", "file", n.cfg.JoinFile) }); err != nil {
			return err
		}
	case line == "" && n.cfg.Init:
		m, err := found(n.cfg.Home, n.cfg.MeshName, n.cfg.OpenMesh, n.cfg.Now())
		if err == nil {
			n.log.Info("mesh made", "mesh", m.ID)
		}
		return err
	case line == "":
		return fmt.Errorf("home %s: %w", n.cfg.Home, ErrNoMesh)
	}
	return n.join(ctx, line)
}

// sameMeshFile is sameMesh for the file of --join-file, if it is there.
func (n *Node) sameMeshFile() error {
	if n.cfg.JoinFile == "" {
		return nil
	}
	b, err := os.ReadFile(n.cfg.JoinFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read invite: %w", err)
	}
	if line := strings.TrimSpace(string(b)); line != "" {
		return n.sameMesh(line)
	}
	return nil
}

// sameMesh checks an invite that a member does not need any more. Its addresses
// are where to begin, should the node know no better ones.
func (n *Node) sameMesh(line string) error {
	invite, err := auth.ParseInvite(line)
	if err != nil {
		return ofKind{err, ErrBadInvite}
	}
	m, err := loadMembership(n.cfg.Home, n.cfg.Now())
	if err != nil {
		return err
	}
	if invite.Mesh != m.mesh {
		return fmt.Errorf("home %s is a member of mesh %s and the invite is to %s: %w", n.cfg.Home, m.mesh.Prefix(), invite.Mesh.Prefix(), ErrHasMesh)
	}
	begin, err := issuerOf(invite)
	if err != nil {
		return ofKind{err, ErrBadInvite}
	}
	for _, p := range begin {
		if p.ID != m.id {
			n.cfg.bootstrap = append(n.cfg.bootstrap, p)
		}
	}
	return nil
}

// issuerOf is where an invite says that its issuer is.
func issuerOf(invite auth.Invite) (out []peer.AddrInfo, err error) {
	for _, b := range invite.Records {
		r := &peer.PeerRecord{}
		if _, err := record.ConsumeTypedEnvelope(b, r); err != nil {
			return nil, fmt.Errorf("the invite's addresses do not verify: %w", err)
		}
		if r.PeerID == invite.Issuer {
			out = append(out, peer.AddrInfo{ID: r.PeerID, Addrs: r.Addrs})
		}
	}
	return out, nil
}

// join redeems an invite, or asks an open mesh of the LAN, and keeps what it got.
func (n *Node) join(ctx context.Context, line string) error {
	key, err := p2p.LoadOrCreateKey(n.cfg.Home.Key())
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	c := p2p.JoinConfig{Key: key, Name: host[:min(len(host), auth.MaxName)], NoQUIC: n.cfg.NoQUIC, Now: n.cfg.Now, Log: n.log}
	if len(n.cfg.Delays) > 0 {
		c.Dialer = shape.Dialer(n.cfg.Delays)
	}
	if line == lanName {
		search, stop := context.WithTimeout(ctx, lanSearch)
		defer stop()
		found, err := p2p.Discover(search, c)
		if err != nil {
			return fmt.Errorf("look for open meshes on the LAN: %w", err)
		}
		switch len(found) {
		case 0:
			return fmt.Errorf("no open mesh answered on this LAN within %v: on a member of one made with 'kith init --open', check that 'kith up' runs and that the network carries multicast (UDP 5353); or use an invite line", lanSearch)
		case 1:
			c.LAN = &found[0]
		default:
			var names []string
			for _, f := range found {
				names = append(names, fmt.Sprintf("%q (%s)", f.Charter.Name, f.Charter.Mesh.Prefix()))
			}
			return fmt.Errorf("%d open meshes answered on this LAN: %s: join one by its invite line", len(found), strings.Join(names, ", "))
		}
	} else {
		invite, err := auth.ParseInvite(line)
		if err != nil {
			return ofKind{err, ErrBadInvite}
		}
		c.Invite = &invite
	}
	j, err := p2p.Join(ctx, c)
	var refused *p2p.Refusal
	if errors.As(err, &refused) {
		return ofKind{err, ErrRefused}
	}
	if err != nil {
		return err
	}
	if len(j.Charter) == 0 {
		return errors.New("join: the issuer gave no charter of its mesh: update it and ask for a new invite")
	}
	if err := writeFile(n.cfg.Home.Charter(), j.Charter, 0o600); err != nil {
		return err
	}
	if err := j.Remember(string(n.cfg.Home), n.cfg.Now()); err != nil {
		return err
	}
	if err := writeFile(n.cfg.Home.Token(), j.Token, 0o600); err != nil {
		return err
	}
	n.cfg.bootstrap = j.Peers
	n.log.Info("joined", "mesh", j.Mesh, "by", j.Issuer.ID, "rights", j.Grant.Rights.String())
	return nil
}

// awaitFile waits until a file holds a line, and returns it.
func awaitFile(ctx context.Context, name string, waiting func()) (string, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read invite: %w", err)
		}
		if line := strings.TrimSpace(string(b)); line != "" {
			return line, nil
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no invite came in %s: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

// simulatedMember takes the membership that a simulation gives.
func (n *Node) simulatedMember(s Seams) error {
	id, err := peer.IDFromPrivateKey(s.Key)
	if err != nil {
		return err
	}
	n.member = membership{key: s.Key, id: id, mesh: s.Mesh, token: s.Token, charter: s.Charter}
	if n.member.about, err = auth.ParseCharter(s.Charter); err != nil {
		return err
	}
	n.member.grant, err = s.Token.Verify(s.Mesh, id, n.cfg.Now(), nil)
	return err
}

// keepToken stores a renewed member token.
func (n *Node) keepToken(t auth.Token) error { return writeFile(n.cfg.Home.Token(), t, 0o600) }

func (n *Node) loadRevoked(ctx context.Context) error {
	all, err := n.state.Revocations(ctx)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range all {
		n.revoked[r.Peer] = true
	}
	return nil
}

func (n *Node) isRevoked(id peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.revoked[id]
}

// grant is what this node's token says now; it is renewed while the node runs.
func (n *Node) grant() auth.Grant {
	g, err := n.host.Token().Inspect()
	if err != nil {
		return n.member.grant
	}
	return g
}

func rightsOf(r auth.Rights) []string {
	if r == 0 {
		return []string{}
	}
	return slices.Clone(strings.Split(r.String(), ","))
}
