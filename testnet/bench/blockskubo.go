package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/testnet"
)

// daemon is a node as its user has it: a process, and commands that ask it.
type daemon struct {
	exe      string
	env      []string // says which node the commands mean
	pid      func() int
	commands float64 // CPU seconds of its commands, of which none run
}

func (d *daemon) run(ctx context.Context, in io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.exe, args...)
	cmd.Env = append(os.Environ(), d.env...)
	cmd.Stdin = in
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if p := cmd.ProcessState; p != nil {
		d.commands += (p.UserTime() + p.SystemTime()).Seconds()
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(d.exe), args[0], err, bytes.TrimSpace(failed.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// get runs a command that gets what another node has, and says what that costs
// the command and both nodes; the cost is 0 on systems that have no /proc.
func (d *daemon) get(ctx context.Context, from *daemon, args ...string) (moved, error) {
	used := func() (float64, bool) {
		a, aOK := cpuOf(d.pid())
		b, bOK := cpuOf(from.pid())
		return d.commands + a + b, aOK && bOK
	}
	before, _ := used()
	begun := time.Now()
	if _, err := d.run(ctx, nil, args...); err != nil {
		return moved{}, err
	}
	m := moved{seconds: time.Since(begun).Seconds()}
	if after, ok := used(); ok {
		m.cpu = after - before
	}
	return m, nil
}

// kuboNode is a stock Kubo daemon on loopback, TCP alone, that knows nobody and
// serves and fetches as its defaults say.
type kuboNode struct {
	daemon
	cmd  *exec.Cmd
	addr string
}

// startKubo makes a repository with Kubo's defaults, but for what reaches beyond
// this machine, and starts the daemon.
func startKubo(ctx context.Context, exe, repo string) (*kuboNode, error) {
	k := &kuboNode{daemon: daemon{exe: exe, env: []string{"IPFS_PATH=" + repo}}}
	k.pid = func() int { return k.cmd.Process.Pid }
	if _, err := k.run(ctx, nil, "init"); err != nil {
		return nil, err
	}
	for _, c := range [][2]string{
		{"Bootstrap", `[]`}, {"AutoConf.Enabled", `false`}, {"Routing.Type", `"none"`}, {"DNS.Resolvers", `{}`},
		{"Routing.DelegatedRouters", `[]`}, {"Ipns.DelegatedPublishers", `[]`},
		{"Discovery.MDNS.Enabled", `false`}, {"Swarm.DisableNatPortMap", `true`}, {"AutoTLS.Enabled", `false`},
		{"Addresses.Swarm", `["/ip4/127.0.0.1/tcp/0"]`}, {"Addresses.API", `"/ip4/127.0.0.1/tcp/0"`}, {"Addresses.Gateway", `[]`},
	} {
		if _, err := k.run(ctx, nil, "config", "--json", c[0], c[1]); err != nil {
			return nil, err
		}
	}
	k.cmd = exec.CommandContext(ctx, exe, "daemon")
	k.cmd.Cancel = func() error { return k.cmd.Process.Signal(syscall.SIGTERM) }
	k.cmd.WaitDelay = 20 * time.Second
	k.cmd.Env = append(os.Environ(), k.env...)
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var failed bytes.Buffer
	k.cmd.Stderr = &failed
	if err := k.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Daemon is ready") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the daemon
	addrs, err := k.run(ctx, nil, "id", "-f", "<addrs>")
	if err == nil {
		if k.addr = strings.Fields(addrs + " none")[0]; !strings.HasPrefix(k.addr, "/ip4/127.0.0.1/tcp/") {
			err = fmt.Errorf("the daemon listens on %q", addrs)
		}
	}
	if err != nil {
		stopped := k.stop() // nothing is written to failed any more
		return nil, errors.Join(fmt.Errorf("start Kubo: %w: %s", err, bytes.TrimSpace(failed.Bytes())), stopped)
	}
	return k, nil
}

func (k *kuboNode) stop() error {
	err := k.cmd.Process.Signal(syscall.SIGTERM)
	var exit *exec.ExitError
	if waited := k.cmd.Wait(); waited != nil && !errors.As(waited, &exit) {
		err = errors.Join(err, waited)
	}
	return err
}

// cpuOf is what another process used, in seconds.
func cpuOf(pid int) (seconds float64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The fields after the name, which may hold anything, in hundredths.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0, false
	}
	var user, system float64
	_, err = fmt.Sscan(f[11]+" "+f[12], &user, &system)
	return (user + system) / 100, err == nil
}

// runKubo measures (c): `ipfs get` of a file from one Kubo to another, and `kith
// get` of the same file from one node of ours to another: both to the taker's
// store, durable, and on to a file.
func runKubo(ctx context.Context, o Options, z blocksSizes, emit func(Line)) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "kith-bench-")
	if err != nil {
		return fmt.Errorf("make the bench's folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	nodes, err := testnet.NewProcesses(dir, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, testnet.StopAll(nodes)) }()
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := testnet.StartMesh(starting, o.Exe, nodes, nil); err != nil {
		return err
	}
	var ours []*daemon
	for _, p := range nodes {
		ours = append(ours, &daemon{exe: o.Exe, env: []string{"KITH_HOME=" + p.Home}, pid: p.PID})
	}
	var theirs []*kuboNode
	defer func() {
		for _, k := range theirs {
			err = errors.Join(err, k.stop())
		}
	}()
	for _, name := range []string{"kubo-giver", "kubo-taker"} {
		k, err := startKubo(ctx, o.Kubo, filepath.Join(dir, name))
		if err != nil {
			return err
		}
		theirs = append(theirs, k)
	}
	from, to := theirs[0], theirs[1]
	size := z.large
	root, err := from.run(ctx, io.LimitReader(noise(), size), "add", "-Q", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576")
	if err != nil {
		return err
	}
	added, err := nodes[0].Client.AddFile(ctx, io.LimitReader(noise(), size), size, api.AddOptions{Pin: true, Chunk: 1 << 20})
	if err != nil {
		return err
	}
	if added.CID != root {
		return fmt.Errorf("the same file is %s for Kubo and %s for us", root, added.CID)
	}
	if _, err := to.run(ctx, nil, "swarm", "connect", from.addr); err != nil {
		return err
	}
	kubo, kith := &series{size: size}, &series{size: size}
	file, warm := filepath.Join(dir, "got"), filepath.Join(dir, "warm")
	// Both write the file twice: into a store and out of it.
	err = interleave(o, max(z.rounds-2, 1), []passage{
		{to: kubo, run: func() (m moved, err error) {
			if err := warmCache(warm, 2*size); err != nil {
				return m, err
			}
			if m, err = to.get(ctx, &from.daemon, "get", "--progress=false", "-o", file, root); err != nil {
				return m, err
			}
			_, err = to.run(ctx, nil, "repo", "gc", "-q")
			return m, errors.Join(err, checkFile(file, size))
		}},
		{to: kith, run: func() (m moved, err error) {
			if err := warmCache(warm, 2*size); err != nil {
				return m, err
			}
			if m, err = ours[1].get(ctx, ours[0], "get", root, "--out", file); err != nil {
				return m, err
			}
			gone, err := nodes[1].Client.GC(ctx)
			if err == nil && gone.Bytes < size {
				err = fmt.Errorf("the taker gave back %d bytes of %d: the next passage would not fetch them", gone.Bytes, size)
			}
			return m, errors.Join(err, checkFile(file, size))
		}},
	})
	if err != nil {
		return err
	}
	version, err := to.run(ctx, nil, "version", "-n")
	if err != nil {
		return err
	}
	l := Line{Bench: "blocks", Case: "kubo/1GiB", Value: kith.speed(), Unit: "MiB/s"}.With("ipfs get of Kubo "+version, kubo.speed()).RatioAtLeast(3)
	l.Note = "kith get against ipfs get, both into the taker's store and on to a file; chunks of 1 MiB, TCP and TLS; stores synced, files not"
	emit(l)
	if kubo.cost() > 0 {
		emit(cpuLine("kubo/1GiB", kith, kubo, "ipfs get of Kubo "+version))
	}
	return nil
}

// checkFile compares a file with what was sent, and removes it.
func checkFile(file string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	want, got := io.LimitReader(noise(), size), bufio.NewReaderSize(f, 1<<20)
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(want, a)
		m, errGot := io.ReadFull(got, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("%s is not what was sent", file)
		}
		if err == io.EOF && errGot == io.EOF {
			return os.Remove(file)
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return err
		}
	}
}
