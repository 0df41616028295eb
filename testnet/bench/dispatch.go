package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet"
)

// noop is a WASI command that does nothing, byte by byte: one function of no
// parameters, no results and an empty body, exported as _start.
var noop = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // types: one, func() ()
	"\x03\x02\x01\x00" + // functions: one, of type 0
	"\x07\x0a\x01\x06_start\x00\x00" + // exports: _start, function 0
	"\x0a\x04\x01\x02\x00\x0b") // code: one body of 2 bytes, no locals, end

const dispatchWorkers = 4

// dispatchSize is how much of each case is run.
type dispatchSize struct {
	first  int // jobs of one task
	rounds int
	tasks  int           // of a round
	limit  time.Duration // a round of each limit
	guest  int           // tasks of the Go guest
	many   int           // tasks of the job whose memory is looked at
}

var dispatchFull = dispatchSize{first: 31, rounds: 3, tasks: 20_000, limit: 2 * time.Second, guest: 4_000, many: 100_000}

var dispatch = Bench{
	Name:  "dispatch",
	Short: fmt.Sprintf("tasks that do nothing, through the whole path, durable, at %d worker processes", dispatchWorkers),
	Cases: []string{"first-result/p50", "sustained", "sustained-go-guest", "memory"},
	Run: func(ctx context.Context, o Options, emit func(Line)) error {
		return runDispatch(ctx, o, dispatchFull, emit)
	},
}

// desk is an origin that runs nothing itself, and its workers.
type desk struct {
	o     Options
	size  dispatchSize
	nodes []*testnet.Process // the origin first
	empty string             // CID of no bytes: what each task leaves
}

func runDispatch(ctx context.Context, o Options, size dispatchSize, emit func(Line)) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "kith-bench-")
	if err != nil {
		return fmt.Errorf("make the bench's folder: %w", err)
	}
	nodes, err := testnet.NewProcesses(dir, 1+dispatchWorkers)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, testnet.StopAll(nodes), os.RemoveAll(dir)) }()
	o.say("starting an origin and %d workers of one slot", dispatchWorkers)
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := testnet.StartMesh(starting, o.Exe, nodes, func(int) []string { return []string{"--cpu", "1"} }); err != nil {
		return err
	}
	if _, err := nodes[0].Client.Pause(ctx, 0); err != nil {
		return fmt.Errorf("pause the origin's own work: %w", err)
	}
	empty, err := storage.SumBytes(nil)
	if err != nil {
		return err
	}
	d := &desk{o: o, size: size, nodes: nodes, empty: empty.String()}
	program, err := d.upload(ctx, noop)
	if err != nil {
		return err
	}
	if _, err := d.job(ctx, program, 16*dispatchWorkers, nil); err != nil { // every worker has it compiled then
		return err
	}
	for _, c := range []struct {
		name string
		run  func(context.Context, tasks.CID, string, func(Line)) error
	}{{"first-result/p50", d.first}, {"sustained", func(ctx context.Context, p tasks.CID, name string, emit func(Line)) error {
		return d.sustained(ctx, p, dir, name, emit)
	}}, {"sustained-go-guest", d.goGuest}, {"memory", d.memory}} {
		if !o.Wants(c.name) {
			continue
		}
		if err := c.run(ctx, program, c.name, emit); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (d *desk) line(name string, value float64, unit string) Line {
	return Line{Bench: "dispatch", Case: name, Value: value, Unit: unit}
}

func (d *desk) upload(ctx context.Context, program []byte) (tasks.CID, error) {
	root, err := d.nodes[0].Client.AddFile(ctx, bytes.NewReader(program), int64(len(program)), api.AddOptions{Audience: api.AudienceJob})
	if err != nil {
		return "", fmt.Errorf("upload the program: %w", err)
	}
	return tasks.CID(root.CID), nil
}

// job runs n tasks, calls look now and then, and checks all that came of it: n
// results, each of no bytes, each accepted of one worker and counted once.
func (d *desk) job(ctx context.Context, program tasks.CID, n int, look func(api.Job) error) (api.Job, error) {
	c := d.nodes[0].Client
	id, err := c.Submit(ctx, tasks.Spec{Name: "no-op", Kind: tasks.KindWasm, Program: program, Tasks: uint32(n), Retention: time.Hour}.WithDefaults())
	if err != nil {
		return api.Job{}, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var j api.Job
	for !j.Over() {
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-tick.C:
		}
		if j, err = c.Job(ctx, string(id)); err != nil {
			return j, err
		}
		if look != nil {
			if err := look(j); err != nil {
				return j, err
			}
		}
	}
	if j.State != "done" {
		return j, fmt.Errorf("job %s is %s: %s", id, j.State, j.Detail)
	}
	return j, d.check(ctx, j, n)
}

func (d *desk) check(ctx context.Context, j api.Job, n int) error {
	accepted := 0
	for _, w := range j.Workers {
		accepted += w.Accepted
	}
	if j.Tasks != n || j.Done != n || accepted != n {
		return fmt.Errorf("job %s of %d tasks says %d, %d done, %d receipts accepted", j.ID, n, j.Tasks, j.Done, accepted)
	}
	list, err := d.nodes[0].Client.AllTasks(ctx, j.ID)
	if err != nil {
		return err
	}
	seen := make([]bool, n)
	for _, t := range list {
		if int(t.Index) >= n || seen[t.Index] || t.State != "decided" || t.Output != d.empty || len(t.Workers) != 1 {
			return fmt.Errorf("task %d of job %s: %s, output %q of %d workers", t.Index, j.ID, t.State, t.Output, len(t.Workers))
		}
		seen[t.Index] = true
	}
	entries := 0
	if n > 1 {
		err = d.nodes[0].Client.List(ctx, tasks.CID(j.Output), "", false, func(e api.Entry) error {
			if e.Path != "" { // not the folder itself
				entries++
			}
			return nil
		})
	}
	if err != nil || len(list) != n || n > 1 && entries != n {
		return fmt.Errorf("job %s of %d tasks has %d results and %d entries in its output, %v", j.ID, n, len(list), entries, err)
	}
	return nil
}

// first is the time from asking for a job of one task until its result is
// decided, as a subscriber hears it, while the mesh has nothing else to do.
func (d *desk) first(ctx context.Context, program tasks.CID, name string, emit func(Line)) error {
	d.o.say("%s: %d jobs of one task", name, d.size.first)
	c := d.nodes[0].Client
	ctx, stop := context.WithCancel(ctx)
	var mu sync.Mutex
	heard := map[string]time.Time{}
	news := make(chan struct{}, 1)
	var lost error
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		err := c.Events(ctx, "", 0, func(e api.Event) error {
			if e.Kind != api.EventTask || e.State != "done" {
				return nil
			}
			mu.Lock()
			if _, ok := heard[e.Job]; !ok {
				heard[e.Job] = time.Now()
			}
			mu.Unlock()
			select {
			case news <- struct{}{}:
			default:
			}
			return nil
		})
		mu.Lock()
		lost = fmt.Errorf("the node's events ended: %w", errors.Join(err, ctx.Err()))
		mu.Unlock()
		close(news)
	}()
	defer func() { stop(); <-listening }()
	wait := func(id tasks.JobID) (time.Time, error) {
		for {
			mu.Lock()
			at, ok := heard[string(id)]
			err := lost
			mu.Unlock()
			if ok || err != nil {
				return at, err
			}
			<-news
		}
	}
	spec := tasks.Spec{Name: "no-op", Kind: tasks.KindWasm, Program: program, Tasks: 1, Retention: time.Hour}.WithDefaults()
	idle := time.NewTicker(300 * time.Millisecond)
	defer idle.Stop()
	var took []float64
	for i := range d.size.first + 2 { // the first two open what stays open
		select {
		case <-idle.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		begin := time.Now()
		id, err := c.Submit(ctx, spec)
		if err != nil {
			return err
		}
		at, err := wait(id)
		if err != nil {
			return err
		}
		if i >= 2 {
			took = append(took, at.Sub(begin).Seconds()*1000)
		}
	}
	l := d.line(name, Median(took), "ms").ValueAtMost(50)
	l.Note = fmt.Sprintf("%d jobs, each after a pause; by the API, to the event that the task is decided", d.size.first)
	emit(l)
	return nil
}

// sustained is the rate of whole jobs: from the commit of the submission to that
// of the output, which is one folder of all results. Beside it, turn by turn, the
// two limits: calls over a stream, and rows in group commits.
func (d *desk) sustained(ctx context.Context, program tasks.CID, dir, name string, emit func(Line)) (err error) {
	stream, err := startEcho(ctx, d.o.Exe)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.close()) }()
	rows, err := openRows(filepath.Join(dir, "rows.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.close()) }()
	var rate, calls, commits []float64
	for i := range d.size.rounds {
		d.o.say("%s: round %d of %d: the limits, then %d tasks", name, i+1, d.size.rounds, d.size.tasks)
		n, err := stream.rate(d.size.limit)
		if err != nil {
			return err
		}
		calls = append(calls, n)
		if n, err = rows.rate(ctx, d.size.limit); err != nil {
			return err
		}
		commits = append(commits, n)
		j, err := d.job(ctx, program, d.size.tasks, nil)
		if err != nil {
			return err
		}
		rate = append(rate, float64(d.size.tasks)/j.Finished.Sub(j.Created).Seconds())
	}
	note := fmt.Sprintf("%d rounds of %d tasks, the output's folder included; %d cores, workers of one slot", d.size.rounds, d.size.tasks, runtime.NumCPU())
	l := d.line(name, Median(rate), "tasks/s").ValueAtLeast(3000)
	l.Note = note
	emit(l)
	l = d.line(name, Median(rate), "tasks/s").With("stream-rpc", Median(calls))
	l.Note = fmt.Sprintf("calls of %d B over one kept-open stream between two processes, %d at once", echoBytes, echoAtOnce)
	emit(l)
	l = d.line(name, Median(rate), "tasks/s").With("group-commit", Median(commits))
	l.Note = fmt.Sprintf("rows of %d B, each durable when its writer goes on, %d writers", rowBytes, rowWriters)
	emit(l)
	return nil
}

// goGuest is the rate of a program that Go compiled, whose runtime starts anew for
// each task.
func (d *desk) goGuest(ctx context.Context, _ tasks.CID, name string, emit func(Line)) error {
	module, err := examples.Program("wordcount")
	if err != nil {
		return err
	}
	program, err := d.upload(ctx, module)
	if err != nil {
		return err
	}
	if _, err := d.job(ctx, program, 16*dispatchWorkers, nil); err != nil {
		return err
	}
	d.o.say("%s: %d tasks", name, d.size.guest)
	j, err := d.job(ctx, program, d.size.guest, nil)
	if err != nil {
		return err
	}
	l := d.line(name, float64(d.size.guest)/j.Finished.Sub(j.Created).Seconds(), "tasks/s")
	l.Note = "the example wordcount over nothing"
	emit(l)
	return nil
}

// memory is what each process has resident in the last tenth of one large job's
// tasks, beside the second tenth. It is the second such job: at thousands of tasks
// a second the second tenth of the first is over before heaps have their size.
func (d *desk) memory(ctx context.Context, program tasks.CID, name string, emit func(Line)) error {
	d.o.say("%s: two jobs of %d tasks", name, d.size.many)
	first, err := d.resident(ctx, program)
	if err != nil {
		return err
	}
	r, err := d.resident(ctx, program)
	if err != nil {
		return err
	}
	worst := Line{}
	var said []string
	for i, p := range d.nodes {
		l := d.line(name, Median(r.late[i]), "MB").With("second tenth", Median(r.early[i]))
		if worst.Case == "" || math.Abs(l.Ratio-1) > math.Abs(worst.Ratio-1) {
			worst = l
		}
		said = append(said, fmt.Sprintf("%s %.0f after %.0f", p.Name, l.Value, l.AgainstValue))
	}
	worst = worst.RatioWithin(0.1)
	worst.Note = fmt.Sprintf("resident, the process that changed most; %s, an origin first, which then assembled the output at up to %.0f; %.0f tasks/s; in the job before, the origin %.0f after %.0f",
		strings.Join(said, ", "), slices.Max(append(r.done[0], 0)), r.rate, Median(first.late[0]), Median(first.early[0]))
	emit(worst)
	return nil
}

// residents are what each process had resident, in MB, as one job went on.
type residents struct {
	early, late, done [][]float64 // the second tenth, the last, and after the last task
	rate              float64     // tasks a second
}

func (d *desk) resident(ctx context.Context, program tasks.CID) (r residents, err error) {
	n := len(d.nodes)
	r = residents{early: make([][]float64, n), late: make([][]float64, n), done: make([][]float64, n)}
	j, err := d.job(ctx, program, d.size.many, func(j api.Job) error {
		var into [][]float64
		switch {
		case 10*j.Done >= d.size.many && 10*j.Done < 2*d.size.many:
			into = r.early
		case j.Done == d.size.many:
			into = r.done
		case 10*j.Done >= 9*d.size.many:
			into = r.late
		default:
			return nil
		}
		for i, p := range d.nodes {
			u, err := use(ctx, p)
			if err != nil {
				return err
			}
			into[i] = append(into[i], u.rss/1e6)
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	if len(r.early[0]) == 0 || len(r.late[0]) == 0 {
		return r, errors.New("the job went by too fast to look at")
	}
	r.rate = float64(d.size.many) / j.Finished.Sub(j.Created).Seconds()
	return r, nil
}
