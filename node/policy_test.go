package node

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/node/policy"
)

// pausedTo reports what the market and the mesh are told.
func pausedTo(n *running) (market, mesh bool) {
	return n.market.Limits().Paused, n.host.Capacity().Paused
}

func wantPaused(t *testing.T, n *running, want bool, until time.Time) {
	t.Helper()
	p, err := n.Policy(t.Context())
	if err != nil || p.Paused != want || !p.Until.Equal(until) {
		t.Errorf("policy %+v, %v; want paused %v until %v", p, err, want, until)
	}
	market, mesh := pausedTo(n)
	if market != want || mesh != want {
		t.Errorf("the market is told %v, the mesh %v, want %v", market, mesh, want)
	}
	if l := n.market.Limits(); want && !l.Until.Equal(until) {
		t.Errorf("the market pauses until %v, want %v", l.Until, until)
	}
}

func TestPauseOutlivesTheNode(t *testing.T) {
	t.Parallel()
	cfg := founder(t)
	n := start(t, cfg)
	wantPaused(t, n, false, time.Time{})
	if _, err := n.Pause(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	wantPaused(t, n, true, time.Time{})
	n.stop()
	n = start(t, cfg)
	wantPaused(t, n, true, time.Time{})
	if _, err := n.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPaused(t, n, false, time.Time{})
	n.stop()
	n = start(t, cfg)
	wantPaused(t, n, false, time.Time{})
	var known *api.Error
	for _, d := range []time.Duration{-1, policy.MaxPause + 1} {
		if _, err := n.Pause(t.Context(), d); !errors.As(err, &known) || known.Status != 422 {
			t.Errorf("pause of %v: %v", d, err)
		}
	}
	wantPaused(t, n, false, time.Time{})
}

func TestPauseEndsByTime(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	cfg := founder(t)
	begin := time.Now().Round(0)
	cfg.Now = func() time.Time { return begin.Add(time.Duration(later.Load())) }
	n := start(t, cfg)
	until := begin.Add(time.Hour)
	if _, err := n.Pause(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	wantPaused(t, n, true, until)
	later.Store(int64(time.Hour - 1))
	n.endPause(t.Context())
	wantPaused(t, n, true, until)
	later.Store(int64(time.Hour))
	n.endPause(t.Context())
	wantPaused(t, n, false, time.Time{})

	// Also while the node was away, and what ended is forgotten.
	if _, err := n.Pause(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	n.stop()
	later.Store(int64(2 * time.Hour))
	n = start(t, cfg)
	wantPaused(t, n, false, time.Time{})
	var states []string
	for _, e := range n.events.kept {
		if e.Kind == api.EventPolicy {
			states = append(states, e.State)
		}
	}
	if len(states) != 0 {
		t.Errorf("a node that starts tells %v", states)
	}
}

// TestPolicyChangesAreNotLost changes it from many sides at once: what is in
// force at the end is what is durable.
func TestPolicyChangesAreNotLost(t *testing.T) {
	t.Parallel()
	cfg := founder(t)
	n := start(t, cfg)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			var err error
			if i%2 == 0 {
				_, err = n.Pause(t.Context(), 0)
			} else {
				_, err = n.Resume(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	last := n.showPolicy()
	wantPaused(t, n, last.Paused, last.Until)
	n.stop()
	n = start(t, cfg)
	wantPaused(t, n, last.Paused, last.Until)
}

// TestPauseIsToldToPeers looks from another node.
func TestPauseIsToldToPeers(t *testing.T) {
	t.Parallel()
	a := start(t, founder(t))
	if _, err := a.Pause(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	b := start(t, joiner(t, invite(t, a).Line))
	meet(t, a, b)
	peers, err := b.Peers(t.Context())
	if err != nil || len(peers) != 1 || !peers[0].Capacity.Paused {
		t.Errorf("peers %+v, %v", peers, err)
	}
	if peers[0].Capacity.Cores <= 0 || peers[0].Capacity.Memory <= 0 || len(peers[0].Capacity.Kinds) != 1 {
		t.Errorf("capacity %+v", peers[0].Capacity)
	}
}

func TestPolicyOfTooMuch(t *testing.T) {
	t.Parallel()
	cfg := founder(t)
	if err := cfg.Policy.CPU.Set("1024"); err != nil {
		t.Fatal(err)
	}
	if n, err := New(t.Context(), cfg); err == nil {
		t.Errorf("opened; close: %v", n.Close())
	}
	if cfg.Home.inUse() {
		t.Error("a node that did not open holds its home")
	}
}
