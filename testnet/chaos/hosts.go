package chaos

import (
	"context"
	"errors"
	"slices"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/testnet"
)

// hosts follows a published job from host to host: its origin dies and another
// takes it; the first hears of that, gives the job up, and later leads at a higher
// term; the submitter dies when it has accepted the answer; all let go of the job,
// and none takes it up again.
func (s *stage) hosts(ctx context.Context) error {
	submitter, hosts := s.nodes[0], s.nodes[1:]
	t, err := s.submit(ctx, submitter, Want{Kind: WantJob, Tasks: 1, Random: 16, Published: true})
	if err != nil {
		return err
	}
	first, err := s.succeeds(ctx, t)
	if err != nil {
		return err
	}
	if err := s.until(ctx, "another host keeps the job", func(ctx context.Context) (bool, error) {
		for _, p := range hosts {
			if _, err := s.clients[p].api.Job(ctx, t.id); p != first && err == nil {
				return true, nil
			}
		}
		return false, nil
	}); err != nil {
		return err
	}
	if err := s.down(first); err != nil {
		return err
	}
	second, err := s.succeeds(ctx, t, first)
	if err != nil {
		return err
	}
	if err := s.start(ctx, "", first); err != nil {
		return err
	}
	if err := s.until(ctx, "the first origin gives the job up", func(ctx context.Context) (bool, error) {
		j, err := s.held(ctx, first, t)
		return err == nil && j.State == "kept" && j.Origin == second.ID, err
	}); err != nil {
		return err
	}
	for _, p := range s.nodes {
		if err := s.down(p); err != nil {
			return err
		}
	}
	if err := errors.Join(s.up(first, ""), first.Ready(ctx)); err != nil {
		return err
	}
	if err := s.until(ctx, "the first origin leads again", func(ctx context.Context) (bool, error) {
		j, err := s.held(ctx, first, t)
		return err == nil && j.Origin == first.ID, err
	}); err != nil {
		return err
	}
	return s.answered(ctx, t, submitter, hosts, first)
}

// answered goes on where of all nodes one host is up.
func (s *stage) answered(ctx context.Context, t *thing, submitter *testnet.Process, hosts []*testnet.Process, up *testnet.Process) error {
	if err := s.up(submitter, "state/accept:after"); err != nil {
		return err
	}
	if err := s.start(ctx, "", slices.DeleteFunc(slices.Clone(hosts), func(p *testnet.Process) bool { return p == up })...); err != nil {
		return err
	}
	if err := s.resume(ctx, hosts...); err != nil {
		return err
	}
	if err := s.dies(ctx, submitter); err != nil {
		return err
	}
	if err := s.restart(ctx, submitter, ""); err != nil {
		return err
	}
	s.follow(ctx, submitter, t)
	for _, p := range hosts {
		if err := s.until(ctx, p.Name+" lets go of the job, which is answered", func(ctx context.Context) (bool, error) {
			j, err := s.clients[p].api.Job(ctx, t.id)
			return notFound(err) || err == nil && j.Over(), err
		}); err != nil {
			return err
		}
		if err := s.log.Append(Entry{Op: Let, Job: t.id, Node: p.ID}); err != nil {
			return err
		}
	}
	for _, p := range s.nodes {
		if err := s.down(p); err != nil {
			return err
		}
	}
	for _, p := range hosts { // without the submitter, who could tell them
		if err := errors.Join(s.up(p, ""), p.Ready(ctx)); err != nil {
			return err
		}
	}
	for _, p := range hosts {
		if _, err := s.held(ctx, p, t); err != nil && !notFound(err) {
			return err
		}
	}
	return s.start(ctx, "", submitter)
}

// succeeds waits until the submitter knows an origin of its job but for those
// given, at the term that comes then.
func (s *stage) succeeds(ctx context.Context, t *thing, before ...*testnet.Process) (origin *testnet.Process, err error) {
	err = s.until(ctx, "a host is the job's origin", func(ctx context.Context) (bool, error) {
		j, err := s.clients[s.nodes[0]].api.Job(ctx, t.id)
		i := slices.IndexFunc(s.nodes, func(p *testnet.Process) bool { return p.ID == j.Origin })
		if err != nil || i < 0 || slices.Contains(before, s.nodes[i]) {
			return false, err
		}
		origin = s.nodes[i]
		return true, nil
	})
	return origin, err
}

// held writes down how a host shows a published job, when that is news.
func (s *stage) held(ctx context.Context, p *testnet.Process, t *thing) (api.Job, error) {
	j, err := s.clients[p].api.Job(ctx, t.id)
	e := Entry{Op: Held, Job: t.id, Node: p.ID, State: j.State, Origin: j.Origin, Term: j.Term}
	if last := s.last[p]; err != nil || e.State == last.State && e.Origin == last.Origin && e.Term == last.Term {
		return j, err
	}
	s.last[p] = e
	return j, s.log.Append(e)
}
