package market

import (
	"context"
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// EventKind says what an Event tells.
type EventKind string

// What an Event tells.
const (
	JobSubmitted EventKind = "job.submitted"
	JobRunning   EventKind = "job.running" // split, with Count tasks
	JobOffered   EventKind = "job.offered" // Text tells the radius
	JobFinished  EventKind = "job.finished"
	JobAdopted   EventKind = "job.adopted"
	JobPublished EventKind = "job.published"
	JobAnswered  EventKind = "job.answered"
	TaskLeased   EventKind = "task.leased" // Count tasks to Worker
	TaskLost     EventKind = "task.lost"   // Count assignments were taken from the dead, the slow and the failed
	TaskCopied   EventKind = "task.copied" // Count slow ones of the last were leased a second time
	TaskFailed   EventKind = "task.failed"
	TaskDecided  EventKind = "task.decided"
	WorkStarted  EventKind = "work.started" // here, for another's job or an own one
	WorkEnded    EventKind = "work.ended"
	EventsLost   EventKind = "events.lost" // Count were dropped: the subscriber was slow
)

// Event is one thing that happened, for people and pages. It may get lost; what
// counts is asked from Job.
type Event struct {
	Seq     uint64
	At      time.Time
	Kind    EventKind
	Job     tasks.JobID
	Ref     tasks.Ref
	Worker  tasks.PeerID
	RTT     time.Duration
	Count   uint32
	State   tasks.State
	Reason  tasks.Reason
	Text    string
	Decided uint32 // tasks of the job so far, when Kind is TaskDecided
}

// hub gives events to subscribers and never waits for one.
type hub struct {
	mu   sync.Mutex
	seq  uint64
	keep int
	subs map[*Subscription]bool
}

// Subscription is one reader of events. Next gives them in order.
type Subscription struct {
	hub  *hub
	job  tasks.JobID
	buf  []Event
	lost uint32
	wake chan struct{}
}

// Subscribe begins to collect events: of one job, or of all with "". A reader
// that falls behind loses the oldest, and is told how many.
func (s *Service) Subscribe(job tasks.JobID) *Subscription {
	sub := &Subscription{hub: &s.events, job: job, wake: make(chan struct{}, 1)}
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	s.events.subs[sub] = true
	return sub
}

// Next waits for the next event.
func (sub *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		sub.hub.mu.Lock()
		if sub.lost > 0 {
			e := Event{Kind: EventsLost, Count: sub.lost, Seq: sub.hub.seq}
			sub.lost = 0
			sub.hub.mu.Unlock()
			return e, nil
		}
		if len(sub.buf) > 0 {
			e := sub.buf[0]
			sub.buf = sub.buf[1:]
			sub.hub.mu.Unlock()
			return e, nil
		}
		sub.hub.mu.Unlock()
		select {
		case <-sub.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Close ends the subscription.
func (sub *Subscription) Close() {
	sub.hub.mu.Lock()
	defer sub.hub.mu.Unlock()
	delete(sub.hub.subs, sub)
}

func (h *hub) emit(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	e.Seq = h.seq
	for sub := range h.subs {
		if sub.job != "" && sub.job != e.Job {
			continue
		}
		if len(sub.buf) >= h.keep {
			sub.buf = sub.buf[1:]
			sub.lost++
		}
		sub.buf = append(sub.buf, e)
		select {
		case sub.wake <- struct{}{}:
		default:
		}
	}
}

func (s *Service) emit(e Event) {
	e.At = s.cfg.Now()
	s.events.emit(e)
}
