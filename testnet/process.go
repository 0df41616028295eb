package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
)

// Process is one node: a child process with a home and ports of its own. It
// ends with its standard input, so that it can't outlive us. One goroutine uses
// it at a time.
type Process struct {
	Name   string
	Home   string
	Peers  string         // host:port for other nodes
	API    string         // host:port of its API
	Env    []string       // added to the environment, which has no KITH_* of ours
	ID     string         // peer ID, once ready
	Client *client.Client // once ready

	cmd    *exec.Cmd
	stdin  io.Closer
	log    *os.File
	exited chan struct{} // closed when the process has been reaped
	state  error         // how it ended; read after exited
}

// NewProcesses makes n nodes, not started, named node1 and so on, with homes
// under dir and loopback ports that are free now.
func NewProcesses(dir string, n int) ([]*Process, error) {
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, err
	}
	nodes := make([]*Process, n)
	for i := range nodes {
		name := fmt.Sprintf("node%d", i+1)
		nodes[i] = &Process{Name: name, Home: filepath.Join(dir, name), Peers: ports[2*i], API: ports[2*i+1]}
	}
	return nodes, nil
}

// Start runs `exe up` with args on the node's home; also again, after Kill or
// Stop. The node's output goes on at the end of the file log in its home.
func (p *Process) Start(exe string, args ...string) error {
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		return err
	}
	// Where the last process answered says nothing of this one.
	if err := os.Remove(filepath.Join(p.Home, "api.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(filepath.Join(p.Home, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(p.Peers)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	args = append([]string{"up", "--home", p.Home, "--while-stdin", "--no-quic",
		"--listen", "/ip4/" + host + "/tcp/" + port, "--api-listen", p.API}, args...)
	p.cmd = exec.Command(exe, args...)
	p.cmd.Env = append(cleanEnv(), p.Env...)
	p.cmd.Stdout, p.cmd.Stderr, p.log, p.Client = log, log, log, nil
	ownGroup(p.cmd) // Ctrl-C is for us; we end the nodes
	stdin, err := p.cmd.StdinPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.Name, err), log.Close())
	}
	cmd, exited := p.cmd, make(chan struct{})
	p.stdin, p.exited = stdin, exited
	go func() {
		p.state = cmd.Wait()
		close(exited)
	}()
	return nil
}

// cleanEnv is the environment without what would configure a node.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "KITH_") && !strings.HasPrefix(e, "XDG_") {
			env = append(env, e)
		}
	}
	return env
}

// Ready waits until the node answers that it is ready, and learns its peer ID.
func (p *Process) Ready(ctx context.Context) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = p.tryReady(ctx); last == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.Name, p.state, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (last: %w)\n%s", p.Name, ctx.Err(), last, p.Tail())
		case <-tick.C:
		}
	}
}

func (p *Process) tryReady(ctx context.Context) error {
	if p.Client == nil {
		token, err := os.ReadFile(filepath.Join(p.Home, "api.token"))
		if err != nil {
			return err
		}
		// api.json appears once the listener is there.
		b, err := os.ReadFile(filepath.Join(p.Home, "api.json"))
		if err != nil {
			return err
		}
		var at struct{ Address string }
		if err := json.Unmarshal(b, &at); err != nil {
			return err
		}
		c, err := client.New(at.Address, strings.TrimSpace(string(token)))
		if err != nil {
			return err
		}
		p.Client = c
	}
	st, err := p.Client.Status(ctx)
	if err != nil {
		return err
	}
	if !st.Ready {
		return errors.New(st.NotReady)
	}
	p.ID = st.Peer
	return nil
}

// Tail returns the end of the node's log, for an error.
func (p *Process) Tail() string {
	b, err := os.ReadFile(filepath.Join(p.Home, "log"))
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return string(b)
}

// PID is the operating system's number of the process; 0 before Start.
func (p *Process) PID() int {
	if p.cmd == nil || p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Exited is closed when the process that was started last has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// State is how the process ended (nil: with exit code 0); after Exited.
func (p *Process) State() error { return p.state }

// Kill ends the process at once (SIGKILL) and waits for it. Start works again.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-p.exited
	return p.release()
}

// Stop closes the node's standard input, which ends it in order, and kills it
// when that takes more than 10 seconds.
func (p *Process) Stop() error {
	if p.cmd == nil || p.exited == nil {
		return nil
	}
	p.stdin.Close() // the process may be gone: nothing to say then
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		if err := p.Kill(); err != nil {
			return err
		}
	}
	return p.release()
}

// release lets go of what a process that ended had.
func (p *Process) release() error {
	if p.Client != nil {
		p.Client.Close()
	}
	p.stdin.Close() // closed by Wait already
	if err := p.log.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// StopAll ends every node and waits for all.
func StopAll(nodes []*Process) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, p := range nodes {
		wg.Go(func() { errs[i] = p.Stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// StartMesh is StartAll and WaitMet: for meshes small enough that everyone is
// everyone's neighbour.
func StartMesh(ctx context.Context, exe string, nodes []*Process, args func(i int) []string) error {
	if err := StartAll(ctx, exe, nodes, args); err != nil {
		return err
	}
	return WaitMet(ctx, nodes)
}

// StartAll starts the first node with a new mesh and the others with its invite,
// and waits until each serves its API. args gives further arguments of the i-th
// node; nil: none.
func StartAll(ctx context.Context, exe string, nodes []*Process, args func(i int) []string) error {
	if args == nil {
		args = func(int) []string { return nil }
	}
	if err := nodes[0].Start(exe, append(args(0), "--init")...); err != nil {
		return err
	}
	if err := nodes[0].Ready(ctx); err != nil {
		return err
	}
	if len(nodes) == 1 {
		return nil
	}
	invite, err := nodes[0].Client.CreateInvite(ctx, api.InviteRequest{Uses: len(nodes) - 1, ExpiresIn: "10m", Local: true, Name: "testnet"})
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	for i, p := range nodes[1:] {
		if err := p.Start(exe, append(args(i+1), "--join", invite.Line)...); err != nil {
			return err
		}
	}
	for _, p := range nodes[1:] {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// WaitMet waits until each node is connected with all the others and has
// measured its round trip to them.
func WaitMet(ctx context.Context, nodes []*Process) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		met, err := allMet(ctx, nodes)
		if err != nil {
			return err
		}
		if met {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not all nodes met: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func allMet(ctx context.Context, nodes []*Process) (bool, error) {
	for _, p := range nodes {
		peers, err := p.Client.Peers(ctx)
		if err != nil {
			return false, fmt.Errorf("peers of %s: %w", p.Name, err)
		}
		met := 0
		for _, q := range peers {
			if q.Connected && q.RTTMs > 0 {
				met++
			}
		}
		if met < len(nodes)-1 {
			return false, nil
		}
	}
	return true, nil
}

// freePorts asks the system for n loopback TCP ports that are free now. All are
// held until all are known, so no two are the same.
func freePorts(n int) ([]string, error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	out := make([]string, n)
	for i := range out {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, l)
		out[i] = l.Addr().String()
	}
	return out, nil
}

// removeAll removes the demo's folder; a file that vanishes meanwhile is fine.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
