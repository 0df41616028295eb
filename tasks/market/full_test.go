package market

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// disk is one that can be full: of a node's database, and what its config says of
// room.
type disk struct{ full atomic.Bool }

var errNoRoom = errors.New("no room on the test's disk")

func (d *disk) config(c *Config) {
	c.Full = func(err error) bool { return errors.Is(err, errNoRoom) }
	c.Room = func() error {
		if d.full.Load() {
			return errNoRoom
		}
		return nil
	}
}

// behind makes a store write to the disk.
func (d *disk) behind(s *state.State) {
	s.Around = func(c state.Commit, do func() error) error {
		if c == state.CommitTransaction && d.full.Load() {
			return errNoRoom
		}
		return do()
	}
}

// withDisk runs f in a mesh of an origin whose disk can be full and two workers.
func withDisk(t *testing.T, f func(m *mesh, n *node, d *disk)) {
	t.Helper()
	var d disk
	inMesh(t, 3, func(i int, c *Config) {
		if c.NoWork = i == 0; i == 0 {
			d.config(c)
		}
	}, func(m *mesh) {
		n := m.all[0]
		d.behind(n.store)
		f(m, n, &d)
	})
}

// A full disk at the origin pauses its jobs, for as long as it takes: nothing is
// said that is not durable, new jobs are refused, everything that asks is told
// why, and when there is room the job goes on to its right end.
func TestFullDiskPausesOrigin(t *testing.T) {
	withDisk(t, func(m *mesh, n *node, d *disk) {
		ctx := context.Background()
		spec, want := lineJob(n, 200)
		id := m.submit(n, spec)
		published, err := n.svc.Publish(ctx, spec, []wire.Blob{{CID: spec.Program, Data: must(n.data.get(spec.Program))}, {CID: spec.Inputs[0].Source, Data: must(n.data.get(spec.Inputs[0].Source))}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		d.full.Store(true)
		durable := func() int {
			t.Helper()
			r, err := n.store.Records(ctx, id, 1)
			if err != nil {
				t.Fatal(err)
			}
			return len(r.Results)
		}
		time.Sleep(time.Second)
		before := durable()
		if before == 0 || before == 200 {
			t.Fatalf("%d of 200 decided when the disk got full", before)
		}
		time.Sleep(20 * time.Minute)
		if got := durable(); got != before {
			t.Errorf("%d results durable, %d before the disk was full", got, before)
		}
		if err := n.svc.Stalled(); !errors.Is(err, errNoRoom) {
			t.Errorf("stalled: %v", err)
		}
		for _, job := range []tasks.JobID{id, published} {
			short, stop := context.WithTimeout(ctx, time.Second) // people wait no longer
			w, err := n.svc.Why(short, job)
			if err != nil || len(w) == 0 || !strings.Contains(w[0].Text, errNoRoom.Error()) || !w[0].Next.After(time.Now()) {
				t.Errorf("why: %+v, %v", w, err)
			}
			var full *FullError
			if err := n.svc.Cancel(short, job, ""); !errors.As(err, &full) {
				t.Errorf("cancel: %v, want a FullError", err)
			}
			stop()
		}
		var full *FullError
		if _, err := n.svc.Submit(ctx, spec); !errors.As(err, &full) {
			t.Errorf("submit: %v, want a FullError", err)
		}
		if _, err := n.svc.Publish(ctx, spec, nil, nil); !errors.As(err, &full) {
			t.Errorf("publish: %v, want a FullError", err)
		}
		d.full.Store(false)
		time.Sleep(time.Minute)
		if err := n.svc.Stalled(); err != nil {
			t.Errorf("stalled with room: %v", err)
		}
		// Both were told to end while it was full, and neither lost what it had.
		v := m.done(n, id)
		if v.Record.State != tasks.Cancelled || v.Status.Decided < uint32(before) {
			t.Errorf("the job is %v with %d decided, want cancelled with %d at least", v.Record.State, v.Status.Decided, before)
		}
		v = m.done(n, m.submit(n, spec))
		m.want(n, v, want)
	})
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("not there")
	}
	return v
}

// A disk that is full while a job's tasks are out does not end the job.
func TestFullDiskThenRoom(t *testing.T) {
	withDisk(t, func(m *mesh, n *node, d *disk) {
		spec, want := lineJob(n, 200)
		id := m.submit(n, spec)
		for _, pause := range []time.Duration{100 * time.Millisecond, 20 * time.Second, 2 * time.Minute} {
			time.Sleep(time.Second)
			d.full.Store(true)
			time.Sleep(pause)
			d.full.Store(false)
		}
		m.want(n, m.done(n, id), want)
	})
}

// A worker whose disk is full takes nothing, and says why: its tasks go elsewhere
// without blame for the program, and it works again when there is room.
func TestFullDiskAtWorker(t *testing.T) {
	var d disk
	inMesh(t, 2, func(i int, c *Config) {
		if c.NoWork = i == 0; i == 1 {
			d.config(c)
		}
	}, func(m *mesh) {
		n, w := m.all[0], m.all[1]
		w.runner.set(func(r *testRunner) {
			r.lie = func(_ tasks.Execution, o tasks.Outcome) tasks.Outcome {
				if d.full.Load() {
					o = tasks.Outcome{Reason: tasks.WorkerFull, Detail: errNoRoom.Error()}
				}
				return o
			}
		})
		spec, want := lineJob(n, 100)
		id := m.submit(n, spec)
		time.Sleep(time.Second)
		d.full.Store(true)
		limits := w.svc.Limits()
		limits.Full = true
		w.svc.SetLimits(limits) // as its node does when it sees it
		time.Sleep(time.Minute) // what it had in hand comes back
		ran := w.runner.count()
		time.Sleep(10 * time.Minute)
		if n := w.runner.count() - ran; n > 0 {
			t.Errorf("it took %d tasks while its disk was full", n)
		}
		v, err := n.svc.Job(context.Background(), id)
		if err != nil || v.Status.State != tasks.Running || v.Status.Failures > 0 || v.Status.Decided == 100 {
			t.Fatalf("with the only worker full: %+v, %v", v.Status, err)
		}
		if len(v.Why) == 0 || !strings.Contains(v.Why[0].Text, tasks.WorkerFull.String()) {
			t.Errorf("why: %+v", v.Why)
		}
		d.full.Store(false)
		limits.Full = false
		w.svc.SetLimits(limits)
		m.want(n, m.done(n, id), want)
	})
}

// fullData has no room to keep anything while its disk is full.
type fullData struct {
	Data
	d *disk
}

func (f fullData) Keep(ctx context.Context, job tasks.JobID, root tasks.CID) error {
	if f.d.full.Load() {
		return errNoRoom
	}
	return f.Data.Keep(ctx, job, root)
}

// A job that was taken waits for room to be split for longer than for inputs that
// are out of reach.
func TestFullDiskWhileSplitting(t *testing.T) {
	var d disk
	inMesh(t, 2, func(i int, c *Config) {
		if c.NoWork = i == 0; i == 0 {
			d.config(c)
			c.Room, c.Data = nil, fullData{c.Data, &d} // it fills right after the job was taken
		}
	}, func(m *mesh) {
		n := m.all[0]
		d.full.Store(true)
		spec, want := lineJob(n, 20)
		id := m.submit(n, spec)
		time.Sleep(4 * splitPatience)
		w, err := n.svc.Why(context.Background(), id)
		if err != nil || len(w) == 0 || !strings.Contains(w[0].Text, errNoRoom.Error()) {
			t.Errorf("why: %+v, %v", w, err)
		}
		d.full.Store(false)
		m.want(n, m.done(n, id), want)
	})
}
