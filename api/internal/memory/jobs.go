package memory

import (
	"context"
	"fmt"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// Submit implements api.Submitter. A program that is not stored is refused.
func (n *Node) Submit(_ context.Context, spec tasks.Spec) (tasks.JobID, error) {
	if _, err := n.find(spec.Program); err != nil {
		return "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	id := jobID(fmt.Sprint(len(n.jobs), spec.Name))
	n.jobs = append([]api.Job{{ID: string(id), Name: spec.Name, Kind: string(spec.Kind), State: "running", Tasks: 2, Waiting: 2, Workers: []api.Worker{}}}, n.jobs...)
	n.specs[id] = spec
	return id, nil
}

// Publish implements api.Submitter.
func (n *Node) Publish(ctx context.Context, spec tasks.Spec, opts api.PublishOptions) (tasks.JobID, error) {
	id, err := n.Submit(ctx, spec)
	if err == nil {
		n.SetJob(id, func(j *api.Job) { j.State, j.Published = api.StatePublished, true })
	}
	return id, err
}

// Spec is what a job was submitted with.
func (n *Node) Spec(id tasks.JobID) tasks.Spec {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.specs[id]
}

// SetJob changes a job and tells watchers.
func (n *Node) SetJob(id tasks.JobID, f func(*api.Job)) {
	n.mu.Lock()
	state := ""
	for i := range n.jobs {
		if n.jobs[i].ID == string(id) {
			f(&n.jobs[i])
			state = n.jobs[i].State
		}
	}
	n.mu.Unlock()
	n.Emit(api.Event{Kind: api.EventJob, Job: string(id), State: state})
}

// Put stores one file.
func (n *Node) Put(b []byte) tasks.CID {
	n.keep(CIDOf(b), &root{files: map[string]file{"": {content: b}}}, api.AddOptions{})
	return CIDOf(b)
}

// List implements api.Jobs.
func (n *Node) List(context.Context) ([]api.Job, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]api.Job(nil), n.jobs...), nil
}

// Job implements api.Jobs.
func (n *Node) Job(_ context.Context, id tasks.JobID) (api.Job, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, j := range n.jobs {
		if j.ID == string(id) {
			return j, nil
		}
	}
	return api.Job{}, api.NotFound("'kith jobs' lists the jobs of this node", "no job %s here", id)
}

// Cancel implements api.Jobs.
func (n *Node) Cancel(ctx context.Context, id tasks.JobID) error {
	j, err := n.Job(ctx, id)
	if err != nil {
		return err
	}
	if j.Over() {
		return api.Conflict("", "job %s is %s already", id, j.State)
	}
	n.SetJob(id, func(j *api.Job) { j.State, j.Reason = "cancelled", api.ReasonOf(tasks.CancelledByUser) })
	return nil
}

// Why implements api.Jobs.
func (n *Node) Why(ctx context.Context, id tasks.JobID) ([]api.Wait, error) {
	j, err := n.Job(ctx, id)
	if err != nil || j.Over() {
		return nil, err
	}
	return []api.Wait{{Tasks: j.Waiting, Reason: "no bids"}}, nil
}

// Tasks implements api.Results.
func (n *Node) Tasks(_ context.Context, _ tasks.JobID, offset, limit int) ([]api.Task, int, error) {
	from := min(offset, len(n.TaskList))
	return n.TaskList[from:min(from+limit, len(n.TaskList))], len(n.TaskList), nil
}

// Logs implements api.Results.
func (n *Node) Logs(context.Context, tasks.JobID, tasks.Ref) ([]api.Log, error) { return n.Log, nil }

// Results implements api.Results.
func (n *Node) Results(ctx context.Context, id tasks.JobID) (api.Output, error) {
	j, err := n.Job(ctx, id)
	return api.Output{Job: j.ID, State: j.State, CID: j.Output, Size: j.Size, Results: []api.TaskResult{}}, err
}

// Subscribe implements api.Events.
func (n *Node) Subscribe(ctx context.Context, after uint64) (<-chan api.Event, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := make(chan api.Event, 1000)
	for _, e := range n.events {
		if e.ID > after {
			ch <- e
		}
	}
	n.watchers[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.watchers, ch)
		close(ch)
	})
	return ch, nil
}

// Emit tells watchers an event.
func (n *Node) Emit(e api.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e.ID = uint64(len(n.events) + 1)
	n.events = append(n.events, e)
	for ch := range n.watchers {
		ch <- e
	}
}
