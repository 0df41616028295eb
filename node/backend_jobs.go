package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
	"github.com/kith-mesh/kith/tasks/wire"
)

const (
	maxResults = 10_000          // in one answer
	followTime = 2 * time.Second // to ask a published job's origin how it stands
)

// jobsBackend implements api.Submitter, api.Jobs and api.Results.
type jobsBackend struct{ n *Node }

func jobError(err error) error {
	var known *api.Error
	var busy *market.BusyError
	var spec *tasks.SpecError
	var full *market.FullError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &full), isFull(err):
		return api.Full(tasks.OriginFull, "%v", err)
	case errors.Is(err, market.ErrNoJob):
		return api.NotFound("kith jobs lists them", "%v", err)
	case errors.As(err, &spec):
		e := api.Invalid("docs/jobs.md describes a spec", "%v", err)
		for _, f := range spec.Faults {
			e.Faults = append(e.Faults, f.String())
		}
		return e
	case errors.As(err, &busy):
		return api.Busy(tasks.OriginBusy, busy.RetryAfter, "%v", err)
	case errors.Is(err, market.ErrStalled):
		return api.Unavailable("kith why tells what it waits for; kith doctor shows the disk", "%v", err)
	case errors.Is(err, market.ErrTooLarge):
		return api.Invalid("name large programs and inputs by CID", "%v", err)
	case errors.Is(err, market.ErrNotOrigin):
		return api.Conflict("cancel it at its origin, which kith job shows", "%v", err)
	}
	var refused *p2p.Refusal
	switch {
	case !errors.As(err, &refused):
		return err
	case refused.Code == p2p.CodeRights || refused.Code == p2p.CodeNotMember:
		return api.Refused(tasks.NotMember, "ask who invited you for a token that allows it; kith token shows yours", "%v", err)
	case refused.RetryAfter > 0:
		return api.Busy(tasks.OriginBusy, refused.RetryAfter, "%v", err)
	}
	return err
}

// Submit makes this node the job's origin.
func (b *jobsBackend) Submit(ctx context.Context, spec tasks.Spec) (tasks.JobID, error) {
	if b.n.cfg.Light {
		return "", api.Refused(tasks.WorkerPolicy, "kith publish sends it to a node that does", "this node runs no job service")
	}
	release, err := b.hold(spec)
	if err != nil {
		return "", err
	}
	defer release()
	id, err := b.n.market.Submit(ctx, spec)
	return id, jobError(err)
}

// hold keeps what the spec names from the collector until the job is durable.
func (b *jobsBackend) hold(spec tasks.Spec) (release func(), err error) {
	var roots []cid.Cid
	for _, c := range named(spec) {
		root, err := parseCID(c)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	return b.n.store.Use(roots...), nil
}

// named is every CID that a spec names.
func named(spec tasks.Spec) []tasks.CID {
	out := []tasks.CID{spec.Program}
	if spec.Reduce != nil {
		out = append(out, spec.Reduce.Program)
	}
	for _, in := range spec.Inputs {
		out = append(out, in.Source)
	}
	return out
}

// Publish sends the job to the mesh's jobs topic. What it names travels along
// while it is small.
func (b *jobsBackend) Publish(ctx context.Context, spec tasks.Spec, opts api.PublishOptions) (tasks.JobID, error) {
	release, err := b.hold(spec)
	if err != nil {
		return "", err
	}
	defer release()
	var blobs []wire.Blob
	if !opts.ByCID {
		if blobs, err = b.blobs(ctx, spec); err != nil {
			return "", err
		}
	}
	id, err := b.n.market.Publish(ctx, spec, blobs, nil)
	if errors.Is(err, market.ErrTooLarge) && len(blobs) > 0 { // the spec itself is long: all by CID
		id, err = b.n.market.Publish(ctx, spec, nil, nil)
	}
	return id, jobError(err)
}

// blobs reads what is small and one block, as far as a submission has room.
func (b *jobsBackend) blobs(ctx context.Context, spec tasks.Spec) ([]wire.Blob, error) {
	var out []wire.Blob
	room := int64(wire.MaxInline)
	seen := map[tasks.CID]bool{}
	for _, c := range named(spec) {
		root, err := parseCID(c)
		if err != nil {
			return nil, err
		}
		if seen[c] || root.Type() != cid.Raw || len(out) == wire.MaxBlobs {
			continue
		}
		seen[c] = true
		e, err := b.n.store.Stat(ctx, root, "")
		if errors.Is(err, storage.ErrNotFound) || err == nil && e.Size > room {
			continue // by CID: fetched from who has it
		}
		if err != nil {
			return nil, dataError(err)
		}
		r, err := b.n.store.Open(ctx, root, "", 0, -1)
		if err != nil {
			return nil, dataError(err)
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, dataError(err)
		}
		out = append(out, wire.Blob{CID: c, Data: data})
		room -= int64(len(data))
	}
	return out, nil
}

// List shows all jobs, newest first.
func (b *jobsBackend) List(ctx context.Context) ([]api.Job, error) {
	views, err := b.n.market.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Job, 0, len(views))
	for _, v := range views {
		out = append(out, b.show(v))
	}
	return out, nil
}

// Job shows one job; of a published one it asks the origin.
func (b *jobsBackend) Job(ctx context.Context, id tasks.JobID) (api.Job, error) {
	v, err := b.n.market.Job(ctx, id)
	if err != nil {
		return api.Job{}, jobError(err)
	}
	job := b.show(v)
	if v.Published && v.Answer == nil && v.Origin != "" {
		ctx, stop := context.WithTimeout(ctx, followTime)
		defer stop()
		if p, err := b.n.market.Follow(ctx, id); err == nil {
			state := p.State
			if state.Over() { // over for its origin; here, once its answer has come
				state = tasks.Assembling
			}
			job.State, job.Term, job.Origin, job.Releases = stateName(state), p.Term, string(p.Origin), int(p.Releases)
			job.Tasks, job.Done, job.Leased, job.Waiting = int(p.Tasks), int(p.Decided), int(p.Leased), int(p.Waiting)
		}
	}
	return job, nil
}

var stateNames = map[tasks.State]string{
	tasks.Splitting: "splitting", tasks.Running: "running", tasks.Assembling: "assembling",
	tasks.Done: "done", tasks.Failed: "failed", tasks.Cancelled: "cancelled",
}

func stateName(s tasks.State) string {
	if n, ok := stateNames[s]; ok {
		return n
	}
	return "splitting"
}

func reasonOf(r tasks.Reason) *api.Reason {
	if r == tasks.OK {
		return nil
	}
	return &api.Reason{Code: uint32(r), Text: r.String()}
}

func (b *jobsBackend) show(v market.JobView) api.Job {
	r, st := v.Record, v.Status
	kind := v.Spec.Kind
	if kind == "" {
		kind = tasks.KindWasm
	}
	job := api.Job{
		ID: string(r.ID), Name: r.Name, Kind: string(kind), State: stateName(st.State), Reason: reasonOf(st.Reason), Detail: st.Detail,
		Submitter: string(r.Submitter), Published: r.Published || v.Published, Term: r.Term, Created: r.Created, Finished: r.Finished,
		Replicas: int(max(1, v.Spec.Verify.Replicas)), Stage: stageNames[st.Stage],
		Tasks: int(st.Tasks), Done: int(st.Decided), Leased: int(st.Leased), Waiting: int(st.Waiting),
		Releases: int(st.Releases), Copies: int(st.Copies), Failures: int(st.Failures), Workers: []api.Worker{},
		Rounds: int(st.Round), RadiusMs: ms(st.Radius), Output: string(st.Output), Size: st.Size,
	}
	for _, w := range st.Workers {
		job.Workers = append(job.Workers, api.Worker{Peer: string(w.Worker), RTTMs: ms(w.RTT), Holds: int(w.Holds),
			Accepted: int(w.Accepted), Failed: int(w.Failed), Rejected: int(w.Rejected)})
	}
	switch {
	case v.Published:
		job.Origin = string(v.Origin)
		if v.Answer == nil {
			job.State = "published"
		}
	case r.Origin():
		job.Origin = b.n.member.id.String()
	case !st.State.Over():
		job.Origin, job.Term, job.State = string(v.Origin), max(v.Term, r.Term), api.StateKept
	}
	return job
}

// Cancel ends a job.
func (b *jobsBackend) Cancel(ctx context.Context, id tasks.JobID) error {
	v, err := b.n.market.Job(ctx, id)
	if err != nil {
		return jobError(err)
	}
	if v.Status.State.Over() {
		return api.Conflict("", "job %s is %s already", id, stateName(v.Status.State))
	}
	return jobError(b.n.market.Cancel(ctx, id, "cancelled by the user"))
}

// Why says what the job waits for.
func (b *jobsBackend) Why(ctx context.Context, id tasks.JobID) ([]api.Wait, error) {
	waits, err := b.n.market.Why(ctx, id)
	if err != nil {
		return nil, jobError(err)
	}
	out := make([]api.Wait, 0, len(waits))
	for _, w := range waits {
		out = append(out, api.Wait{Tasks: int(w.Tasks), Reason: w.Text, Next: w.Next})
	}
	return out, nil
}

var stageNames = map[tasks.Stage]string{tasks.StageMap: "map", tasks.StageReduce: "reduce"}

// Tasks shows a page of the job's tasks: those of the map stage, then the reduce.
func (b *jobsBackend) Tasks(ctx context.Context, id tasks.JobID, offset, limit int) ([]api.Task, int, error) {
	v, err := b.n.market.Job(ctx, id)
	if err != nil {
		return nil, 0, jobError(err)
	}
	total := int(v.Status.Tasks)
	maps := total
	if v.Spec.Reduce != nil && total > 0 {
		maps--
	}
	var out []api.Task
	for _, part := range []struct {
		stage       tasks.Stage
		first, size int
	}{{tasks.StageMap, 0, maps}, {tasks.StageReduce, maps, total - maps}} {
		from := max(0, offset-part.first)
		n := min(part.size-from, limit-len(out))
		if from >= part.size || n <= 0 {
			continue
		}
		list, err := b.n.market.Tasks(ctx, id, part.stage, uint32(from), n)
		if err != nil {
			return nil, 0, jobError(err)
		}
		for _, t := range list {
			task := b.task(t)
			if len(task.Attempts) == 0 && v.Status.State.Over() {
				if err := b.pastAttempts(ctx, id, t.Ref, &task); err != nil {
					return nil, 0, err
				}
			}
			out = append(out, task)
		}
	}
	return out, total, nil
}

func (b *jobsBackend) task(t tasks.TaskStatus) api.Task {
	out := api.Task{Stage: stageNames[t.Ref.Stage], Index: t.Ref.Index, State: t.State.String(), Releases: int(t.Releases), Attempts: make([]api.Attempt, 0, len(t.Attempts))}
	if t.Result != nil {
		out.Output, out.Size = string(t.Result.Output), t.Result.Size
		for _, w := range t.Result.Workers {
			out.Workers = append(out.Workers, string(w))
		}
	}
	for _, a := range t.Attempts {
		out.Attempts = append(out.Attempts, api.Attempt{
			Worker: string(a.Worker), Lease: string(a.Lease), Replica: a.Replica, State: a.State.String(),
			RTTMs: ms(a.RTT), Started: a.Started, Ended: a.Ended, Reason: reasonOf(a.Reason),
		})
	}
	return out
}

// pastAttempts fills in who tried a task of a job whose history is on disk only:
// what receipts tell.
func (b *jobsBackend) pastAttempts(ctx context.Context, id tasks.JobID, ref tasks.Ref, t *api.Task) error {
	records, err := b.n.market.Logs(ctx, id, ref)
	if err != nil {
		return jobError(err)
	}
	for _, r := range records {
		state, why := tasks.AttemptAnswered, r.Receipt.Reason
		switch {
		case why != tasks.OK:
			state = tasks.AttemptFailed
		case r.Status == tasks.Accepted:
			state = tasks.AttemptAccepted
		case r.Status == tasks.Rejected:
			state, why = tasks.AttemptRejected, r.Verdict
		}
		t.Attempts = append(t.Attempts, api.Attempt{Worker: string(r.Receipt.Worker), Lease: string(r.Receipt.Lease),
			Replica: r.Receipt.Replica, State: state.String(), Ended: r.At, Reason: reasonOf(why)})
	}
	return nil
}

// Logs shows the ends of the logs that a task's attempts left.
func (b *jobsBackend) Logs(ctx context.Context, id tasks.JobID, ref tasks.Ref) ([]api.Log, error) {
	records, err := b.n.market.Logs(ctx, id, ref)
	if errors.Is(err, market.ErrNoJob) {
		if v, known := b.n.market.Job(ctx, id); known == nil && v.Published {
			return nil, api.NotFound("kith job shows its origin, which keeps them", "job %s was published: its logs are not here", id)
		}
	}
	if err != nil {
		return nil, jobError(err)
	}
	if len(records) == 0 {
		if err := b.hasTask(ctx, id, ref); err != nil {
			return nil, err
		}
	}
	out := make([]api.Log, 0, len(records))
	for _, r := range records {
		text := string(r.Receipt.Log)
		if r.Receipt.Reason != tasks.OK {
			text += fmt.Sprintf("[%v: %s]\n", r.Receipt.Reason, r.Receipt.Detail)
		}
		out = append(out, api.Log{Stage: stageNames[ref.Stage], Index: ref.Index, Replica: r.Receipt.Replica, Worker: string(r.Receipt.Worker), Text: text})
	}
	return out, nil
}

// hasTask fails when the job was split and has no such task.
func (b *jobsBackend) hasTask(ctx context.Context, id tasks.JobID, ref tasks.Ref) error {
	v, err := b.n.market.Job(ctx, id)
	if err != nil || v.Status.Tasks == 0 {
		return jobError(err)
	}
	maps := v.Status.Tasks
	if v.Spec.Reduce != nil {
		maps--
	}
	switch {
	case ref.Stage == tasks.StageReduce && v.Spec.Reduce == nil:
		return api.NotFound("", "job %s has no reduce", id)
	case ref.Stage == tasks.StageMap && ref.Index >= maps:
		return api.NotFound("", "job %s has no task %d: its map tasks are 0 to %d", id, ref.Index, maps-1)
	}
	return nil
}

// Results shows what the job came to.
func (b *jobsBackend) Results(ctx context.Context, id tasks.JobID) (api.Output, error) {
	v, err := b.n.market.Job(ctx, id)
	if err != nil {
		return api.Output{}, jobError(err)
	}
	out := api.Output{Job: string(id), State: b.show(v).State, CID: string(v.Status.Output), Size: v.Status.Size, Results: []api.TaskResult{}}
	if v.Status.Output != "" {
		root, err := parseCID(v.Status.Output)
		if err != nil {
			return out, err
		}
		if e, err := b.n.store.Stat(ctx, root, ""); err == nil {
			out.Dir = e.Type == storage.Folder
		}
	}
	if v.Published {
		return out, nil
	}
	for _, stage := range []tasks.Stage{tasks.StageMap, tasks.StageReduce} {
		list, err := b.n.market.Results(ctx, id, stage)
		if err != nil {
			return out, jobError(err)
		}
		for _, r := range list {
			if len(out.Results) == maxResults {
				return out, nil
			}
			t := api.TaskResult{Stage: stageNames[stage], Index: r.Ref.Index, CID: string(r.Output), Size: r.Size, Workers: []string{}}
			for _, w := range r.Workers {
				t.Workers = append(t.Workers, string(w))
			}
			out.Results = append(out.Results, t)
		}
	}
	return out, nil
}
