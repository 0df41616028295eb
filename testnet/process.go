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

	"github.com/kith-mesh/kith/api/client"
)

// process is one node: a child process with a home and ports of its own. It
// ends with its standard input, so that it can't outlive us.
type process struct {
	name   string
	home   string
	peers  string // host:port for other nodes
	api    string // host:port of its API
	id     string // peer ID, once up
	cmd    *exec.Cmd
	stdin  io.Closer
	log    *os.File
	exited chan struct{} // closed when the process has been reaped
	state  error         // how it ended; read after exited
	client *client.Client
}

// start runs `exe up` with args on the node's home.
func (p *process) start(exe string, args ...string) error {
	if err := os.MkdirAll(p.home, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(p.home, "log"))
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(p.peers)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	args = append([]string{"up", "--home", p.home, "--while-stdin", "--no-quic",
		"--listen", "/ip4/" + host + "/tcp/" + port, "--api-listen", p.api}, args...)
	p.cmd = exec.Command(exe, args...)
	p.cmd.Env = cleanEnv()
	p.cmd.Stdout, p.cmd.Stderr, p.log = log, log, log
	ownGroup(p.cmd) // Ctrl-C is for us; we end the nodes
	stdin, err := p.cmd.StdinPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), log.Close())
	}
	p.stdin, p.exited = stdin, make(chan struct{})
	go func() {
		p.state = p.cmd.Wait()
		close(p.exited)
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

// ready waits until the node answers that it is ready, and learns its peer ID.
func (p *process) ready(ctx context.Context) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = p.tryReady(ctx); last == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, p.state, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (last: %w)\n%s", p.name, ctx.Err(), last, p.tail())
		case <-tick.C:
		}
	}
}

func (p *process) tryReady(ctx context.Context) error {
	if p.client == nil {
		token, err := os.ReadFile(filepath.Join(p.home, "api.token"))
		if err != nil {
			return err
		}
		// api.json appears once the listener is there.
		b, err := os.ReadFile(filepath.Join(p.home, "api.json"))
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
		p.client = c
	}
	st, err := p.client.Status(ctx)
	if err != nil {
		return err
	}
	if !st.Ready {
		return errors.New(st.NotReady)
	}
	p.id = st.Peer
	return nil
}

// tail returns the end of the node's log, for an error.
func (p *process) tail() string {
	b, err := os.ReadFile(filepath.Join(p.home, "log"))
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return string(b)
}

// kill ends the process at once (SIGKILL) and waits for it.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.exited
	return nil
}

// stop closes the node's standard input, and kills it when it takes too long.
func (p *process) stop() error {
	if p.cmd == nil || p.exited == nil {
		return nil
	}
	p.stdin.Close() // the process may be gone: nothing to say then
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		if err := p.kill(); err != nil {
			return err
		}
	}
	return p.log.Close()
}

// stopAll ends every node and waits for all.
func stopAll(nodes []*process) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, p := range nodes {
		wg.Go(func() { errs[i] = p.stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
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
