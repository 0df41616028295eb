package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks/market"
)

const (
	eventsKept   = 1024 // for who subscribes late
	eventsBehind = 256  // a subscriber may be
)

// events collects what happens in every part and tells the API's subscribers.
// It implements api.Events.
type events struct {
	market *market.Service
	now    func() time.Time

	mu   sync.Mutex
	last uint64
	kept []api.Event // ascending; the last eventsKept count
	subs []*subscriber
}

type subscriber struct {
	c    chan api.Event // closed by events, under mu
	over bool
}

func newEvents(m *market.Service, now func() time.Time) *events { return &events{market: m, now: now} }

// run takes the market's events until ctx ends.
func (e *events) run(ctx context.Context) error {
	sub := e.market.Subscribe("")
	defer sub.Close()
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			return nil // ctx ended
		}
		if out, ok := fromMarket(m); ok {
			e.tell(out)
		}
	}
}

// fromMarket translates an event; false when the API has no use for it.
func fromMarket(m market.Event) (api.Event, bool) {
	out := api.Event{Kind: api.EventTask, Time: m.At, Job: string(m.Job), Peer: string(m.Worker), Detail: m.Text}
	if m.Count > 0 && out.Detail == "" {
		out.Detail = fmt.Sprintf("%d tasks", m.Count)
	}
	task := func(state string) {
		out.Stage, out.State = stageNames[m.Ref.Stage], state
		out.Index = &m.Ref.Index
	}
	job := func(state string) { out.Kind, out.State = api.EventJob, state }
	switch m.Kind {
	case market.JobSubmitted:
		job("splitting")
	case market.JobRunning:
		job("running")
	case market.JobFinished:
		job(stateName(m.State))
	case market.JobAdopted:
		job("splitting")
	case market.JobPublished:
		job("published")
	case market.JobAnswered:
		job(stateName(m.State))
	case market.TaskLeased:
		out.State = "running"
	case market.TaskLost:
		out.State = "lost"
	case market.TaskFailed:
		task("failed")
	case market.TaskDecided:
		task("done")
	case market.EventsLost:
		out.Kind = api.EventLost
	default:
		return out, false
	}
	return out, true
}

// member tells of a peer that came or went.
func (e *events) member(id peer.ID, joined bool) {
	state := "left"
	if joined {
		state = "joined"
	}
	e.tell(api.Event{Kind: api.EventPeer, Peer: id.String(), State: state})
}

func (e *events) policy(paused bool) {
	state := "resumed"
	if paused {
		state = "paused"
	}
	e.tell(api.Event{Kind: api.EventPolicy, State: state})
}

// tell numbers an event and gives it to every subscriber that keeps up.
func (e *events) tell(ev api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	ev.ID = e.last
	if ev.Time.IsZero() {
		ev.Time = e.now()
	}
	if len(e.kept) == 2*eventsKept { // moved once in a while, not for each
		e.kept = slices.Delete(e.kept, 0, eventsKept)
	}
	e.kept = append(e.kept, ev)
	for _, s := range slices.Clone(e.subs) {
		// The last place is for the word that events are missing.
		if len(s.c) < cap(s.c)-1 {
			s.c <- ev
			continue
		}
		s.c <- api.Event{ID: ev.ID, Time: ev.Time, Kind: api.EventLost}
		e.drop(s)
	}
}

// drop ends a subscription. The caller holds mu.
func (e *events) drop(s *subscriber) {
	if s.over {
		return
	}
	s.over = true
	close(s.c)
	e.subs = slices.DeleteFunc(e.subs, func(o *subscriber) bool { return o == s })
}

// Subscribe gives events above after, as far as they are kept, and those to come.
// Where some between are kept no more, one of kind EventLost comes first. A
// number that was never given is of an earlier run: all that is kept is above it.
func (e *events) Subscribe(ctx context.Context, after uint64) (<-chan api.Event, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if after > e.last {
		after = 0
	}
	var old []api.Event
	kept := e.kept[max(len(e.kept)-eventsKept, 0):]
	if after > 0 && len(kept) > 0 && kept[0].ID > after+1 {
		old = append(old, api.Event{ID: kept[0].ID - 1, Time: kept[0].Time, Kind: api.EventLost})
	}
	for _, ev := range kept {
		if ev.ID > after {
			old = append(old, ev)
		}
	}
	s := &subscriber{c: make(chan api.Event, len(old)+eventsBehind)}
	for _, ev := range old {
		s.c <- ev
	}
	e.subs = append(e.subs, s)
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.drop(s)
	})
	return s.c, nil
}
