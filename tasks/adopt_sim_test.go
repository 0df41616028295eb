package tasks_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"pgregory.net/rapid"
)

// crowd is hosts that hear one published job, and its submitter, over a topic
// that loses messages and is cut in two for a while.
type crowd struct {
	t         tb
	rng       *rand.Rand
	now       time.Time
	queue     simQueue
	seq       int
	hosts     []*simHost
	submitter *tasks.Submission
	wake      time.Time
	loss      float64
	cut       bool // the first half does not hear the second; the submitter hears the first
	accepted  []tasks.JobAnswer
	origins   map[string]int
	keepers   int
}

type simHost struct {
	id     tasks.PeerID
	a      *tasks.Adoption
	rec    tasks.AdoptionRecord
	dead   bool
	epoch  int
	wake   time.Time
	forgot bool // durably: it is not restored
	second bool // on the far side of the cut
}

func (c *crowd) after(d time.Duration, do func()) {
	c.seq++
	heap.Push(&c.queue, simEvent{c.now.Add(d), c.seq, do})
}

func newCrowd(t tb, seed uint64, hosts int, loss float64) *crowd {
	c := &crowd{t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: epochStart, loss: loss, origins: make(map[string]int)}
	for i := range hosts {
		c.hosts = append(c.hosts, &simHost{id: tasks.PeerID(fmt.Sprintf("h%d", i)), second: i%2 == 1})
	}
	var err error
	if c.submitter, err = tasks.NewSubmission(tasks.SubmissionConfig{Self: "user", Rand: c.rng}, "job", nil, c.now); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *crowd) run(limit time.Duration) {
	c.submit(tasks.SubmissionTick{})
	for end := c.now.Add(limit); c.queue.Len() > 0 && c.queue[0].at.Before(end); {
		e := heap.Pop(&c.queue).(simEvent)
		c.now = e.at
		e.do()
	}
}

// publish carries something to all that hear it.
func (c *crowd) publish(second bool, host func(*simHost), user func()) {
	for _, h := range c.hosts {
		if (!c.cut || h.second == second) && c.rng.Float64() >= c.loss {
			c.after(time.Duration(20+c.rng.IntN(80))*time.Millisecond, func() { host(h) })
		}
	}
	if user != nil && (!c.cut || !second) && c.rng.Float64() >= c.loss {
		c.after(50*time.Millisecond, user)
	}
}

func (c *crowd) config(h *simHost) tasks.AdoptionConfig {
	return tasks.AdoptionConfig{Self: h.id, Rand: c.rng, Hosts: len(c.hosts)}
}

func (c *crowd) hear(h *simHost) {
	switch {
	case h.dead:
	case h.a != nil:
		c.step(h, tasks.Resubmitted{})
	default:
		a, err := tasks.NewAdoption(c.config(h), "job", "user", c.now)
		if err != nil {
			c.t.Fatal(err)
		}
		h.a = a
		c.step(h, tasks.AdoptionTick{})
	}
}

func (c *crowd) step(h *simHost, ev tasks.AdoptionEvent) {
	if h.dead || h.a == nil {
		return
	}
	epoch := h.epoch
	for _, e := range h.a.Step(c.now, ev) {
		switch e := e.(type) {
		case tasks.Adopt:
			h.rec.Adopted = true
			c.keepers++
		case tasks.SendNotice:
			c.publish(h.second, func(x *simHost) { c.step(x, tasks.NoticeIn{Notice: e.Notice}) },
				func() { c.submit(tasks.OriginHeard{Notice: e.Notice}) })
		case tasks.BecomeOrigin:
			h.rec.Term, h.rec.Yielded = e.Term, 0
			c.origins[fmt.Sprintf("%s@%d", h.id, e.Term)]++
			term := e.Term
			c.after(30*time.Second, func() {
				if role, at, _ := h.a.Role(); h.epoch == epoch && role == tasks.RoleOrigin && at == term {
					answer := tasks.JobAnswer{Job: "job", Term: term, Origin: h.id, State: tasks.Done, Output: "x"}
					h.rec.Answer = &answer
					c.step(h, tasks.JobOver{Answer: answer})
				}
			})
		case tasks.Yield:
			if e.Term < h.rec.Term {
				c.t.Fatalf("%s at term %d yields to term %d", h.id, h.rec.Term, e.Term)
			}
			h.rec.Yielded = e.Term
		case tasks.AskHolder:
			c.after(100*time.Millisecond, func() {
				if h.epoch == epoch {
					c.step(h, c.holder(h))
				}
			})
		case tasks.Resume:
			c.resumes(h)
		case tasks.SendAnswer:
			c.after(100*time.Millisecond, func() {
				if h.epoch != epoch {
					return
				}
				if c.rng.Float64() < c.loss || (c.cut && h.second) {
					c.step(h, tasks.AnswerFailed{})
					return
				}
				c.submit(tasks.AnswerIn{Answer: e.Answer})
			})
		case tasks.Forget:
			h.forgot = true
		}
	}
	if next := h.a.Next(); !next.IsZero() && (h.wake.IsZero() || next.Before(h.wake) || !h.wake.After(c.now)) {
		h.wake = next
		c.after(next.Sub(c.now), func() {
			if h.epoch == epoch && !h.wake.After(c.now) {
				h.wake = time.Time{}
				c.step(h, tasks.AdoptionTick{})
			}
		})
	}
}

func (c *crowd) host(id tasks.PeerID) *simHost {
	for _, h := range c.hosts {
		if h.id == id {
			return h
		}
	}
	c.t.Fatalf("no host %s", id)
	return nil
}

func (c *crowd) submit(ev tasks.SubmissionEvent) {
	for _, e := range c.submitter.Step(c.now, ev) {
		switch e := e.(type) {
		case tasks.PublishSubmission:
			c.publish(false, c.hear, nil)
		case tasks.KeepOutput:
			ok := c.rng.Float64() >= c.loss
			c.after(time.Second, func() { c.submit(tasks.OutputKept{Answer: e.Answer, OK: ok}) })
		case tasks.AcceptAnswer:
			c.accepted = append(c.accepted, e.Answer)
		case tasks.TellAnswered:
			c.after(50*time.Millisecond, func() { c.step(c.host(e.To), tasks.AnswerTaken{}) })
		case tasks.AskAgain:
			c.after(50*time.Millisecond, func() { c.step(c.host(e.To), tasks.AnswerFailed{}) })
		case tasks.PublishAnswered:
			c.publish(false, func(h *simHost) { c.step(h, tasks.NoticeIn{Notice: e.Notice}) }, nil)
		}
	}
	if next := c.submitter.Next(); !next.IsZero() && (c.wake.IsZero() || next.Before(c.wake) || !c.wake.After(c.now)) {
		c.wake = next
		c.after(next.Sub(c.now), func() {
			if !c.wake.After(c.now) {
				c.wake = time.Time{}
				c.submit(tasks.SubmissionTick{})
			}
		})
	}
}

// kill stops a host; it comes back from its record.
func (c *crowd) kill(h *simHost, pause time.Duration) {
	if h.dead {
		return
	}
	h.dead = true
	h.epoch++
	c.after(pause, func() {
		h.dead, h.wake = false, time.Time{}
		if h.forgot { // and its machine is done
			return
		}
		if h.a == nil || !h.rec.Adopted {
			h.a = nil
			return
		}
		a, err := tasks.RestoreAdoption(c.config(h), "job", "user", h.rec, c.now)
		if err != nil {
			c.t.Fatal(err)
		}
		h.a = a
		c.step(h, tasks.AdoptionTick{})
	})
}

// resumes lets the Origin of a host that was away go on.
func (c *crowd) resumes(h *simHost) {
	epoch, term := h.epoch, h.rec.Term
	c.after(20*time.Second, func() {
		if role, at, _ := h.a.Role(); h.epoch == epoch && role == tasks.RoleOrigin && at == term {
			answer := tasks.JobAnswer{Job: "job", Term: term, Origin: h.id, State: tasks.Done, Output: "x"}
			h.rec.Answer = &answer
			c.step(h, tasks.JobOver{Answer: answer})
		}
	})
}

// holder is what the submitter says of who holds the job, unless the question is
// lost.
func (c *crowd) holder(h *simHost) (told tasks.HolderTold) {
	if c.rng.Float64() < c.loss || (c.cut && h.second) {
		return told
	}
	told.Origin, told.Term = c.submitter.Holder()
	if a := c.submitter.Accepted(); a != nil {
		told = tasks.HolderTold{Origin: a.Origin, Term: a.Term, State: a.State}
	}
	return told
}

func (c *crowd) check() {
	c.t.Helper()
	if len(c.accepted) != 1 {
		c.t.Fatalf("%d answers accepted after %v; origins %v; why %v", len(c.accepted), c.now.Sub(epochStart), c.origins, c.submitter.Why(c.now))
	}
	for name, n := range c.origins {
		if n != 1 {
			c.t.Fatalf("%s took its term %d times", name, n)
		}
	}
}

func TestPublishedJobInAQuietMesh(t *testing.T) {
	c := newCrowd(t, 1, 40, 0)
	c.run(10 * time.Minute)
	c.check()
	if len(c.origins) != 1 || c.keepers < 3 || c.keepers > 6 {
		t.Errorf("%d keepers, origins %v", c.keepers, c.origins)
	}
	for _, h := range c.hosts {
		if role, _, _ := h.a.Role(); role != tasks.RoleDone {
			t.Errorf("%s is not done", h.id)
		}
	}
}

// Hosts die, messages get lost, the mesh is cut and heals: the submitter accepts
// exactly one answer.
func TestPublishedJobUnderChaos(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := newCrowd(r, rapid.Uint64().Draw(r, "seed"), rapid.IntRange(1, 20).Draw(r, "hosts"), rapid.SampledFrom([]float64{0, 0.1, 0.4}).Draw(r, "loss"))
		for range rapid.IntRange(0, 8).Draw(r, "deaths") {
			h := c.hosts[c.rng.IntN(len(c.hosts))]
			c.after(time.Duration(c.rng.IntN(60000))*time.Millisecond, func() { c.kill(h, time.Duration(c.rng.IntN(60000))*time.Millisecond) })
		}
		if rapid.Bool().Draw(r, "cut") {
			at := time.Duration(c.rng.IntN(30000)) * time.Millisecond
			c.after(at, func() { c.cut = true })
			c.after(at+time.Duration(c.rng.IntN(90000))*time.Millisecond, func() { c.cut = false })
		}
		c.run(time.Hour)
		c.check()
	})
}
