package market

import (
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
)

// A published job whose submitter dies between its hello and the check of its
// rights waits for it; one whose submitter's token does not allow it fails.
func TestSubmitterThatWentAwayIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		fatal bool
	}{
		"may submit":           {nil, false},
		"gone since its hello": {p2p.Refuse(p2p.CodeNotMember, "no member"), false},
		"may not submit":       {p2p.Refuse(p2p.CodeRights, "your token does not allow submit"), true},
	} {
		err := submitterRefused(peer.ID("submitter"), c.err)
		var fatal *fatalSplit
		if is := errors.As(err, &fatal); is != c.fatal || (err == nil) != (c.err == nil) || is && fatal.reason != tasks.NotMember {
			t.Errorf("%s: %v, fatal %v; want fatal %v", name, err, is, c.fatal)
		}
	}
}
