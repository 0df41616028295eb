package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// service is one part of a node that runs.
type service struct {
	name string
	run  func(context.Context) error // blocks; returns when all it started has stopped
	up   <-chan struct{}             // closed when the next may start; nil: at once
}

// runAll starts services in order, and when ctx ends or one of them fails stops
// them in the opposite order, each to its end before the next. started is called
// when all are up.
func runAll(ctx context.Context, services []service, started func() error) error {
	type running struct {
		name string
		stop context.CancelFunc
		done chan error
	}
	var up []running
	failed := make(chan error, len(services)) // each service sends once at most
	var first error
	wait := func(ready <-chan struct{}) bool {
		select {
		case <-ready:
			return true
		case first = <-failed:
		case <-ctx.Done():
		}
		return false
	}
	all := true
	for _, s := range services {
		// A service outlives ctx until it is its turn to stop.
		sctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{name: s.name, stop: stop, done: make(chan error, 1)}
		go func() {
			err := s.run(sctx)
			if sctx.Err() == nil {
				if err == nil {
					err = errors.New("it ended by itself")
				}
				if !strings.HasPrefix(err.Error(), s.name+": ") { // many say it themselves
					err = fmt.Errorf("%s: %w", s.name, err)
				}
				failed <- err
				err = nil // told once
			}
			r.done <- err
		}()
		up = append(up, r)
		if s.up != nil && !wait(s.up) {
			all = false
			break
		}
	}
	if all {
		if err := started(); err != nil {
			first = err
		} else {
			select {
			case <-ctx.Done():
			case first = <-failed:
			}
		}
	}
	errs := []error{first}
	for i := len(up) - 1; i >= 0; i-- {
		up[i].stop()
		if err := <-up[i].done; err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("stop %s: %w", up[i].name, err))
		}
	}
	return errors.Join(errs...)
}
