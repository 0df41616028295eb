package auth

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kith-mesh/kith/p2p/auth/internal/pb"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"
)

const (
	// MaxToken bounds a token's bytes.
	MaxToken = 4 << 10
	// MaxDepth bounds a token's links: root, and three who pass it on.
	MaxDepth = 4
	// MaxName bounds a subject's name, in bytes.
	MaxName = 64
	// Skew is how far two machines' clocks may stand apart before a token's
	// times stop holding.
	Skew = time.Hour
)

// Sentinels tell what to do about a token that does not hold: get a new one,
// set a clock, or go to another mesh.
var (
	ErrMalformed = errors.New("the token can't be read")
	ErrOtherMesh = errors.New("the token is of another mesh")
	ErrHolder    = errors.New("the token belongs to another peer")
	ErrExpired   = errors.New("the token has expired: ask a member that may admit for a new invite")
	ErrClock     = errors.New("the token was issued in this machine's future: check the clocks of both machines")
	ErrRevoked   = errors.New("the token was revoked")
	ErrWidens    = errors.New("a token can only narrow what its issuer holds")
)

// Token is a chain of signed grants, as it is stored and sent. Only Verify
// gives it meaning.
type Token []byte

// Subject is who a token is for, and with what.
type Subject struct {
	Peer    peer.ID
	Rights  Rights
	Expires time.Time
	Name    string    // for people; at most MaxName bytes
	Issued  time.Time // the issuer's clock now; zero: unknown, no check of the future
}

// Grant is what a verified token gives its holder.
type Grant struct {
	Mesh    MeshID
	Subject peer.ID
	Issuer  peer.ID // signer of the last link
	Root    peer.ID // signer of the first link
	Branch  peer.ID // subject of the first link: whom the root admitted, and who so admitted all below
	Rights  Rights
	Issued  time.Time
	Expires time.Time
	Name    string
	Depth   int // links in the chain; 1 is straight from the root
}

// LastThird reports whether it is time to renew.
func (g Grant) LastThird(now time.Time) bool {
	if g.Issued.IsZero() || !g.Issued.Before(g.Expires) {
		return true
	}
	return !now.Before(g.Expires.Add(-g.Expires.Sub(g.Issued) / 3))
}

// Mint makes a token signed by the mesh's root.
func Mint(root crypto.PrivKey, to Subject) (Token, error) {
	if root == nil {
		return nil, errors.New("mint token: no root key")
	}
	mesh, err := MeshOf(root.GetPublic())
	if err != nil {
		return nil, fmt.Errorf("mint token: %w", err)
	}
	link, err := sealGrant(root, mesh, to)
	if err != nil {
		return nil, fmt.Errorf("mint token: %w", err)
	}
	return encodeToken([][]byte{link})
}

// Delegate makes a token signed by a member whose own token lets it admit. It
// refuses to give more than the issuer holds, in rights or in time.
func Delegate(issuer crypto.PrivKey, own Token, to Subject) (Token, error) {
	if issuer == nil {
		return nil, errors.New("delegate token: no issuer key")
	}
	links, grants, err := decodeToken(own)
	if err != nil {
		return nil, fmt.Errorf("delegate token: own token: %w", err)
	}
	last := grants[len(grants)-1]
	id, err := peer.IDFromPrivateKey(issuer)
	if err != nil {
		return nil, fmt.Errorf("delegate token: %w", err)
	}
	switch {
	case last.Subject != id:
		return nil, fmt.Errorf("delegate token: own token: %w", ErrHolder)
	case !last.Rights.Has(Admit):
		return nil, fmt.Errorf("delegate token: %w: it may not admit, it holds %s", ErrWidens, last.Rights)
	case !last.Rights.Has(to.Rights):
		return nil, fmt.Errorf("delegate token: %w: asked for %s, the issuer holds %s", ErrWidens, to.Rights, last.Rights)
	case to.Expires.After(last.Expires):
		return nil, fmt.Errorf("delegate token: %w: it ends %s, the issuer's own ends %s", ErrWidens,
			to.Expires.UTC().Format(time.RFC3339), last.Expires.UTC().Format(time.RFC3339))
	case len(links) >= MaxDepth:
		return nil, fmt.Errorf("delegate token: the issuer's chain has %d links, the most there may be", len(links))
	}
	link, err := sealGrant(issuer, last.Mesh, to)
	if err != nil {
		return nil, fmt.Errorf("delegate token: %w", err)
	}
	return encodeToken(append(links, link))
}

// Verify checks every link of the chain: the first is signed by the root of
// mesh, each other by the subject before it, rights and times only narrow, the
// last names holder, and nobody in it is revoked. revoked may be nil.
func (t Token) Verify(mesh MeshID, holder peer.ID, now time.Time, revoked func(peer.ID) bool) (Grant, error) {
	_, grants, err := decodeToken(t)
	if err != nil {
		return Grant{}, err
	}
	g := grants[len(grants)-1]
	if g.Mesh != mesh {
		return Grant{}, fmt.Errorf("%w: it says %s, this is %s", ErrOtherMesh, g.Mesh.Prefix(), mesh.Prefix())
	}
	if g.Subject != holder {
		return Grant{}, fmt.Errorf("%w: it says %s, presented by %s", ErrHolder, g.Subject, holder)
	}
	for _, link := range grants {
		if now.After(link.Expires.Add(Skew)) {
			return Grant{}, fmt.Errorf("%w (it ended %s, this machine's clock says %s)", ErrExpired,
				link.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		if link.Issued.After(now.Add(Skew)) {
			return Grant{}, fmt.Errorf("%w (it was issued %s, this machine's clock says %s)", ErrClock,
				link.Issued.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		if revoked != nil && (revoked(link.Subject) || revoked(link.Issuer)) {
			return Grant{}, fmt.Errorf("%w (link of %s)", ErrRevoked, link.Subject)
		}
	}
	return g, nil
}

// Inspect reads a token's last grant and checks its signatures, but not its
// mesh, its holder or its time: for showing a token to its owner.
func (t Token) Inspect() (Grant, error) {
	_, grants, err := decodeToken(t)
	if err != nil {
		return Grant{}, err
	}
	return grants[len(grants)-1], nil
}

func sealGrant(key crypto.PrivKey, mesh MeshID, to Subject) ([]byte, error) {
	if err := to.Peer.Validate(); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	if len(to.Name) > MaxName || !utf8.ValidString(to.Name) {
		return nil, fmt.Errorf("subject's name %q: want at most %d bytes of UTF-8", clip(to.Name), MaxName)
	}
	if to.Rights&^AllRights != 0 {
		return nil, fmt.Errorf("rights %s: not known", to.Rights)
	}
	if to.Expires.IsZero() {
		return nil, errors.New("a token needs an expiry")
	}
	g := &pb.Grant{
		Mesh: string(mesh), Subject: []byte(to.Peer), Rights: uint32(to.Rights),
		Expires: to.Expires.Unix(), Name: to.Name,
	}
	if !to.Issued.IsZero() {
		g.Issued = to.Issued.Unix()
	}
	b, err := proto.Marshal(g)
	if err != nil {
		return nil, err
	}
	env, err := record.Seal(&sealed{domain: grantDomain, payload: b}, key)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

func encodeToken(links [][]byte) (Token, error) {
	b, err := proto.Marshal(&pb.Token{Links: links})
	if err != nil {
		return nil, err
	}
	if len(b) > MaxToken {
		return nil, fmt.Errorf("token of %d bytes: more than %d", len(b), MaxToken)
	}
	return b, nil
}

// decodeToken checks everything that needs no outside knowledge.
func decodeToken(t Token) ([][]byte, []Grant, error) {
	if len(t) == 0 {
		return nil, nil, fmt.Errorf("%w: it is empty", ErrMalformed)
	}
	if len(t) > MaxToken {
		return nil, nil, fmt.Errorf("%w: %d bytes, the most is %d", ErrMalformed, len(t), MaxToken)
	}
	var msg pb.Token
	if err := proto.Unmarshal(t, &msg); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if n := len(msg.Links); n == 0 || n > MaxDepth {
		return nil, nil, fmt.Errorf("%w: %d links, want 1 to %d", ErrMalformed, n, MaxDepth)
	}
	grants := make([]Grant, 0, len(msg.Links))
	for i, link := range msg.Links {
		g, signer, err := openGrant(link)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: link %d: %w", ErrMalformed, i, err)
		}
		if i == 0 {
			mesh, err := MeshOf(signer)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: link 0: %w", ErrMalformed, err)
			}
			if mesh != g.Mesh {
				return nil, nil, fmt.Errorf("%w: the first link is not signed by the root of %s", ErrOtherMesh, clip(string(g.Mesh)))
			}
			g.Root, g.Branch = g.Issuer, g.Subject
		} else {
			up := grants[i-1]
			switch {
			case g.Mesh != up.Mesh:
				return nil, nil, fmt.Errorf("%w: link %d", ErrOtherMesh, i)
			case g.Issuer != up.Subject:
				return nil, nil, fmt.Errorf("%w: link %d is not signed by the subject of the link before it", ErrMalformed, i)
			case !up.Rights.Has(Admit), !up.Rights.Has(g.Rights):
				return nil, nil, fmt.Errorf("%w: link %d gives %s from %s", ErrWidens, i, g.Rights, up.Rights)
			case g.Expires.After(up.Expires):
				return nil, nil, fmt.Errorf("%w: link %d ends later than the link before it", ErrWidens, i)
			}
			g.Root, g.Branch = up.Root, up.Branch
		}
		g.Depth = i + 1
		grants = append(grants, g)
	}
	return msg.Links, grants, nil
}

func openGrant(link []byte) (Grant, crypto.PubKey, error) {
	in := &sealed{domain: grantDomain}
	env, err := record.ConsumeTypedEnvelope(link, in)
	if err != nil {
		return Grant{}, nil, err
	}
	var msg pb.Grant
	if err := proto.Unmarshal(in.payload, &msg); err != nil {
		return Grant{}, nil, err
	}
	subject, err := peer.IDFromBytes(msg.Subject)
	if err != nil {
		return Grant{}, nil, fmt.Errorf("subject: %w", err)
	}
	issuer, err := peer.IDFromPublicKey(env.PublicKey)
	if err != nil {
		return Grant{}, nil, fmt.Errorf("issuer: %w", err)
	}
	mesh, err := ParseMeshID(msg.Mesh)
	if err != nil {
		return Grant{}, nil, err
	}
	if len(msg.Name) > MaxName {
		return Grant{}, nil, fmt.Errorf("name of %d bytes, the most is %d", len(msg.Name), MaxName)
	}
	if msg.Expires <= 0 || msg.Expires > maxUnix || msg.Issued < 0 || msg.Issued > maxUnix {
		return Grant{}, nil, errors.New("a time out of range")
	}
	g := Grant{
		Mesh: mesh, Subject: subject, Issuer: issuer, Rights: Rights(msg.Rights) & AllRights,
		Expires: time.Unix(msg.Expires, 0), Name: printable(msg.Name),
	}
	if msg.Issued > 0 {
		g.Issued = time.Unix(msg.Issued, 0)
	}
	return g, env.PublicKey, nil
}

// printable keeps a name that another issuer chose from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

const maxUnix = 1 << 40 // far beyond any calendar, far from overflow
