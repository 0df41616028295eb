package market

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// light makes node 0 one that runs no job service.
func light(i int, c *Config) { c.Light = i == 0 }

// answered waits until a published job has its answer.
func (m *mesh) answered(n *node, id tasks.JobID) *tasks.JobAnswer {
	m.t.Helper()
	for range 3600 {
		v, err := n.svc.Job(context.Background(), id)
		if err != nil {
			m.t.Fatal(err)
		}
		if v.Answer != nil {
			return v.Answer
		}
		time.Sleep(time.Second)
	}
	v, err := n.svc.Job(context.Background(), id)
	m.t.Fatalf("no answer: %+v, %v", v, err)
	return nil
}

// origins lists the nodes that are the job's origin now.
func (m *mesh) origins(id tasks.JobID) (out []*node) {
	for _, o := range m.all {
		if o.up && o.svc.desk(id) != nil {
			out = append(out, o)
		}
	}
	return out
}

func (m *mesh) publishInline(n *node, count int) (tasks.JobID, []byte) {
	m.t.Helper()
	program, in := []byte("a program"), lines(count)
	spec := tasks.Spec{Name: "inline", Program: cidOf(program), Inputs: []tasks.Input{{Source: cidOf(in), Split: tasks.Split{By: tasks.SplitLines, Size: 1}}}}
	id, err := n.svc.Publish(context.Background(), spec, []wire.Blob{{CID: spec.Program, Data: program}, {CID: cidOf(in), Data: in}}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	return id, bytes.ToUpper(in)
}

func (m *mesh) wantAnswer(n *node, a *tasks.JobAnswer, out []byte) {
	m.t.Helper()
	if a.State != tasks.Done {
		m.t.Fatalf("answer: state %d, reason %v, %q", a.State, a.Reason, a.Detail)
	}
	if got, ok := n.data.get(a.Output); !ok || !bytes.Equal(got, out) {
		m.t.Fatalf("output of %d bytes (here: %v), want %d", len(got), ok, len(out))
	}
}

func TestPublishInline(t *testing.T) {
	inMesh(t, 6, light, func(m *mesh) {
		n := m.all[0]
		id, want := m.publishInline(n, 40)
		m.wantAnswer(n, m.answered(n, id), want)
		time.Sleep(2 * time.Minute)
		kept := 0
		for _, o := range m.all {
			r, err := o.store.Job(context.Background(), id)
			if err == nil {
				kept++
			}
			if list, lerr := o.svc.Jobs(context.Background()); lerr != nil || o != n && err == nil && !r.State.Over() && len(list) > 0 {
				t.Errorf("node %d shows %+v (%v) of a job that another answered", o.i, list, lerr)
			}
		}
		if kept == 0 || kept > 4 {
			t.Errorf("%d nodes kept the submission, want about three", kept)
		}
		if left := m.origins(id); len(left) > 0 {
			t.Errorf("%d nodes still hold the answered job", len(left))
		}
	})
}

// What is not inline is fetched from the submitter by ticket.
func TestPublishByCID(t *testing.T) {
	inMesh(t, 5, light, func(m *mesh) {
		n := m.all[0]
		spec, want := lineJob(n, 20)
		id, err := n.svc.Publish(context.Background(), spec, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if p, err := n.svc.Follow(context.Background(), id); err == nil && p.Tasks != 20 {
			t.Errorf("progress: %+v", p)
		}
		m.wantAnswer(n, m.answered(n, id), want)
	})
}

// Another keeper takes over when the origin dies; one answer is accepted.
func TestPublishedOriginDies(t *testing.T) {
	inMesh(t, 6, light, func(m *mesh) {
		for _, o := range m.all {
			o.runner.set(func(r *testRunner) { r.took = 5 * time.Second })
		}
		n := m.all[0]
		id, want := m.publishInline(n, 60)
		time.Sleep(12 * time.Second)
		first := m.origins(id)
		if len(first) != 1 {
			t.Fatalf("%d origins", len(first))
		}
		first[0].crash()
		a := m.answered(n, id)
		m.wantAnswer(n, a, want)
		if a.Origin == idOf(first[0].id) || a.Term < 2 {
			t.Errorf("answer of %s at term %d, want a successor's", a.Origin, a.Term)
		}
		first[0].start() // it comes back, believing that it is origin
		time.Sleep(5 * time.Minute)
		if again, err := n.svc.Job(context.Background(), id); err != nil || *again.Answer != *a {
			t.Errorf("the answer changed: %+v, %v", again.Answer, err)
		}
		if left := m.origins(id); len(left) > 0 {
			t.Errorf("node %d still runs the answered job", left[0].i)
		}
	})
}

// A submitter that is away when its job is done gets the answer when it is back.
func TestSubmitterAway(t *testing.T) {
	inMesh(t, 4, light, func(m *mesh) {
		n := m.all[0]
		id, want := m.publishInline(n, 30)
		time.Sleep(3 * time.Second)
		n.halt()
		time.Sleep(time.Minute)
		n.start()
		m.wantAnswer(n, m.answered(n, id), want)
		n.halt()
		n.start()
		time.Sleep(5 * time.Second)
		if v, err := n.svc.Job(context.Background(), id); err != nil || v.Answer == nil {
			t.Errorf("the answer was forgotten: %+v, %v", v, err)
		}
	})
}

func TestPublishTooLarge(t *testing.T) {
	inMesh(t, 1, nil, func(m *mesh) {
		n := m.all[0]
		big := bytes.Repeat([]byte("x"), wire.MaxInline+1)
		spec := tasks.Spec{Program: cidOf(big), Tasks: 1}
		_, err := n.svc.Publish(context.Background(), spec, []wire.Blob{{CID: spec.Program, Data: big}}, nil)
		if err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("a program over the limit: %v", err)
		}
	})
}

// Two hosts both have an answer to one published job, each its own, and both bring
// it at once and again until they are heard. One is accepted, over a restart of the
// submitter too; the other is told that it is not.
func TestTwoAnswers(t *testing.T) {
	inMesh(t, 3, func(i int, c *Config) { c.NoHost = true }, func(m *mesh) {
		ctx, n := context.Background(), m.all[0]
		id, err := n.svc.Publish(ctx, tasks.Spec{Program: cidOf([]byte("nowhere")), Tasks: 1}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		bring := func(host *node) bool {
			out := fmt.Appendf(nil, "what node %d has", host.i)
			n.data.put(out) // whether it can be fetched is not asked here
			a := tasks.JobAnswer{Job: id, Term: 1, Origin: idOf(host.id), State: tasks.Done, Output: cidOf(out), Size: int64(len(out))}
			b, err := wire.MarshalAnswer(n.svc.mesh, a)
			if err != nil {
				t.Error(err)
			}
			for range 100 {
				sealed, err := host.svc.seal(wire.DomainAnswer, b)
				if err != nil {
					t.Error(err)
				}
				resp, err := host.svc.host.Call(ctx, n.id, answerProtocol, sealed)
				if err != nil { // the other's output is being fetched
					time.Sleep(time.Second)
					continue
				}
				accepted, err := wire.UnmarshalAnswerReply(resp)
				if err != nil {
					t.Error(err)
				}
				return accepted
			}
			t.Errorf("node %d is never heard", host.i)
			return false
		}
		both := func() (first, second bool) {
			var all sync.WaitGroup
			all.Go(func() { first = bring(m.all[1]) })
			all.Go(func() { second = bring(m.all[2]) })
			all.Wait()
			return first, second
		}
		first, second := both()
		if first == second {
			t.Fatalf("of two answers both or none is accepted: %v", first)
		}
		answer := func() tasks.JobAnswer {
			v, err := n.svc.Job(ctx, id)
			if err != nil || v.Answer == nil {
				t.Fatalf("no answer: %+v, %v", v, err)
			}
			return *v.Answer
		}
		a := answer()
		if want := map[bool]*node{true: m.all[1], false: m.all[2]}[first]; a.Origin != idOf(want.id) {
			t.Errorf("the answer is of %s, and node %d was told so", a.Origin, want.i)
		}
		n.halt()
		n.start()
		if f, s := both(); f != first || s != second {
			t.Errorf("after a restart %v and %v are accepted, before it %v and %v", f, s, first, second)
		}
		if again := answer(); again != a {
			t.Errorf("the answer was %+v and is %+v", a, again)
		}
	})
}
