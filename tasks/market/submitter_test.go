package market

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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

// Who publishes and knows nobody is told so: more publishing does not help.
func TestPublisherIsAlone(t *testing.T) {
	for others, want := range []bool{true, false} {
		inMesh(t, 1+others, func(i int, c *Config) { c.Light = true }, func(m *mesh) {
			id, _ := m.publishInline(m.all[0], 3)
			time.Sleep(time.Minute)
			why, err := m.all[0].svc.Why(context.Background(), id)
			if err != nil || len(why) != 1 || !strings.Contains(why[0].Text, "no host has taken the job yet") {
				t.Fatalf("why: %+v, %v", why, err)
			}
			if got := strings.Contains(why[0].Text, "no other member is connected: kith peers"); got != want {
				t.Errorf("beside %d others: why says %q", others, why[0].Text)
			}
		})
	}
}
