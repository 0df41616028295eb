package market

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// stall is a goroutine's wait for room on the disk: what is not durable is not
// said, so it does nothing else meanwhile.
type stall struct {
	mu    sync.Mutex
	since time.Time     // zero: it does not wait
	err   error         // of the last try
	next  time.Time     // when it tries again
	begun chan struct{} // closed when a wait begins; nil: nobody asked since the last
}

// begins is closed when the next wait begins, or when one is under way.
func (st *stall) begins() <-chan struct{} {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.begun == nil {
		st.begun = make(chan struct{})
		if !st.since.IsZero() {
			close(st.begun)
		}
	}
	return st.begun
}

func (st *stall) wait(err error, wait time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	now := time.Now()
	st.err, st.next = err, now.Add(wait)
	if st.since.IsZero() {
		if st.since = now; st.begun != nil {
			close(st.begun)
		}
	}
}

func (st *stall) over() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.since.IsZero() {
		st.since, st.begun = time.Time{}, nil
	}
}

// why is what people are told of the wait; ok is false when there is none.
func (st *stall) why() (w tasks.Wait, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.since.IsZero() {
		return w, false
	}
	return tasks.Wait{Text: "nothing can be made durable on this node, so nothing is leased or decided here: " + st.err.Error() + "; it goes on when there is room", Next: st.next}, true
}

// Writes are tried again after pauses that double from the first to the last.
// One that fails for another reason than room ends the service after so many.
const (
	durableFirst = 50 * time.Millisecond
	durableLast  = 5 * time.Second
	durableTries = 8 // about 11 s
)

// durably runs a write until it is durable, or a read that must be known. On a full disk that may take for
// ever; another failure may pass too, but when it does not, the service ends.
func (s *Service) durably(ctx context.Context, st *stall, do func(context.Context) error) error {
	defer st.over()
	wait := durableFirst
	for failed := 0; ; wait = min(2*wait, durableLast) {
		err := do(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case s.cfg.Full(err):
			st.wait(err, wait)
		default:
			if failed++; failed > durableTries {
				err = fmt.Errorf("%w: %w", errStore, err)
				s.crew.fail(err)
				return err
			}
		}
		s.log.Warn("store failed", "err", err, "retry", wait)
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// FullError says that this node has no room to take a job.
type FullError struct{ Err error }

func (e *FullError) Error() string { return "this node takes no more jobs: " + e.Err.Error() }
func (e *FullError) Unwrap() error { return e.Err }

// full tells a write that failed for lack of room from others.
func (s *Service) full(err error) error {
	if err != nil && s.cfg.Full(err) {
		return &FullError{err}
	}
	return err
}

// Stalled says why jobs in hand stand still because nothing can be made durable,
// or nil.
func (s *Service) Stalled() error {
	stalls := []*stall{&s.hall.stall}
	for _, d := range s.allDesks() {
		stalls = append(stalls, &d.stall)
	}
	for _, st := range stalls {
		st.mu.Lock()
		err, waits := st.err, !st.since.IsZero()
		st.mu.Unlock()
		if waits {
			return err
		}
	}
	return nil
}
