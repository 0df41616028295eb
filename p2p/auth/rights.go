package auth

import (
	"fmt"
	"strings"
)

// Rights are what a member may do in its mesh. Bits are never reused.
type Rights uint32

const (
	Submit Rights = 1 << iota // have jobs run by others
	Work                      // run others' tasks
	Host                      // adopt published jobs as their origin
	Admit                     // issue and renew tokens
)

const (
	// AllRights is every right that this version knows.
	AllRights = Submit | Work | Host | Admit
	// MemberRights is what an invite gives unless it says otherwise.
	MemberRights = Submit | Work | Host
)

var rightNames = []struct {
	r    Rights
	name string
}{{Submit, "submit"}, {Work, "work"}, {Host, "host"}, {Admit, "admit"}}

// Has reports whether r holds every right of want.
func (r Rights) Has(want Rights) bool { return r&want == want }

// String lists the rights as ParseRights reads them; no rights are "none".
func (r Rights) String() string {
	var parts []string
	for _, n := range rightNames {
		if r.Has(n.r) {
			parts = append(parts, n.name)
			r &^= n.r
		}
	}
	if r != 0 {
		parts = append(parts, fmt.Sprintf("unknown(%#x)", uint32(r)))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ",")
}

// ParseRights reads a comma-separated list of submit, work, host and admit;
// "member", "all" and "none" are short for the usual sets.
func ParseRights(s string) (Rights, error) {
	var out Rights
next:
	for part := range strings.SplitSeq(s, ",") {
		part = strings.ToLower(strings.TrimSpace(part))
		switch part {
		case "all":
			out |= AllRights
			continue
		case "member":
			out |= MemberRights
			continue
		case "none":
			continue
		}
		for _, n := range rightNames {
			if part == n.name {
				out |= n.r
				continue next
			}
		}
		return 0, fmt.Errorf("right %q is not known: use submit, work, host, admit, member or all, separated by commas", clip(part))
	}
	return out, nil
}
