package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
)

func TestNoop(t *testing.T) {
	if len(noop) >= 1<<10 {
		t.Errorf("the no-op module has %d bytes", len(noop))
	}
}

// TestDispatch runs a little of each case but memory, on real processes: every
// result is checked by the bench itself.
func TestDispatch(t *testing.T) {
	o := options(t)
	o.Cases = []string{"first-result/p50", "sustained", "sustained-go-guest"}
	var got, against []string
	err := runDispatch(t.Context(), o, dispatchSize{first: 2, rounds: 1, tasks: 300, limit: 100 * time.Millisecond, guest: 8}, func(l Line) {
		got, against = append(got, l.Case), append(against, l.Against)
		if l.Value <= 0 || l.Bench != "dispatch" || l.Against != "" && l.AgainstValue <= 0 {
			t.Errorf("line %+v", l)
		}
	})
	if err != nil || !slices.Equal(got, []string{"first-result/p50", "sustained", "sustained", "sustained", "sustained-go-guest"}) ||
		!slices.Equal(against, []string{"", "", "stream-rpc", "group-commit", ""}) {
		t.Errorf("cases %q against %q, %v", got, against, err)
	}
	nothingLeft(t, o)
}

func TestDispatchInterrupted(t *testing.T) {
	o := options(t)
	ctx, cancel := context.WithCancel(t.Context())
	o.Log = lineFunc(func(line string) {
		if strings.Contains(line, "first-result") {
			cancel()
		}
	})
	if err := runDispatch(ctx, o, dispatchFull, func(l Line) { t.Errorf("a line of a bench that did not end: %+v", l) }); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	nothingLeft(t, o)
}

// What the bench counts as done is all of it, once.
func TestDispatchChecksCounts(t *testing.T) {
	d := &desk{}
	for what, j := range map[string]api.Job{
		"too few":       {Tasks: 3, Done: 2, Workers: []api.Worker{{Accepted: 2}}},
		"counted twice": {Tasks: 3, Done: 3, Workers: []api.Worker{{Accepted: 3}, {Accepted: 1}}},
		"another size":  {Tasks: 2, Done: 2, Workers: []api.Worker{{Accepted: 2}}},
	} {
		if err := d.check(t.Context(), j, 3); err == nil {
			t.Errorf("%s passes for a job of 3", what)
		}
	}
}
