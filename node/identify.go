package node

import (
	"time"

	"github.com/kith-mesh/kith/api"
)

// Identify says who the node of a home is, from its files alone: the node need
// not run. Addresses are then not known.
func Identify(home Home, now time.Time) (api.Identity, error) {
	m, _, err := readMembership(home, now)
	if err != nil {
		return api.Identity{}, err
	}
	return api.Identity{
		Peer: m.id.String(), Mesh: string(m.mesh), MeshName: m.about.Name, Open: m.about.Open,
		Name: m.grant.Name, Rights: rightsOf(m.grant.Rights), Expires: m.grant.Expires, Addresses: []string{}, Founder: m.root != nil,
	}, nil
}

// InUse reports whether a node runs on the home.
func (h Home) InUse() bool { return h.inUse() }
