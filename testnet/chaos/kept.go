package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kith-mesh/kith/testnet"
)

// Scenes of a job that the first node is origin of. Some workers run it and then
// are paused like all others, so that nobody takes anything more: what a worker or
// the origin forgets as it dies can't be run again, and the job does not end.

// spin is how many million turns of a loop a task takes in these scenes that must
// come to the same on every worker, so that its sleep takes no time: a second or
// two.
const spin = 1000

// lease has workers run a job, and take nothing more.
func (s *stage) lease(ctx context.Context, w Want, workers ...*testnet.Process) (*thing, error) {
	if err := s.resume(ctx, workers...); err != nil {
		return nil, err
	}
	t, err := s.submit(ctx, s.nodes[0], w)
	if err != nil {
		return nil, err
	}
	for _, p := range workers {
		if err := s.until(ctx, p.Name+" runs the job", func(ctx context.Context) (bool, error) {
			st, err := p.Client.Status(ctx)
			return st.Work.Running > 0, err
		}); err != nil {
			return nil, err
		}
	}
	return t, s.pause(ctx, workers...)
}

// kept: a node dies at points while a job is run by workers; it comes back, and
// the job ends.
func (s *stage) kept(ctx context.Context, dies *testnet.Process, points string, w Want, workers ...*testnet.Process) error {
	if err := s.restart(ctx, dies, points); err != nil {
		return err
	}
	t, err := s.lease(ctx, w, workers...)
	if err != nil {
		return err
	}
	if err := s.dies(ctx, dies); err != nil {
		return err
	}
	if err := s.restart(ctx, dies, ""); err != nil {
		return err
	}
	s.follow(ctx, s.nodes[0], t)
	return nil
}

// receipt: what a worker has made is durable and not sent yet.
func (s *stage) receipt(ctx context.Context) error {
	worker := s.nodes[1]
	return s.kept(ctx, worker, "state/receipt:after", Want{Kind: WantJob, Tasks: 1, Random: 16, Sleep: 2000}, worker)
}

// nonce: with a quorum, so are a receipt and the nonce that it will be committed
// to with.
func (s *stage) nonce(ctx context.Context) error {
	workers := s.nodes[1:3]
	return s.kept(ctx, workers[0], "state/nonce:after", Want{Kind: WantJob, Tasks: 1, Random: 16, Spin: spin, Quorum: true}, workers...)
}

// promise: both workers have been asked to show what they committed to, and one
// has, when the origin dies. It asks again, and blames nobody.
func (s *stage) promise(ctx context.Context) error {
	return s.kept(ctx, s.nodes[0], "state/record:before:1,state/decide:before:1", Want{Kind: WantJob, Tasks: 1, Random: 16, Spin: spin, Quorum: true}, s.nodes[1:3]...)
}

// grant: the origin dies while a worker runs what it leased; the lease is good
// when both have it again.
func (s *stage) grant(ctx context.Context) error {
	origin := s.nodes[0]
	t, err := s.lease(ctx, Want{Kind: WantJob, Tasks: 1, Random: 16, Sleep: 4000}, s.nodes[1])
	if err != nil {
		return err
	}
	s.clients[origin].see(ctx, t, true)
	if err := s.restart(ctx, origin, ""); err != nil {
		return err
	}
	s.clients[origin].see(ctx, t, true)
	s.follow(ctx, origin, t)
	return nil
}

// record: a try has failed and that was shown; the origin dies. The try counts, and
// with the next worker's the job has failed.
func (s *stage) record(ctx context.Context) error {
	origin := s.nodes[0]
	c := s.clients[origin]
	t, err := s.lease(ctx, Want{Kind: WantJob, Tasks: 1, Fails: true, Spin: spin}, s.nodes[1])
	if err != nil {
		return err
	}
	if err := s.until(ctx, "a try has failed", func(ctx context.Context) (bool, error) {
		list, err := c.api.AllTasks(ctx, t.id)
		for _, task := range list {
			for _, a := range task.Attempts {
				if a.State == "failed" {
					return true, nil
				}
			}
		}
		return false, err
	}); err != nil {
		return err
	}
	c.see(ctx, t, true)
	if err := s.restart(ctx, origin, ""); err != nil {
		return err
	}
	c.see(ctx, t, true)
	if err := s.resume(ctx, s.nodes[1], s.nodes[2]); err != nil {
		return err
	}
	s.follow(ctx, origin, t)
	return nil
}

// setting: a node that was told to pause, or to go on, does so after its death.
func (s *stage) setting(ctx context.Context) error {
	p := s.nodes[1]
	c := s.clients[p]
	for _, kind := range []Kind{WantResume, WantPause, WantResume} {
		c.set(ctx, kind)
		if err := s.restart(ctx, p, ""); err != nil {
			return err
		}
		c.policy(ctx)
	}
	return nil
}

// settled: a worker whose answer was judged has nothing that it would deliver once
// more, also when it and its origin die.
func (s *stage) settled(ctx context.Context) error {
	worker := s.nodes[1]
	t, err := s.lease(ctx, Want{Kind: WantJob, Tasks: 1, Random: 16, Spin: spin}, worker)
	if err != nil {
		return err
	}
	s.follow(ctx, s.nodes[0], t)
	if err := s.until(ctx, worker.Name+" owes no answer", func(ctx context.Context) (bool, error) {
		n, err := s.owes(ctx, worker)
		return err == nil && n == 0, err
	}); err != nil {
		return err
	}
	for _, p := range s.nodes {
		if err := s.down(p); err != nil {
			return err
		}
	}
	if err := errors.Join(s.up(worker, ""), worker.Ready(ctx)); err != nil {
		return err
	}
	if _, err := s.owes(ctx, worker); err != nil {
		return err
	}
	return s.start(ctx, "", slices.DeleteFunc(slices.Clone(s.nodes), func(p *testnet.Process) bool { return p == worker })...)
}

// owes writes down how many answers a worker owes.
func (s *stage) owes(ctx context.Context, p *testnet.Process) (int, error) {
	st, err := s.clients[p].api.Status(ctx)
	if err != nil {
		return 0, err
	}
	return st.Work.Owed, s.log.Append(Entry{Op: Owes, Node: p.ID, Size: int64(st.Work.Owed)})
}

// briefBegins has a job done that is kept for a minute.
func (s *stage) briefBegins(ctx context.Context) error {
	t, err := s.submit(ctx, s.nodes[0], Want{Kind: WantJob, Tasks: 1, Random: 16, Brief: true})
	if err != nil {
		return err
	}
	s.brief = t
	s.follow(ctx, s.nodes[0], t)
	return nil
}

// briefEnds waits until it is gone, and dies then: it stays so.
func (s *stage) briefEnds(ctx context.Context) error {
	origin := s.nodes[0]
	c := s.clients[origin]
	if s.brief.over.IsZero() {
		return fmt.Errorf("job %s of no time did not end", s.brief.id)
	}
	for time.Since(s.brief.over) < briefTime+staleTime+5*time.Second && !s.brief.gone {
		wait(ctx, time.Second)
		c.see(ctx, s.brief, false)
	}
	if err := s.restart(ctx, origin, ""); err != nil {
		return err
	}
	c.back(ctx, s.brief)
	return nil
}
