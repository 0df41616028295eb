package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/testnet"
)

const (
	scenesLog = "scenes"
	sceneTime = 45 * time.Second // for each thing that a scene waits for: some 5 s when nothing else goes on
	lookAgain = 50 * time.Millisecond
)

// scene is a situation that chance seldom brings, played before the killing: what
// is lost with a step shows in it at once. Nothing is late by chance, so what is
// open in its log is as bad as a fault.
type scene struct {
	steps []string // the durable steps that show in it
	begin func(*stage, context.Context) error
	play  func(*stage, context.Context) error
}

var scenes = []scene{
	{steps: []string{"state/remove"}, begin: (*stage).briefBegins, play: (*stage).briefEnds},
	{steps: []string{"state/receipt"}, play: (*stage).receipt},
	{steps: []string{"state/nonce"}, play: (*stage).nonce},
	{steps: []string{"state/setting"}, play: (*stage).setting},
	{steps: []string{"state/settle"}, play: (*stage).settled},
	{steps: []string{"state/grant"}, play: (*stage).grant},
	{steps: []string{"state/record"}, play: (*stage).record},
	{steps: []string{"state/promise"}, play: (*stage).promise},
	{steps: []string{"state/yield", "state/accept", "state/forget"}, play: (*stage).hosts},
	{steps: []string{"storage/root", "storage/index"}, play: (*stage).passedOn},
	{steps: []string{"storage/forget"}, play: (*stage).letGo},
}

// shows reports whether a durable step shows in a scene.
func shows(step string) bool {
	return slices.ContainsFunc(scenes, func(s scene) bool { return slices.Contains(s.steps, step) })
}

// stage is where scenes are played. Its clients share a log.
type stage struct {
	*run
	log     *Log
	clients map[*testnet.Process]*chaosClient
	last    map[*testnet.Process]Entry // Held, of each host
	brief   *thing
}

// scenes plays those that the run asks for, and checks their log.
func (r *run) scenes(ctx context.Context) (err error) {
	log, _, err := OpenLog(r.log(scenesLog))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	s := &stage{run: r, log: log, clients: map[*testnet.Process]*chaosClient{}, last: map[*testnet.Process]Entry{}}
	for i, p := range r.nodes {
		at, err := dial(p.Home, p.API)
		if err != nil {
			return err
		}
		s.clients[p] = &chaosClient{cfg: ClientConfig{Number: 90 + i}, api: at, log: log, fail: func(error) {}}
	}
	var list []scene
	for _, sc := range scenes {
		if slices.ContainsFunc(sc.steps, func(step string) bool { return slices.Contains(r.Scenes, step) }) {
			list = append(list, sc)
		}
	}
	for _, sc := range list {
		if sc.begin != nil {
			if err := sc.begin(s, ctx); err != nil {
				return fmt.Errorf("scene of %v: %w", sc.steps, err)
			}
		}
	}
	slices.Reverse(list) // what takes long ends last
	for _, sc := range list {
		begin := time.Now()
		if err := errors.Join(s.pause(ctx, r.nodes...), sc.play(s, ctx)); err != nil {
			return fmt.Errorf("scene of %v: %w", sc.steps, err)
		}
		fmt.Fprintf(r.Out, "scene of %v: %.1f s\n", sc.steps, time.Since(begin).Seconds())
	}
	if err := errors.Join(log.Append(Entry{Op: Finished}), s.resume(ctx, r.nodes...)); err != nil {
		return err
	}
	entries, err := ReadLog(r.log(scenesLog))
	r.check(map[string][]Entry{scenesLog: entries})
	return err
}

func (s *stage) pause(ctx context.Context, nodes ...*testnet.Process) error {
	for _, p := range nodes {
		if _, err := s.clients[p].api.Pause(ctx, time.Hour); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) resume(ctx context.Context, nodes ...*testnet.Process) error {
	for _, p := range nodes {
		if _, err := s.clients[p].api.Resume(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restart kills a node, unless it has died, and starts it again, to die at points;
// it returns when all nodes have met, all of them being up.
func (s *stage) restart(ctx context.Context, p *testnet.Process, points string) error {
	return errors.Join(s.down(p), s.start(ctx, points, p))
}

// start starts nodes that are down, and waits until all that are given have met.
func (s *stage) start(ctx context.Context, points string, down ...*testnet.Process) error {
	for _, p := range down {
		if err := s.up(p, points); err != nil {
			return err
		}
	}
	return s.met(ctx, s.nodes...)
}

func (s *stage) met(ctx context.Context, nodes ...*testnet.Process) error {
	ctx, cancel := context.WithTimeout(ctx, sceneTime)
	defer cancel()
	for _, p := range nodes {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return testnet.WaitMet(ctx, nodes)
}

// dies waits until a node has died at one of its points.
func (s *stage) dies(ctx context.Context, p *testnet.Process) error {
	select {
	case <-p.Exited():
	case <-time.After(sceneTime):
	case <-ctx.Done():
	}
	point, err := lastLine(s.crashes(p))
	if err == nil && point == "" {
		err = fmt.Errorf("%s did not die", p.Name)
	}
	return err
}

// until looks again and again until there is what a scene waits for.
func (s *stage) until(ctx context.Context, what string, there func(context.Context) (bool, error)) error {
	bound, cancel := context.WithTimeout(ctx, sceneTime)
	defer cancel()
	for {
		ok, err := there(bound)
		if ok {
			return nil
		}
		if bound.Err() != nil {
			return fmt.Errorf("%s: not within %v (last: %v)", what, sceneTime, err)
		}
		wait(bound, lookAgain)
	}
}

// submit has a node take a job, or publish it.
func (s *stage) submit(ctx context.Context, at *testnet.Process, w Want) (*thing, error) {
	c := s.clients[at]
	key := c.intend(&w, Entry{})
	e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
		spec, err := c.spec(ctx, w, key)
		if err != nil {
			return Entry{}, err
		}
		if w.Published {
			id, err := c.api.Publish(ctx, spec, api.PublishOptions{})
			return Entry{Job: string(id)}, err
		}
		id, err := c.api.Submit(ctx, spec)
		return Entry{Job: string(id)}, err
	})
	if !ok {
		return nil, errors.New("submit: " + e.Text)
	}
	return c.keep(w, key, e.Job), nil
}

// follow looks at a job until it is over, or a scene's patience is; then it is open.
func (s *stage) follow(ctx context.Context, at *testnet.Process, t *thing) {
	ctx, cancel := context.WithTimeout(ctx, sceneTime)
	defer cancel()
	c := s.clients[at]
	if c.follow(ctx, t); ctx.Err() != nil {
		why, err := c.api.Why(context.WithoutCancel(ctx), t.id)
		fmt.Fprintf(s.Out, "job %s waits for %+v %v\n", t.id, why, err)
	}
}
