package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
)

func subscribe(t *testing.T, e *events, after uint64) <-chan api.Event {
	t.Helper()
	ch, err := e.Subscribe(t.Context(), after)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func (e *events) subscribers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subs)
}

func TestEventsAreNumberedInOrder(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	e := newEvents(nil, func() time.Time { return now })
	ch := subscribe(t, e, 0)
	e.member(peer.ID("a"), true)
	e.member(peer.ID("a"), false)
	e.policy(true)
	e.policy(false)
	for i, want := range []string{"joined", "left", "paused", "resumed"} {
		ev := <-ch
		if ev.ID != uint64(i+1) || ev.State != want || !ev.Time.Equal(now) {
			t.Errorf("event %d: %+v, want %s", i, ev, want)
		}
	}
	late := subscribe(t, e, 2)
	if ev := <-late; ev.ID != 3 {
		t.Errorf("after 2 comes %d", ev.ID)
	}
	// A number of another life of this node: all that is kept is news.
	if ev := <-subscribe(t, e, 1_000_000); ev.ID != 1 {
		t.Errorf("after a number never given comes %+v, want the first", ev)
	}
}

func TestEventsAreBounded(t *testing.T) {
	e := newEvents(nil, time.Now)
	const gone = 2*eventsKept + 7
	for range gone + eventsKept {
		e.policy(true)
	}
	if len(e.kept) > 2*eventsKept {
		t.Errorf("%d events are in memory, want at most %d", len(e.kept), 2*eventsKept)
	}
	// Those between 10 and the first kept are gone, and the reader is told.
	ch := subscribe(t, e, 10)
	if ev := <-ch; ev.Kind != api.EventLost || ev.ID != gone {
		t.Errorf("first comes %+v, want %s numbered %d", ev, api.EventLost, gone)
	}
	if ev := <-ch; ev.ID != gone+1 {
		t.Errorf("then comes %d, want %d", ev.ID, gone+1)
	}
	// Who asks for all that is kept has missed nothing that it knew of.
	if ev := <-subscribe(t, e, 0); ev.Kind == api.EventLost {
		t.Error("a new reader is told that events are lost")
	}
}

func TestSlowSubscriberIsCutOff(t *testing.T) {
	e := newEvents(nil, time.Now)
	slow, quick := subscribe(t, e, 0), subscribe(t, e, 0)
	const n = 2 * eventsBehind
	for range n {
		e.policy(true)
		<-quick
	}
	var last api.Event
	count := 0
	for ev := range slow { // closed, or this never ends
		if ev.ID != uint64(count+1) {
			t.Fatalf("event %d has number %d", count, ev.ID)
		}
		last = ev
		count++
	}
	if last.Kind != api.EventLost || count != eventsBehind {
		t.Errorf("%d events, the last %+v; want %d and %s", count, last, eventsBehind, api.EventLost)
	}
	if e.subscribers() != 1 {
		t.Errorf("%d subscribers, want the quick one", e.subscribers())
	}
	// It goes on from the last that it saw, and misses none.
	again := subscribe(t, e, last.ID-1)
	for i := range n - eventsBehind + 1 {
		if ev := <-again; ev.ID != last.ID+uint64(i) {
			t.Fatalf("event %d after coming back has number %d", i, ev.ID)
		}
	}
}

func TestSubscriptionEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvents(nil, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		ch, err := e.Subscribe(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, open := <-ch; open {
			t.Error("an event came")
		}
		if e.subscribers() != 0 {
			t.Error("it is still subscribed")
		}
		e.policy(true) // does not write to a closed channel
	})
}

func TestMarketEvents(t *testing.T) {
	ref := tasks.Ref{Stage: tasks.StageMap, Index: 7}
	for _, c := range []struct {
		in          market.Event
		kind, state string
		index       bool
	}{
		{market.Event{Kind: market.JobSubmitted}, api.EventJob, "splitting", false},
		{market.Event{Kind: market.JobRunning, Count: 3}, api.EventJob, "running", false},
		{market.Event{Kind: market.JobFinished, State: tasks.Done}, api.EventJob, "done", false},
		{market.Event{Kind: market.JobFinished, State: tasks.Failed}, api.EventJob, "failed", false},
		{market.Event{Kind: market.JobPublished}, api.EventJob, "published", false},
		{market.Event{Kind: market.JobAnswered, State: tasks.Cancelled}, api.EventJob, "cancelled", false},
		{market.Event{Kind: market.TaskLeased, Count: 2}, api.EventTask, "running", false},
		{market.Event{Kind: market.TaskLost}, api.EventTask, "lost", false},
		{market.Event{Kind: market.TaskFailed, Ref: ref}, api.EventTask, "failed", true},
		{market.Event{Kind: market.TaskDecided, Ref: ref}, api.EventTask, "done", true},
		{market.Event{Kind: market.EventsLost}, api.EventLost, "", false},
		{market.Event{Kind: market.WorkStarted}, "", "", false},
	} {
		c.in.Job = "j"
		got, ok := fromMarket(c.in)
		if ok != (c.kind != "") {
			t.Errorf("%s: used %v", c.in.Kind, ok)
			continue
		}
		if ok && (string(got.Kind) != c.kind || got.State != c.state || got.Job != "j" || (got.Index != nil) != c.index) {
			t.Errorf("%s: %+v", c.in.Kind, got)
		}
		if c.index && (*got.Index != 7 || got.Stage != "map") {
			t.Errorf("%s: task %d of %s", c.in.Kind, *got.Index, got.Stage)
		}
	}
}
