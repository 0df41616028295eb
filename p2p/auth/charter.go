package auth

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/kith-mesh/kith/p2p/auth/internal/pb"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"
)

// MaxCharter bounds a charter's bytes.
const MaxCharter = 1 << 10

// Charter is what the root says of its mesh. Any member hands it out; its
// signature is checked against the mesh ID, so nobody can change it.
type Charter struct {
	Mesh   MeshID
	Name   string // for people; at most MaxName bytes
	Open   bool   // whoever reaches a member may join without an invite
	Rights Rights // what such a newcomer gets; never Admit
	Issued time.Time
}

// Sign seals the charter with the root's key, which settles Mesh.
func (c Charter) Sign(root crypto.PrivKey) ([]byte, error) {
	if root == nil {
		return nil, errors.New("sign charter: no root key")
	}
	mesh, err := MeshOf(root.GetPublic())
	if err != nil {
		return nil, fmt.Errorf("sign charter: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("sign charter: %w", err)
	}
	b, err := proto.Marshal(&pb.Charter{
		Mesh: string(mesh), Name: c.Name, Open: c.Open, Rights: uint32(c.Rights), Issued: c.Issued.Unix(),
	})
	if err != nil {
		return nil, fmt.Errorf("sign charter: %w", err)
	}
	env, err := record.Seal(&sealed{domain: charterDomain, payload: b}, root)
	if err != nil {
		return nil, fmt.Errorf("sign charter: %w", err)
	}
	return env.Marshal()
}

func (c Charter) check() error {
	switch {
	case len(c.Name) > MaxName || !utf8.ValidString(c.Name):
		return fmt.Errorf("mesh name %q: want at most %d bytes of UTF-8", clip(c.Name), MaxName)
	case c.Rights.Has(Admit):
		return errors.New("an open mesh can't give newcomers the right to admit")
	case c.Rights&^AllRights != 0:
		return fmt.Errorf("rights %s: not known", c.Rights)
	}
	return nil
}

// ParseCharter reads a signed charter and checks that the root of the mesh it
// names signed it.
func ParseCharter(b []byte) (Charter, error) {
	if len(b) == 0 || len(b) > MaxCharter {
		return Charter{}, fmt.Errorf("charter of %d bytes: want 1 to %d", len(b), MaxCharter)
	}
	in := &sealed{domain: charterDomain}
	env, err := record.ConsumeTypedEnvelope(b, in)
	if err != nil {
		return Charter{}, fmt.Errorf("charter: %w", err)
	}
	var msg pb.Charter
	if err := proto.Unmarshal(in.payload, &msg); err != nil {
		return Charter{}, fmt.Errorf("charter: %w", err)
	}
	mesh, err := MeshOf(env.PublicKey)
	if err != nil {
		return Charter{}, fmt.Errorf("charter: %w", err)
	}
	if string(mesh) != msg.Mesh {
		return Charter{}, fmt.Errorf("charter: not signed by the root of %s", clip(msg.Mesh))
	}
	if msg.Issued > maxUnix || msg.Issued < -maxUnix {
		return Charter{}, errors.New("charter: a time out of range")
	}
	c := Charter{Mesh: mesh, Name: printable(msg.Name), Open: msg.Open, Rights: Rights(msg.Rights) & AllRights, Issued: time.Unix(msg.Issued, 0)}
	if err := c.check(); err != nil {
		return Charter{}, fmt.Errorf("charter: %w", err)
	}
	return c, nil
}
