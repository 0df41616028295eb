package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// Events calls f for what happens from now on, with job "" for everything, until
// f returns an error, ctx ends, or the stream does. After may be 0.
func (c *Client) Events(ctx context.Context, job string, after uint64, f func(api.Event) error) error {
	q := url.Values{}
	if job != "" {
		q.Set("job", job)
	}
	if after > 0 {
		q.Set("after", strconv.FormatUint(after, 10))
	}
	return c.events(ctx, q, nil, f)
}

func (c *Client) events(ctx context.Context, q url.Values, opened func(), f func(api.Event) error) error {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/api/v1/events", query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if opened != nil {
		opened()
	}
	s := bufio.NewScanner(resp.Body)
	s.Buffer(make([]byte, 0, 4096), 1<<20)
	for s.Scan() {
		data, ok := strings.CutPrefix(s.Text(), "data: ")
		if !ok {
			continue // the object holds the ID and the kind too
		}
		var e api.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("event not valid: %w: is the node of the same version?", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return cut(ctx, c, s.Err())
}

// How Follow asks.
const (
	followPoll     = 2 * time.Second        // without an event, it asks all the same
	followPause    = 100 * time.Millisecond // between two answers, at least
	followPatience = 30 * time.Second       // a node that restarts is waited for
)

// Follow tells f how a job is, at first and at each change, until it is over,
// and returns it then. It outlives a restart of the node.
func (c *Client) Follow(ctx context.Context, id tasks.JobID, f func(api.Job)) (api.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(ctx, id, changed)
	}()
	defer func() { cancel(); <-watched }()

	var last api.Job
	var shown string
	lost := time.Time{}
	for {
		j, err := c.Job(ctx, string(id))
		var gone *NotReachableError
		switch {
		case err == nil:
			lost = time.Time{}
			if b, _ := json.Marshal(j); string(b) != shown { // a Job always marshals: it just came as JSON
				shown, last = string(b), j
				if f != nil {
					f(j)
				}
			}
			if j.Over() {
				return j, nil
			}
		case !errors.As(err, &gone):
			return last, err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > followPatience:
			return last, fmt.Errorf("job %s goes on, but its node does not answer: %w", id, err)
		}
		if err := pause(ctx, followPause); err != nil {
			return last, err
		}
		poll := time.NewTimer(followPoll)
		select {
		case <-changed:
		case <-poll.C:
		case <-ctx.Done():
			poll.Stop()
			return last, ctx.Err()
		}
		poll.Stop()
	}
}

// watch notes on changed that something happened to a job.
func (c *Client) watch(ctx context.Context, id tasks.JobID, changed chan<- struct{}) {
	note := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		// An error is only a reason to poll until the stream is back: Follow's
		// own requests tell the user what is wrong.
		_ = c.events(ctx, url.Values{"job": {string(id)}}, note, func(api.Event) error { note(); return nil })
		if pause(ctx, time.Second) != nil {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
