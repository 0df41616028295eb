package storage

import "fmt"

// Audience says who may fetch a root's blocks. A wider one has a larger value;
// the widest root that holds a block wins.
type Audience int

const (
	Nobody Audience = 0 // not decided: its blocks are still being fetched
	Job    Audience = 1 // who shows a ticket for the root
	Mesh   Audience = 2 // members
	Public Audience = 3 // anybody
)

func (a Audience) String() string {
	switch a {
	case Nobody:
		return "nobody"
	case Job:
		return "job"
	case Mesh:
		return "mesh"
	case Public:
		return "public"
	}
	return fmt.Sprintf("audience(%d)", int(a))
}

// ParseAudience is String's inverse.
func ParseAudience(s string) (Audience, error) {
	for _, a := range []Audience{Job, Mesh, Public} {
		if s == a.String() {
			return a, nil
		}
	}
	return 0, fmt.Errorf("audience %q: want job, mesh or public", s)
}
