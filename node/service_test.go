package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// script writes down what services do.
type script struct {
	mu    sync.Mutex
	lines []string
}

func (s *script) say(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *script) service(name string, up chan struct{}) service {
	return service{name: name, up: up, run: func(ctx context.Context) error {
		s.say("start " + name)
		<-ctx.Done()
		s.say("stop " + name)
		return ctx.Err()
	}}
}

func (s *script) want(t *testing.T, lines ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.lines, lines) {
		t.Errorf("got %q, want %q", s.lines, lines)
	}
}

func TestServicesStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s script
		up := make(chan struct{})
		services := []service{s.service("first", up), s.service("second", nil), s.service("third", nil)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- runAll(ctx, services, func() error { s.say("all up"); return nil }) }()
		synctest.Wait()
		s.want(t, "start first") // the others wait for it
		close(up)
		synctest.Wait()
		// All three were asked to start; in which order goroutines speak is theirs.
		s.mu.Lock()
		slices.Sort(s.lines[1:])
		s.mu.Unlock()
		s.want(t, "start first", "all up", "start second", "start third")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.want(t, "start first", "all up", "start second", "start third", "stop third", "stop second", "stop first")
	})
}

func TestServiceFailureStopsAll(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name    string
		failing service
		started error
		want    []string // in the error
		stops   bool     // the others were up, and stop
	}{
		{name: "fails", failing: service{name: "bad", run: func(context.Context) error { return broken }}, want: []string{"bad: broken"}},
		{name: "ends", failing: service{name: "bad", run: func(context.Context) error { return nil }}, want: []string{"bad: it ended by itself"}},
		{name: "fails before it is up", failing: service{name: "bad", up: make(chan struct{}), run: func(context.Context) error { return broken }}, want: []string{"bad: broken"}},
		{name: "names itself", failing: service{name: "bad", run: func(context.Context) error { return fmt.Errorf("bad: %w", broken) }},
			want: []string{"bad"}},
		{name: "fails to stop", failing: service{name: "bad", run: func(ctx context.Context) error { <-ctx.Done(); return broken }}, started: errors.New("not started"),
			want: []string{"not started", "stop bad: broken"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s script
				err := runAll(t.Context(), []service{s.service("first", nil), c.failing}, func() error { return c.started })
				for _, want := range c.want {
					if err == nil || strings.Count(err.Error(), want) != 1 {
						t.Errorf("got %v, want %q once", err, want)
					}
				}
				s.want(t, "start first", "stop first")
			})
		})
	}
}

func TestServicesStopWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s script
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- runAll(ctx, []service{s.service("slow", make(chan struct{})), s.service("never", nil)}, func() error { s.say("all up"); return nil })
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.want(t, "start slow", "stop slow")
	})
}
