// Package chaos kills real nodes with SIGKILL while client processes ask much of
// them, and then holds what the clients were told against what is left.
//
// It makes a mesh of processes of a binary built with the tag crashpoints. Nodes
// die at named points around every durable step and at random instants, and are
// started again; clients die too. The checker reads only what the clients wrote
// into their logs, each line synced before the next step. The package is for
// tests; it decides nothing about jobs.
package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/kith-mesh/kith/testnet"
)

// Run is one run of many kills.
type Run struct {
	Exe    string           // kith with crash points
	Client func() *exec.Cmd // a client process that calls ClientMain with what ClientEnv holds
	Dir    string           // for homes and logs
	Nodes  int              // default 5
	Hands  int              // of each client, of which each node has one; default 3
	Kills  int              // at least; none: only scenes
	Points []string         // each is to be died at Each times at least
	Each   int
	Scenes []string      // durable steps: begin with the scenes that they show in
	Skip   string        // a durable step that every node leaves out, for mutants
	Seed   uint64        // of what is killed when
	Bound  time.Duration // from the last start until all that was acknowledged is over; default 150 s and 100 ms a kill
	Out    io.Writer     // progress
}

// Report is what a run came to.
type Report struct {
	Checked
	Kills   int            // of nodes
	Outside int            // of those at a random instant, by a signal from outside
	Clients int            // kills of clients
	Hits    map[string]int // deaths by point
	Killing time.Duration  // how long nodes were killed
	Settled time.Duration  // from the last start until every client had ended
}

// points names what is before and after durable steps.
func points(steps []string) (out []string) {
	for _, s := range steps {
		out = append(out, s+":before", s+":after")
	}
	return out
}

// Run plays it. The error is one of the run itself; what the mesh did wrong are
// Faults.
func (c Run) Run(ctx context.Context) (report Report, err error) {
	if c.Nodes == 0 {
		c.Nodes = 5
	}
	if c.Hands == 0 {
		c.Hands = 3
	}
	if c.Bound == 0 {
		c.Bound = 150*time.Second + time.Duration(c.Kills)*100*time.Millisecond
	}
	nodes, err := testnet.NewProcesses(c.Dir, c.Nodes)
	if err != nil {
		return Report{}, err
	}
	r := &run{Run: c, nodes: nodes, rand: rand.New(rand.NewPCG(c.Seed, 1)), begin: time.Now()}
	r.aim = newAim(c.Points, c.Each, r.rand)
	r.report.Hits = r.aim.hits
	defer func() { _ = testnet.StopAll(nodes) }() // after an error: a run ends with all of them stopped
	for _, p := range nodes {
		p.Env = r.env()
	}
	// One slot each: work spreads.
	if err := testnet.StartMesh(ctx, c.Exe, nodes, func(int) []string { return []string{"--cpu", "1"} }); err != nil {
		return r.report, err
	}
	if r.ups, _, err = OpenLog(r.log(nodesLog)); err != nil {
		return r.report, err
	}
	defer func() { err = errors.Join(err, r.ups.Close()) }()
	for _, p := range nodes {
		if err := r.ups.Append(Entry{Op: Up, Node: p.ID}); err != nil {
			return r.report, err
		}
	}
	if len(c.Scenes) > 0 {
		err = r.scenes(ctx)
	}
	seen := c.Skip != "" && len(r.report.Faults)+len(r.report.Open) > 0
	if err == nil && !seen && c.Kills > 0 {
		err = r.play(ctx)
	}
	return r.report, err
}

type run struct {
	Run
	nodes []*testnet.Process

	mu     sync.Mutex
	rand   *rand.Rand
	report Report
	aim    *aim
	begin  time.Time
	faults []string
	ups    *Log // when each node was up
}

func (r *run) env(more ...string) []string {
	env := append([]string{"KITH_CRASH_FAST=2s"}, more...)
	if r.Skip != "" {
		env = append(env, "KITH_SKIP_COMMIT="+r.Skip)
	}
	return env
}

func (r *run) intn(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rand.IntN(n)
}

func (r *run) millis(from, to int) time.Duration {
	return time.Duration(from+r.intn(to-from)) * time.Millisecond
}

// play lets clients work and nodes die, then lets all settle and checks.
func (r *run) play(ctx context.Context) error {
	clients := make([]*process, r.Nodes)
	for i := range clients {
		var err error
		if clients[i], err = r.newClient(i); err != nil {
			return err
		}
	}
	begin := time.Now()
	killing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	each := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(killing); err != nil && killing.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	for i, p := range r.nodes {
		each(p.Name, func(ctx context.Context) error { return r.lives(ctx, i, p, func() { cancel(errEnough) }) })
	}
	each("clients", func(ctx context.Context) error { return r.killClients(ctx, clients) })
	each("joins", func(ctx context.Context) error { return r.joins(ctx) })
	if r.Skip != "" {
		each("watch", func(ctx context.Context) error { return r.watch(ctx, func() { cancel(errSeen) }) })
	}
	wg.Wait()
	r.report.Killing = time.Since(begin)
	err := context.Cause(killing)
	if errors.Is(err, errEnough) {
		return r.settle(ctx, clients)
	}
	for _, c := range clients {
		c.kill()
	}
	if errors.Is(err, errSeen) {
		return nil
	}
	return err
}

// Why killing ended.
var (
	errEnough = errors.New("killed enough")
	errSeen   = errors.New("a mutant was seen")
)

// watch checks the logs while they are written, until they show a fault: what
// is open then says nothing.
func (r *run) watch(ctx context.Context, seen func()) error {
	for wait(ctx, watchEvery); ctx.Err() == nil; wait(ctx, watchEvery) {
		logs, err := r.logs()
		if err != nil {
			return err
		}
		if r.check(logs); len(r.report.Faults) > 0 {
			r.report.Open = nil
			seen()
			return nil
		}
	}
	return nil
}

const watchEvery = 2 * time.Second

// nodesLog is ours: when each node was started and had ended.
const nodesLog = "nodes"

// logs reads what was written so far.
func (r *run) logs() (map[string][]Entry, error) {
	logs := map[string][]Entry{}
	names := []string{"joins"}
	for i := range r.Nodes {
		names = append(names, fmt.Sprintf("client%d", i))
	}
	for _, name := range append(names, nodesLog, scenesLog) {
		log, err := ReadLog(r.log(name))
		if errors.Is(err, os.ErrNotExist) && name == scenesLog {
			continue
		}
		if err != nil {
			return nil, err
		}
		logs[name] = log
	}
	return logs, nil
}

// check holds the logs against each other.
func (r *run) check(logs map[string][]Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes := logs[nodesLog]
	delete(logs, nodesLog)
	r.report.Checked = Check(logs, nodes)
	r.report.Faults = append(r.faults, r.report.Faults...)
}

// settle starts every node for good, waits until the clients have what they were
// promised, and checks.
func (r *run) settle(ctx context.Context, clients []*process) error {
	for _, p := range r.nodes {
		if err := errors.Join(r.up(p, ""), p.Ready(ctx)); err != nil {
			return err
		}
	}
	begin := time.Now()
	bound, cancel := context.WithTimeout(ctx, r.Bound)
	defer cancel()
	for _, c := range clients {
		c.stdin.Close() // the word to finish; one that was killed just now is started again
	}
	for i, c := range clients {
		select {
		case <-c.exited:
			if c.state != nil {
				r.fault("client %d ended with %v: %s", i, c.state, c.tail())
			}
		case <-bound.Done():
			c.kill()
		}
	}
	r.report.Settled = time.Since(begin)
	for _, p := range r.nodes {
		select {
		case <-p.Exited():
			r.fault("%s ended by itself: %v\n%s", p.Name, p.State(), p.Tail())
		default:
		}
	}
	if err := testnet.StopAll(r.nodes); err != nil {
		return err
	}
	logs, err := r.logs()
	if err != nil {
		return err
	}
	r.check(logs)
	for _, m := range r.aim.missing() {
		r.report.Open = append(r.report.Open, "points that were not died at often enough: "+m)
	}
	return nil
}

func (r *run) log(name string) string { return filepath.Join(r.Dir, name+".log") }

func (r *run) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// process is a client's.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	out    string
	exited chan struct{}
	state  error
}

func (r *run) newClient(number int) (*process, error) {
	node := r.nodes[number]
	cfg, err := json.Marshal(ClientConfig{Number: number, Log: r.log(fmt.Sprintf("client%d", number)), API: node.API, Home: node.Home,
		Seed: r.Seed + uint64(number)<<32, Hands: r.Hands, Owner: number == r.Nodes-1, Patience: r.Bound})
	if err != nil {
		return nil, err
	}
	p := &process{cmd: r.Client(), exited: make(chan struct{}), out: r.log(fmt.Sprintf("client%d.out", number))}
	p.cmd.Env = append(os.Environ(), ClientEnv+"="+string(cfg))
	f, err := os.OpenFile(p.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start client %d: %w", number, err)
	}
	go func() {
		p.state = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

func (p *process) tail() string {
	b, err := os.ReadFile(p.out)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// killClients kills one now and then, and starts it again.
func (r *run) killClients(ctx context.Context, clients []*process) error {
	for {
		wait(ctx, r.millis(3000, 8000))
		if ctx.Err() != nil {
			return nil
		}
		i := r.intn(len(clients))
		select {
		case <-clients[i].exited:
			return fmt.Errorf("client %d ended with %v: %s", i, clients[i].state, clients[i].tail())
		default:
		}
		clients[i].kill()
		p, err := r.newClient(i)
		if err != nil {
			return err
		}
		clients[i] = p
		r.report.Clients++
	}
}
