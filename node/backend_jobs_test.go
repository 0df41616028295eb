package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
)

// What the market refuses is told with its reason, never as the node's failure.
func TestJobErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		reason string
	}{
		{market.ErrNoJob, api.ReasonNotFound},
		{market.ErrNotOrigin, api.ReasonConflict},
		{market.ErrTooLarge, api.ReasonInvalid},
		{&tasks.SpecError{Faults: []tasks.Fault{{Text: "bad"}}}, api.ReasonInvalid},
		{&market.BusyError{RetryAfter: time.Second}, api.ReasonBusy},
		{p2p.Refuse(p2p.CodeRights, "your token does not allow submit"), api.ReasonRefused},
		{&p2p.Refusal{Code: p2p.CodeBusy, Text: "not running yet", RetryAfter: time.Second}, api.ReasonBusy},
	} {
		var e *api.Error
		if err := jobError(fmt.Errorf("submit: %w", c.err)); !errors.As(err, &e) || e.Reason != c.reason || e.Hint == "" {
			t.Errorf("%v: %+v, want %s", c.err, err, c.reason)
		}
	}
}
