package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

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
	if w.Published && share(50) { // its way is long: some are answered between two deaths
		w.Tasks, w.Reduce = 1, false
	}
	key := c.intend(&w, Entry{})
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

// spec uploads what the job needs.
func (c *chaosClient) spec(ctx context.Context, w Want, key string) (spec tasks.Spec, err error) {
	upload := func(b []byte) tasks.CID {
		root, uerr := c.api.AddFile(ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Audience: api.AudienceJob})
		err = errors.Join(err, uerr)
		return tasks.CID(root.CID)
	}
	program := draw(w.Random, w.Sleep, w.Spin)
	if w.Fails {
		program = fail(w.Spin)
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
		spec.Retention = briefTime
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
	if job.Reason != nil {
		e.Text = job.Reason.Text + ": " + job.Detail
	}
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

// back asks again for a job that is gone: it must not be known any more.
func (c *chaosClient) back(ctx context.Context, t *thing) {
	if job, err := ask(ctx, func(ctx context.Context) (api.Job, error) { return c.api.Job(ctx, t.id) }); err == nil {
		c.write(Entry{Op: Seen, Job: t.id, State: job.State, CID: job.Output, Size: job.Size, Origin: t.told.Origin, Term: t.told.Term})
	}
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
			try := Try{Lease: a.Lease, Replica: a.Replica, Worker: a.Worker, State: a.State}
			if a.Reason != nil {
				try.Why = a.Reason.Code
			}
			out.Tries = append(out.Tries, try)
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
