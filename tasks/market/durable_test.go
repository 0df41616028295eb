package market

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// slowStore holds changes back, or fails them.
type slowStore struct {
	Store
	mu   sync.Mutex
	gate chan struct{} // closed lets changes through
	fail error
	held int
}

func (s *slowStore) Apply(ctx context.Context, c wire.Change) error {
	s.mu.Lock()
	gate, fail := s.gate, s.fail
	s.held++
	s.mu.Unlock()
	if fail != nil {
		return fail
	}
	<-gate
	return s.Store.Apply(ctx, c)
}

// Nothing is said that is not on disk: while the store hangs no worker gets a
// lease.
func TestNothingLeavesBeforeItIsDurable(t *testing.T) {
	var slow *slowStore
	inMesh(t, 3, func(i int, c *Config) {
		c.NoWork = i == 0
		if i == 0 {
			slow = &slowStore{Store: c.Store, gate: make(chan struct{})}
			c.Store = slow
		}
	}, func(m *mesh) {
		n := m.all[0]
		open := func() chan struct{} {
			slow.mu.Lock()
			defer slow.mu.Unlock()
			old := slow.gate
			slow.gate = make(chan struct{})
			return old
		}
		spec, want := lineJob(n, 10)
		id := m.submit(n, spec)
		time.Sleep(time.Second)
		close(open()) // the split
		time.Sleep(10 * time.Second)
		for _, o := range m.all {
			if o.runner.count() > 0 {
				t.Fatal("a worker runs by a lease that is not durable")
			}
		}
		// Nor is anyone shown one: a reader waits.
		for what, look := range map[string]func(context.Context) error{
			"job":     func(ctx context.Context) error { _, err := n.svc.Job(ctx, id); return err },
			"jobs":    func(ctx context.Context) error { _, err := n.svc.Jobs(ctx); return err },
			"tasks":   func(ctx context.Context) error { _, err := n.svc.Tasks(ctx, id, tasks.StageMap, 0, 9); return err },
			"results": func(ctx context.Context) error { _, err := n.svc.Results(ctx, id, tasks.StageMap); return err },
		} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if err := look(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s shows what is not durable, or %v", what, err)
			}
			cancel()
		}
		slow.mu.Lock()
		held := slow.held
		close(slow.gate)
		slow.mu.Unlock()
		if held < 2 {
			t.Fatal("no lease was made durable")
		}
		m.want(n, m.done(n, id), want)
	})
}

// A store that fails for good ends the service with its error.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk is gone")
		rec := &recorder{TB: t}
		m := newMesh(rec, func(_ int, c *Config) { c.Store = &slowStore{Store: c.Store, fail: broken} })
		n := m.add(0, auth.AllRights)
		time.Sleep(time.Second)
		spec, _ := lineJob(n, 3)
		m.submit(n, spec)
		time.Sleep(time.Minute)
		m.close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(rec.errors) != 1 || !strings.Contains(rec.errors[0], broken.Error()) {
			t.Errorf("Run gave %q, want the store's error", rec.errors)
		}
	})
}

// A reader that falls behind loses the oldest events and is told.
func TestSlowSubscriber(t *testing.T) {
	s := &Service{cfg: Config{Now: time.Now}}
	s.events.keep, s.events.subs = 4, map[*Subscription]bool{}
	all, one := s.Subscribe(""), s.Subscribe("b")
	for i := range 10 {
		s.emit(Event{Kind: TaskDecided, Job: "a", Decided: uint32(i)})
	}
	s.emit(Event{Kind: JobFinished, Job: "b"})
	ctx := context.Background()
	if e, err := all.Next(ctx); err != nil || e.Kind != EventsLost || e.Count != 7 {
		t.Errorf("first event %+v, %v, want 7 lost", e, err)
	}
	for _, want := range []uint32{7, 8, 9} {
		if e, err := all.Next(ctx); err != nil || e.Decided != want {
			t.Errorf("event %+v, %v, want number %d", e, err, want)
		}
	}
	if e, err := one.Next(ctx); err != nil || e.Kind != JobFinished {
		t.Errorf("event of one job %+v, %v", e, err)
	}
	all.Close()
	s.emit(Event{Job: "a"})
	if len(all.buf) != 1 {
		t.Errorf("a closed subscription has %d events, want the one left", len(all.buf))
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := one.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Next with an ended context: %v", err)
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := New(Config{MaxJobs: -1, Version: strings.Repeat("x", 200)})
	if err == nil {
		t.Fatal("an empty config was taken")
	}
	for _, want := range []string{"Host", "Store", "Data", "Publisher", "Runner", "below zero", "Version"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// A refusal keeps its reason on its way over the wire, and names no other.
func TestReasonsCross(t *testing.T) {
	for _, r := range []tasks.Reason{tasks.WorkerBusy, tasks.WorkerPaused, tasks.StaleTerm, tasks.NotMember} {
		got, after := reasonOf(refuse(r, time.Second, ""))
		if got != r || after != time.Second {
			t.Errorf("%v became %v after %v", r, got, after)
		}
	}
	if got, _ := reasonOf(errors.New("unreachable")); got != tasks.WorkerFault {
		t.Errorf("an unreachable peer gave %v", got)
	}
	for _, p := range Protocols() {
		if err := p.Check(); err != nil {
			t.Error(err)
		}
	}
}

// recorder keeps what a test would have failed with.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range a {
		if err, ok := v.(error); ok {
			r.errors = append(r.errors, err.Error())
		}
	}
}
