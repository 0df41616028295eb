package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/p2p/memnet"
	"github.com/kith-mesh/kith/tasks"
)

// tape records what the nodes wrote on streams that they opened.
type tape struct {
	mu      sync.Mutex
	streams map[uint64]*track
}

type track struct {
	pair  memnet.Pair
	bytes []byte
}

func (r *tape) tap(pair memnet.Pair, stream uint64, opener bool, b []byte) {
	if !opener {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.streams[stream]
	if k == nil {
		k = &track{pair: pair}
		r.streams[stream] = k
	}
	if len(k.bytes) < 1<<20 {
		k.bytes = append(k.bytes, b...)
	}
}

// said is what one node sent another on our protocols, a list of frames each.
func (r *tape) said(pair memnet.Pair) map[protocol.ID][][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[protocol.ID][][]byte{}
	for _, number := range slices.Sorted(maps.Keys(r.streams)) {
		k := r.streams[number]
		if k.pair != pair {
			continue
		}
		line := func(b []byte) (string, []byte) {
			n, w := binary.Uvarint(b)
			if w <= 0 || uint64(len(b)-w) < n {
				return "", nil
			}
			return strings.TrimSuffix(string(b[w:w+int(n)]), "\n"), b[w+int(n):]
		}
		head, rest := line(k.bytes) // multistream's, then the protocol's
		id, rest := line(rest)
		if head != "/multistream/1.0.0" || spoken[first(nameOf(protocol.ID(id)))] == others {
			continue
		}
		for len(rest) > 0 {
			n, w := binary.Uvarint(rest)
			if w <= 0 || uint64(len(rest)-w) < n {
				break
			}
			out[protocol.ID(id)] = append(out[protocol.ID(id)], rest[:w+int(n)])
			rest = rest[w+int(n):]
		}
	}
	return out
}

func first(name string, _ bool) string { return name }

// replay sends frames on a new stream and reads what comes until the other side
// has said all.
func (m *Mesh) replay(h host.Host, to *Node, id protocol.ID, frames [][]byte) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.background(), 20*time.Second)
	defer cancel()
	if err := h.Connect(ctx, to.info()); err != nil {
		m.t.Errorf("%s: %v", id, err)
		return
	}
	s, err := h.NewStream(ctx, to.ID, id)
	if err != nil {
		m.t.Errorf("%s: %v", id, err)
		return
	}
	defer s.Reset()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = s.Write(bytes.Join(frames, nil)) // it may be reset before the end
		_ = s.CloseWrite()
	})
	if err := s.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		m.t.Error(err)
	}
	_, _ = io.Copy(io.Discard, s) // refusals and resets alike
	_ = s.Reset()
	wg.Wait()
}

// again replays all that from sent to, by h: as it was, twice over, and in the
// opposite order.
func (m *Mesh) again(r *tape, from, to *Node, h host.Host) (sent map[string]int) {
	m.t.Helper()
	sent = map[string]int{}
	said := r.said(memnet.Pair{From: from.Addr, To: to.Addr})
	ids := slices.Sorted(maps.Keys(said))
	// Another's hello ends one's own membership: it comes last.
	slices.SortStableFunc(ids, func(a, b protocol.ID) int {
		return strings.Count(string(a), "/hello/") - strings.Count(string(b), "/hello/")
	})
	for _, id := range ids {
		frames := said[id]
		m.replay(h, to, id, frames)
		m.replay(h, to, id, slices.Concat(frames, frames))
		back := slices.Clone(frames)
		slices.Reverse(back)
		m.replay(h, to, id, back)
		sent[first(nameOf(id))] += len(frames)
	}
	return sent
}

// TestReplays: all that workers and an origin said to each other is said again,
// while the job runs and when it is over, in the same and in the opposite order,
// by whoever said it and by another member. Nothing is counted twice, a lease is
// not taken from another than its origin, nobody is blamed for another's words.
func TestReplays(t *testing.T) {
	r := &tape{streams: map[uint64]*track{}}
	Run(t, Config{Nodes: 4, Tap: r.tap}, func(m *Mesh) {
		origin, worker := m.Nodes[0], m.Nodes[1]
		other, end := m.intruder(0, true)
		defer end()
		spec := origin.Numbers(60)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		check := func(when string, v tasks.JobStatus, output string) {
			t.Helper()
			if v.State != tasks.Done || v.Decided != 60 || v.Tasks != 60 || v.Failures > 0 {
				t.Errorf("%s: %+v", when, v)
			}
			if output != "" && output != string(v.Output) {
				t.Errorf("%s: the output is %s, was %s", when, v.Output, output)
			}
		}
		id := origin.Submit(spec)
		m.Until("half of it is decided", 2*time.Minute, func() bool { return origin.Job(id).Status.Decided >= 20 })
		m.again(r, worker, origin, worker.Host().Raw())
		m.again(r, origin, worker, origin.Host().Raw())
		m.again(r, worker, origin, other)
		m.again(r, origin, worker, other)
		v := origin.Await(id, 10*time.Minute)
		check("replayed while it ran", v.Status, "")
		runs := len(worker.Runs())
		sent := m.again(r, worker, origin, other)
		m.again(r, origin, worker, other)
		Sleep(time.Minute)
		if again := len(worker.Runs()); again != runs {
			t.Errorf("the worker ran %d tasks again on another's word", again-runs)
		}
		// An origin may give its own work again: that is no more than another job.
		for _, more := range []map[string]int{m.again(r, worker, origin, worker.Host().Raw()), m.again(r, origin, worker, origin.Host().Raw())} {
			for p, n := range more {
				sent[p] += n
			}
		}
		for _, p := range []string{"task/bid", "task/orders", "task/report", "meet", "link", "hello"} {
			if sent[p] == 0 {
				t.Errorf("nothing of %s was recorded: %v", p, sent)
			}
		}
		Sleep(time.Minute)
		check("replayed when it was over", origin.Job(id).Status, string(v.Status.Output))
		next := origin.Await(origin.Submit(spec), 10*time.Minute)
		check("the next job", next.Status, string(v.Status.Output))
	})
}

// TestAnswersReplayed: what the origin of a published job and its submitter said
// to each other is said again, by them and by another member: the job keeps its
// one answer, and the next one gets its own.
func TestAnswersReplayed(t *testing.T) {
	r := &tape{streams: map[uint64]*track{}}
	cfg := Config{Nodes: 4, Tap: r.tap, Setup: func(i int, c *node.Config) { c.Light = i == 3 }}
	Run(t, cfg, func(m *Mesh) {
		submitter := m.Nodes[3]
		publish := func(n uint32) (tasks.JobID, *Node) {
			id := submitter.Publish(submitter.Numbers(n))
			var origin *Node
			m.Until("an origin", time.Minute, func() bool {
				for _, n := range m.Nodes[:3] {
					if v, err := n.Market().Job(m.background(), id); err == nil && v.Record.Origin() {
						origin = n
					}
				}
				return origin != nil
			})
			return id, origin
		}
		answered := func(id tasks.JobID) tasks.JobAnswer {
			m.Until("answered", 10*time.Minute, func() bool { return submitter.Job(id).Answer != nil })
			return *submitter.Job(id).Answer
		}
		id, origin := publish(60)
		m.Until("at work", time.Minute, func() bool { return origin.Job(id).Status.Decided > 0 })
		origin.Crash() // back, it asks who holds the job
		origin.Start()
		a := answered(id)
		if a.State != tasks.Done || m.Index(a.Origin) != origin.Index {
			t.Errorf("the answer is %+v, want one of node %d", a, origin.Index)
		}
		other, end := m.intruder(0, true)
		defer end()
		sent := map[string]int{}
		again := func() {
			for _, pair := range [][2]*Node{{origin, submitter}, {submitter, origin}} {
				for _, h := range []host.Host{other, pair[0].Host().Raw()} {
					for p, n := range m.again(r, pair[0], pair[1], h) {
						sent[p] += n
					}
				}
			}
		}
		again()
		if sent["job/answer"] == 0 || sent["job/follow"] == 0 {
			t.Errorf("recorded: %v, without job/answer or job/follow", sent)
		}
		next, _ := publish(30)
		again()
		b := answered(next)
		if b.State != tasks.Done || b.Output == a.Output {
			t.Errorf("the next answer is %+v, after %+v", b, a)
		}
		Sleep(time.Minute)
		if now := submitter.Job(id).Answer; now == nil || *now != a {
			t.Errorf("the answer was %+v and is %+v", a, now)
		}
	})
}
