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

// kept plays two scenes that chance does not: a worker dies when what it made is
// durable and not sent yet: a receipt; and, with a quorum, a receipt and the
// nonce that it will be committed to with. It comes back paused like all others,
// so all that anyone can do is deliver, and the job must end. These commits show
// in nothing else, since what a worker forgets is run again.
func (r *run) kept(ctx context.Context) (err error) {
	log, _, err := OpenLog(r.log("kept"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	origin := r.nodes[0]
	token, err := os.ReadFile(filepath.Join(origin.Home, "api.token"))
	if err != nil {
		return err
	}
	at, err := client.New(origin.API, strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	c := &chaosClient{cfg: ClientConfig{Number: 90}, api: at, log: log, fail: func(error) {}}
	for _, s := range []struct {
		workers []*testnet.Process // the first dies
		point   string
		want    Want
	}{
		{r.nodes[1:2], "state/receipt:after", Want{Kind: WantJob, Tasks: 1, Random: 16, Sleep: 2000}},
		{r.nodes[1:3], "state/nonce:after", Want{Kind: WantJob, Tasks: 1, Random: 16, Sleep: 2000, Quorum: true}},
	} {
		if err := r.deliver(ctx, c, s.workers, s.point, s.want); err != nil {
			return fmt.Errorf("kept, %s: %w", s.point, err)
		}
	}
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

// deliver plays one scene.
func (r *run) deliver(ctx context.Context, c *chaosClient, workers []*testnet.Process, point string, w Want) error {
	for _, p := range r.nodes {
		if _, err := p.Client.Pause(ctx, time.Hour); err != nil {
			return err
		}
	}
	dies := workers[0]
	restart := func(env ...string) error {
		dies.Env = r.env(env...)
		return errors.Join(dies.Kill(), dies.Start(r.Exe, "--cpu", "1"), dies.Ready(ctx), testnet.WaitMet(ctx, r.nodes))
	}
	if err := restart("KITH_CRASH_AT=" + point); err != nil {
		return err
	}
	for _, p := range workers {
		if _, err := p.Client.Resume(ctx); err != nil {
			return err
		}
	}
	key := c.intend(w, Entry{})
	w.First = c.cfg.Number*1_000_000 + serialOf(key)*10
	e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
		spec, err := c.spec(ctx, w, key)
		if err != nil {
			return Entry{}, err
		}
		id, err := c.api.Submit(ctx, spec)
		return Entry{Job: string(id)}, err
	})
	if !ok {
		return errors.New("submit: " + e.Text)
	}
	bound, cancel := context.WithTimeout(ctx, keptTime)
	defer cancel()
	for _, p := range workers { // what runs goes on, and nothing more is taken
		for {
			st, err := p.Client.Status(bound)
			if err != nil {
				return fmt.Errorf("%s has no task yet: %w", p.Name, err)
			}
			if st.Work.Running > 0 {
				break
			}
			wait(bound, 10*time.Millisecond)
		}
		if _, err := p.Client.Pause(ctx, time.Hour); err != nil {
			return err
		}
	}
	select {
	case <-dies.Exited():
	case <-bound.Done():
		return fmt.Errorf("%s did not die", dies.Name)
	}
	if err := restart(); err != nil {
		return err
	}
	after, cancel := context.WithTimeout(ctx, keptTime)
	defer cancel()
	c.follow(after, c.keep(w, key, e.Job))
	return nil
}
