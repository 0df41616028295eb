package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/tasks"
)

// ClientEnv holds a ClientConfig as JSON in the environment of a client process.
const ClientEnv = "KITH_CHAOS_CLIENT"

// ClientConfig is what a client process is started with.
type ClientConfig struct {
	Number int    // from 0; its tasks' numbers begin at Number million
	Log    string // path of its log
	API    string // host:port of its node
	Home   string // of its node, for the token
	Seed   uint64
	Hands  int  // things that it does at once
	Owner  bool // pauses and resumes its node too
}

const (
	callTime  = 10 * time.Second       // for one call
	again     = 60 * time.Millisecond  // between tries
	readTime  = 40 * time.Second       // patience with content
	briefRead = 30 * time.Second       // after which a brief job is left alone until the end
	lastTime  = 3 * time.Minute        // for the end, if nobody kills it before
	lookEvery = 100 * time.Millisecond // at a job that runs
	line      = 9                      // bytes of a task's number, with its end
)

// ClientMain is a client process: it asks its node for many things until its
// standard input ends, then waits for all that was acknowledged, reads it once
// more and ends. It may be killed at any instant and started again.
func ClientMain(config string) error {
	var cfg ClientConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return fmt.Errorf("%s: %w", ClientEnv, err)
	}
	token, err := os.ReadFile(filepath.Join(cfg.Home, "api.token"))
	if err != nil {
		return err
	}
	api, err := client.New(cfg.API, strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	log, before, err := OpenLog(cfg.Log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	c := &chaosClient{cfg: cfg, api: api, log: log, fail: cancel, stop: make(chan struct{})}
	c.replay(before)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the word to finish
		close(c.stop)
		time.AfterFunc(lastTime, func() { cancel(fmt.Errorf("not all that was acknowledged came in %v", lastTime)) })
	}()
	var hands sync.WaitGroup
	for i := range cfg.Hands {
		r := rand.New(rand.NewPCG(cfg.Seed, uint64(len(before)*cfg.Hands+i)))
		hands.Go(func() { c.hand(ctx, r, i > 0) })
	}
	for _, h := range c.open() { // from before it was killed
		hands.Go(func() { c.follow(ctx, h) })
	}
	hands.Wait()
	c.last(ctx)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errors.Join(log.Append(Entry{Op: Finished}), log.Close())
}

type chaosClient struct {
	cfg  ClientConfig
	api  *client.Client
	log  *Log
	fail context.CancelCauseFunc
	stop chan struct{}

	mu     sync.Mutex
	serial int
	things []*thing // acknowledged
	owner  sync.Mutex
}

// thing is something acknowledged. mu is held while it is asked about and what
// was said is written down, so that the log has the order of the answers.
type thing struct {
	mu   sync.Mutex
	want Want
	key  string
	id   string // job ID, CID or invite ID
	told Entry  // what was logged last of a job
	over time.Time
	gone bool
	let  bool // unpinning it was acknowledged
}

// replay takes up what an earlier life of this client was told.
func (c *chaosClient) replay(entries []Entry) {
	wants := map[string]Want{}
	byID := map[string]*thing{}
	for _, e := range entries {
		switch e.Op {
		case Intent:
			c.serial++
			wants[e.Key] = *e.Want
			if t := byID[e.CID]; t != nil { // to unpin or withdraw, which may have worked
				t.gone = true
			}
		case Acked:
			if w := wants[e.Key]; w.Kind == WantJob || w.Kind == WantAdd || w.Kind == WantInvite {
				t := &thing{want: w, key: e.Key, id: e.Job + e.CID}
				c.things, byID[t.id] = append(c.things, t), t
			} else if t := byID[e.CID]; t != nil && w.Kind == WantUnpin {
				t.let = true
			}
		case Seen:
			if t := byID[e.Job]; t != nil && over(e.State) {
				t.told, t.over = e, time.Now()
			}
		case Gone:
			if t := byID[e.Job+e.CID]; t != nil {
				t.gone = true
			}
		}
	}
}

func over(state string) bool { return state == "done" || state == "failed" || state == "cancelled" }

func (c *chaosClient) open() (out []*thing) {
	for _, t := range c.things {
		if t.want.Kind == WantJob && t.over.IsZero() && !t.gone {
			out = append(out, t)
		}
	}
	return out
}

func (c *chaosClient) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// write logs; without its log a client is worth nothing.
func (c *chaosClient) write(e Entry) {
	if err := c.log.Append(e); err != nil {
		c.fail(fmt.Errorf("client log: %w", err))
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// ask calls until an answer comes: it gives up on a "no", and when ctx ends.
func ask[T any](ctx context.Context, call func(context.Context) (T, error)) (out T, err error) {
	for {
		try, cancel := context.WithTimeout(ctx, callTime)
		out, err = call(try)
		cancel()
		if err == nil || ctx.Err() != nil || final(err) {
			return out, err
		}
		wait(ctx, again)
	}
}

// final tells a "no" from a node that is down, starts or is busy.
func final(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status < 500 && e.Status != 429 && e.Status != 409
}

func notFound(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == 404
}

// intend writes down what is about to be asked for.
func (c *chaosClient) intend(w Want, e Entry) string {
	c.mu.Lock()
	c.serial++
	key := fmt.Sprintf("c%d-%d", c.cfg.Number, c.serial)
	if w.Tasks > 0 {
		w.First = c.cfg.Number*1_000_000 + c.serial*10
	}
	c.mu.Unlock()
	e.Op, e.Key, e.Want = Intent, key, &w
	c.write(e)
	return key
}

// once asks for something one time: whether a call that failed did its work is
// not known.
func (c *chaosClient) once(ctx context.Context, key string, call func(context.Context) (Entry, error)) (Entry, bool) {
	try, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	e, err := call(try)
	e.Key = key
	if err != nil {
		e.Op, e.Text = Failed, err.Error()
		c.write(e)
		wait(ctx, again)
		return e, false
	}
	e.Op = Acked
	c.write(e)
	return e, true
}

func (c *chaosClient) keep(w Want, key, id string) *thing {
	t := &thing{want: w, key: key, id: id}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.things = append(c.things, t)
	return t
}

// pick draws something acknowledged that is there still.
func (c *chaosClient) pick(r *rand.Rand, ok func(*thing) bool) *thing {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 20 {
		if len(c.things) == 0 {
			break
		}
		if t := c.things[r.IntN(len(c.things))]; ok(t) {
			return t
		}
	}
	return nil
}

// hand does one thing after the other. A job takes long, so the first hand has
// none.
func (c *chaosClient) hand(ctx context.Context, r *rand.Rand, jobs bool) {
	for !c.stopped() && ctx.Err() == nil {
		switch n := r.IntN(100); {
		case jobs && n < 80:
			c.job(ctx, r)
		case n < 20:
			c.add(ctx, r)
		case n < 35:
			c.unpin(ctx, r)
		case n < 50:
			c.once(ctx, c.intend(Want{Kind: WantGC}, Entry{}), func(ctx context.Context) (Entry, error) {
				_, err := c.api.GC(ctx)
				return Entry{}, err
			})
		case n < 65:
			c.invite(ctx, r)
		case n < 80 && c.cfg.Owner:
			c.pause(ctx, r)
		default:
			if t := c.pick(r, func(t *thing) bool { return t.want.Kind != WantJob || !t.over.IsZero() }); t != nil {
				c.look(ctx, t)
			}
		}
	}
}

// job asks for one and follows it to its end.
func (c *chaosClient) job(ctx context.Context, r *rand.Rand) {
	share := func(percent int) bool { return r.IntN(100) < percent }
	w := Want{Kind: WantJob, Tasks: 1 + r.IntN(6), Random: 16, Published: share(40), Reduce: share(60), Brief: share(30)}
	switch {
	case share(8):
		w.Fails, w.Tasks, w.Published = true, 1, false
	case share(30):
		w.Quorum = true
	case share(12):
		w.Random, w.Tasks = 80<<10, 1+r.IntN(2)
	case share(30):
		w.Sleep = 100 + r.IntN(900)
	}
	key := c.intend(w, Entry{})
	w.First = c.cfg.Number*1_000_000 + serialOf(key)*10
	e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
		spec, err := c.spec(ctx, w, key)
		if err != nil {
			return Entry{}, err
		}
		var id tasks.JobID
		if w.Published {
			id, err = c.api.Publish(ctx, spec, api.PublishOptions{ByCID: r.IntN(2) == 0})
		} else {
			id, err = c.api.Submit(ctx, spec)
		}
		return Entry{Job: string(id)}, err
	})
	if ok {
		c.follow(ctx, c.keep(w, key, e.Job))
	}
}

func serialOf(key string) (n int) {
	_, _ = fmt.Sscanf(key[strings.IndexByte(key, '-')+1:], "%d", &n) // it is ours
	return n
}

// spec uploads what the job needs.
func (c *chaosClient) spec(ctx context.Context, w Want, key string) (spec tasks.Spec, err error) {
	upload := func(b []byte) tasks.CID {
		root, uerr := c.api.AddFile(ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Audience: api.AudienceJob})
		err = errors.Join(err, uerr)
		return tasks.CID(root.CID)
	}
	program := draw(w.Random, w.Sleep)
	if w.Fails {
		program = fail()
	}
	spec = tasks.Spec{Name: key, Kind: tasks.KindWasm, Program: upload(program), Nondeterministic: !w.Quorum && !w.Fails,
		Inputs: []tasks.Input{{Source: upload(w.numbers()), Split: tasks.Split{By: tasks.SplitLines, Size: 1}}}}
	if w.Reduce {
		spec.Reduce = &tasks.Reduce{Program: upload(join())}
	}
	if w.Quorum {
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
	}
	if w.Brief {
		spec.Retention = time.Minute
	}
	return spec, err
}

// numbers is a job's input: one number a line and task.
func (w Want) numbers() (b []byte) {
	for i := range w.Tasks {
		b = fmt.Appendf(b, "%08d\n", w.First+i)
	}
	return b
}

// follow looks at a job until it is over, then reads what it came to.
func (c *chaosClient) follow(ctx context.Context, t *thing) {
	for n := 0; ctx.Err() == nil; n++ {
		if c.see(ctx, t, n%5 == 0) {
			c.content(ctx, t)
			return
		}
		wait(ctx, lookEvery)
	}
}

// see writes down how a job stands when that is news, and with it its tasks; it
// reports whether the job is over. A job that is not known any more is gone.
func (c *chaosClient) see(ctx context.Context, t *thing, withTasks bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return true
	}
	job, err := ask(ctx, func(ctx context.Context) (api.Job, error) { return c.api.Job(ctx, t.id) })
	if notFound(err) {
		c.write(Entry{Op: Gone, Job: t.id})
		t.gone = true
		return true
	}
	if err != nil {
		return ctx.Err() != nil
	}
	e := Entry{Op: Seen, Job: t.id, State: job.State, CID: job.Output, Size: job.Size}
	if t.want.Published && job.Over() {
		e.Origin, e.Term = job.Origin, job.Term
	}
	if t.told.State != e.State || job.Over() {
		c.write(e)
		t.told = e
	}
	if job.Over() && t.over.IsZero() {
		t.over = time.Now()
	}
	if withTasks && !t.want.Published {
		c.tried(ctx, t)
	}
	return job.Over()
}

// tried writes down a job's tasks as they are shown.
func (c *chaosClient) tried(ctx context.Context, t *thing) {
	list, err := ask(ctx, func(ctx context.Context) ([]api.Task, error) { return c.api.AllTasks(ctx, t.id) })
	if err != nil {
		return
	}
	e := Entry{Op: Tried, Job: t.id}
	for _, task := range list {
		out := Task{Stage: task.Stage, Index: task.Index, Output: task.Output}
		for _, a := range task.Attempts {
			out.Tries = append(out.Tries, Try{a.Lease, a.Replica, a.Worker, a.State})
		}
		e.Tasks = append(e.Tasks, out)
	}
	c.write(e)
}

// content reads a job's output and writes down what it was.
func (c *chaosClient) content(ctx context.Context, t *thing) {
	t.mu.Lock()
	e := t.told
	t.mu.Unlock()
	if t.gone || e.State != "done" {
		return
	}
	var paths []string
	if !t.want.Reduce && t.want.Tasks > 1 {
		for i := range t.want.Tasks {
			paths = append(paths, fmt.Sprintf("%06d", i))
		}
	} else {
		paths = []string{""}
	}
	c.read(ctx, t, e.CID, paths, line+t.want.Random)
}

// read gets files one after the other and writes down their sum and, every
// stride bytes, the first of a line.
func (c *chaosClient) read(ctx context.Context, t *thing, root string, paths []string, stride int) {
	patience, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var last error
	for patience.Err() == nil {
		var b []byte
		if b, last = c.cat(patience, root, paths); last == nil {
			e := Entry{Op: Bytes, Key: t.key, CID: root, Size: int64(len(b))}
			if t.want.Kind == WantJob {
				e.Job = t.id
			}
			sum := sha256.Sum256(b)
			e.Sum = hex.EncodeToString(sum[:])
			for part := range slices.Chunk(b, stride) {
				if t.want.Kind == WantJob {
					e.Data = append(e.Data, part[:min(line, len(part))]...)
				}
			}
			c.write(e)
			return
		}
		if t.want.Kind == WantJob && t.want.Brief && c.see(patience, t, false) && t.gone {
			return
		}
		wait(patience, 4*again)
	}
	if ctx.Err() == nil {
		e := Entry{Op: NoBytes, Key: t.key, CID: root, Text: fmt.Sprint(last)}
		if notFound(last) {
			e.State = "missing"
		}
		c.write(e)
	}
}

func (c *chaosClient) cat(ctx context.Context, root string, paths []string) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for _, p := range paths {
		r, err := c.api.Cat(ctx, tasks.CID(root), p, 0, -1)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// add keeps some bytes at the node.
func (c *chaosClient) add(ctx context.Context, r *rand.Rand) {
	b := make([]byte, 100+r.IntN(300<<10))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	sum := sha256.Sum256(b)
	w := Want{Kind: WantAdd}
	key := c.intend(w, Entry{Sum: hex.EncodeToString(sum[:])})
	e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
		root, err := c.api.AddFile(ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Pin: true, Name: key})
		return Entry{CID: root.CID}, err
	})
	if ok {
		c.keep(w, key, e.CID)
	}
}

// unpin lets go of something added.
func (c *chaosClient) unpin(ctx context.Context, r *rand.Rand) {
	t := c.pick(r, func(t *thing) bool { return t.want.Kind == WantAdd && !t.gone })
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return
	}
	t.gone = true // from now on it may be
	_, t.let = c.once(ctx, c.intend(Want{Kind: WantUnpin}, Entry{CID: t.id}), func(ctx context.Context) (Entry, error) {
		return Entry{CID: t.id}, c.api.Unpin(ctx, tasks.CID(t.id))
	})
}

// invite makes an invite, or withdraws one.
func (c *chaosClient) invite(ctx context.Context, r *rand.Rand) {
	t := c.pick(r, func(t *thing) bool { return t.want.Kind == WantInvite && !t.gone })
	if t == nil || r.IntN(2) == 0 {
		w := Want{Kind: WantInvite}
		key := c.intend(w, Entry{})
		e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
			i, err := c.api.CreateInvite(ctx, api.InviteRequest{Name: key, Local: true})
			return Entry{CID: i.ID}, err
		})
		if ok {
			c.keep(w, key, e.CID)
		}
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = true
	c.once(ctx, c.intend(Want{Kind: WantRevoke}, Entry{CID: t.id}), func(ctx context.Context) (Entry, error) {
		return Entry{CID: t.id}, c.api.RevokeInvite(ctx, t.id)
	})
}

// pause pauses or resumes the node, and asks.
func (c *chaosClient) pause(ctx context.Context, r *rand.Rand) {
	c.owner.Lock()
	defer c.owner.Unlock()
	if r.IntN(2) == 0 {
		c.once(ctx, c.intend(Want{Kind: WantPause}, Entry{}), func(ctx context.Context) (Entry, error) {
			_, err := c.api.Pause(ctx, time.Hour)
			return Entry{}, err
		})
	} else {
		c.once(ctx, c.intend(Want{Kind: WantResume}, Entry{}), func(ctx context.Context) (Entry, error) {
			_, err := c.api.Resume(ctx)
			return Entry{}, err
		})
	}
	c.policy(ctx)
}

func (c *chaosClient) policy(ctx context.Context) {
	if p, err := ask(ctx, c.api.Policy); err == nil {
		state := "running"
		if p.Paused {
			state = "paused"
		}
		c.write(Entry{Op: Setting, State: state})
	}
}

// look asks again about something acknowledged.
func (c *chaosClient) look(ctx context.Context, t *thing) {
	switch t.want.Kind {
	case WantJob:
		t.mu.Lock()
		old := t.gone || t.want.Brief && time.Since(t.over) > briefRead
		t.mu.Unlock()
		if !old && c.see(ctx, t, true) {
			c.content(ctx, t)
		}
	case WantAdd:
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.gone {
			c.read(ctx, t, t.id, []string{""}, 1<<30)
		}
	case WantInvite:
		c.listed(ctx, t)
	}
}

func (c *chaosClient) listed(ctx context.Context, t *thing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, err := ask(ctx, c.api.Invites)
	if err != nil {
		return
	}
	i := slices.IndexFunc(list, func(i api.Invite) bool { return i.ID == t.id })
	switch {
	case i < 0:
		c.write(Entry{Op: Gone, CID: t.id})
	case list[i].Revoked:
		c.write(Entry{Op: Listed, CID: t.id, State: "revoked"})
	default:
		c.write(Entry{Op: Listed, CID: t.id, State: "open"})
	}
}

// last reads all once more.
func (c *chaosClient) last(ctx context.Context) {
	if c.cfg.Owner {
		c.policy(ctx)
	}
	for _, t := range c.things {
		if ctx.Err() != nil {
			return
		}
		if t.want.Kind == WantJob {
			if c.see(ctx, t, true) {
				c.content(ctx, t)
			}
			continue
		}
		c.look(ctx, t)
	}
	c.swept(ctx)
}

// swept collects garbage and tries to read what was let go of.
func (c *chaosClient) swept(ctx context.Context) {
	if _, err := ask(ctx, c.api.GC); err != nil {
		return
	}
	for _, t := range c.things {
		if !t.let || ctx.Err() != nil {
			continue
		}
		switch b, err := c.cat(ctx, t.id, []string{""}); {
		case err == nil:
			c.write(Entry{Op: Swept, CID: t.id, State: "here", Size: int64(len(b))})
		case notFound(err):
			c.write(Entry{Op: Swept, CID: t.id})
		}
	}
}
