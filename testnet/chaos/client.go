package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/api/client"
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

	Patience time.Duration // for the end, if nobody kills it before
}

const (
	callTime  = 10 * time.Second       // for one call
	again     = 60 * time.Millisecond  // between tries
	readTime  = 40 * time.Second       // patience with content
	briefTime = time.Minute            // for which a brief job is kept
	briefRead = 30 * time.Second       // after which a brief job is left alone until the end
	lookEvery = 100 * time.Millisecond // at a job that runs
	sideEvery = 100                    // ms, about, between things that are not jobs: jobs need the machine
	line      = 9                      // bytes of a task's number, with its end
)

// dial makes a client of a home's node, up or not.
func dial(home, address string) (*client.Client, error) {
	token, err := os.ReadFile(filepath.Join(home, "api.token"))
	if err != nil {
		return nil, err
	}
	return client.New(address, strings.TrimSpace(string(token)))
}

// ClientMain is a client process: it asks its node for many things until its
// standard input ends, then waits for all that was acknowledged, reads it once
// more and ends. It may be killed at any instant and started again.
func ClientMain(config string) error {
	var cfg ClientConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return fmt.Errorf("%s: %w", ClientEnv, err)
	}
	api, err := dial(cfg.Home, cfg.API)
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
		time.AfterFunc(cfg.Patience, func() { cancel(fmt.Errorf("not all that was acknowledged came in %v", cfg.Patience)) })
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

// hand does one thing after the other. A job takes long, so the first hand has
// none.
func (c *chaosClient) hand(ctx context.Context, r *rand.Rand, jobs bool) {
	for !c.stopped() && ctx.Err() == nil {
		n := r.IntN(100)
		if jobs && n < 80 {
			c.job(ctx, r)
			continue
		}
		wait(ctx, time.Duration(r.IntN(2*sideEvery))*time.Millisecond)
		switch {
		case n < 20:
			c.add(ctx, r)
		case n < 35:
			c.unpin(ctx, r)
		case n < 50:
			c.once(ctx, c.intend(&Want{Kind: WantGC}, Entry{}), func(ctx context.Context) (Entry, error) {
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

// last reads all once more.
func (c *chaosClient) last(ctx context.Context) {
	if c.cfg.Owner {
		c.policy(ctx)
	}
	many(c.things, func(t *thing) {
		switch {
		case ctx.Err() != nil:
		case t.want.Kind != WantJob:
			c.look(ctx, t)
		case t.gone:
			c.back(ctx, t)
		case c.see(ctx, t, true):
			c.content(ctx, t)
		}
	})
	c.swept(ctx)
	c.room(ctx)
}

// many does something with some things at once.
func many(things []*thing, do func(*thing)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, t := range things {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			do(t)
		})
	}
	all.Wait()
}
