package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/testnet"
)

// keptTime is how long work that is done and kept may take to be delivered.
const keptTime = 20 * time.Second

// kept plays a scene that chance does not: the only worker dies when its receipt
// is durable and not sent yet. It comes back paused, so all that it can do is
// deliver, and the job must end. Commits of receipts show in nothing else, since
// what a worker forgets is run again.
func (r *run) kept(ctx context.Context) (err error) {
	log, _, err := OpenLog(r.log("kept"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	origin, worker := r.nodes[0], r.nodes[1]
	for _, p := range r.nodes {
		if p != worker {
			if _, err := p.Client.Pause(ctx, time.Hour); err != nil {
				return err
			}
		}
	}
	start := func(env ...string) error {
		worker.Env = r.env(env...)
		return errors.Join(worker.Kill(), worker.Start(r.Exe, "--cpu", "1"), worker.Ready(ctx), testnet.WaitMet(ctx, []*testnet.Process{origin, worker}))
	}
	if err := start("KITH_CRASH_AT=state/receipt:after"); err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(origin.Home, "api.token"))
	if err != nil {
		return err
	}
	at, err := client.New(origin.API, strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	c := &chaosClient{cfg: ClientConfig{Number: 90}, api: at, log: log, fail: func(error) {}}
	bound, cancel := context.WithTimeout(ctx, keptTime)
	defer cancel()
	w := Want{Kind: WantJob, Tasks: 1, Random: 16, Sleep: 2000}
	key := c.intend(w, Entry{})
	w.First = 90*1_000_000 + serialOf(key)*10
	e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
		spec, err := c.spec(ctx, w, key)
		if err != nil {
			return Entry{}, err
		}
		id, err := at.Submit(ctx, spec)
		return Entry{Job: string(id)}, err
	})
	if !ok {
		return fmt.Errorf("kept: submit: %s", e.Text)
	}
	for running := false; !running && bound.Err() == nil; { // then it takes no more
		st, err := worker.Client.Status(ctx)
		if err != nil {
			return err
		}
		if running = st.Work.Running > 0; running {
			_, err = worker.Client.Pause(ctx, time.Hour)
		}
		if err != nil {
			return err
		}
		wait(bound, 10*time.Millisecond)
	}
	select {
	case <-worker.Exited():
	case <-bound.Done():
		return errors.New("kept: the worker did not die at its receipt")
	}
	if err := start(); err != nil {
		return err
	}
	bound, cancel = context.WithTimeout(ctx, keptTime)
	defer cancel()
	c.follow(bound, c.keep(w, key, e.Job))
	if err := log.Append(Entry{Op: Finished}); err != nil {
		return err
	}
	for _, p := range r.nodes {
		if _, err := p.Client.Resume(ctx); err != nil {
			return err
		}
	}
	return nil
}
