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
)

// kuboNode is a stock Kubo daemon on loopback, TCP alone, that knows nobody and
// serves and fetches as its defaults say.
type kuboNode struct {
	exe, repo string
	cmd       *exec.Cmd
	addr      string
	commands  float64 // CPU seconds of its commands, of which none run
}

func (k *kuboNode) run(ctx context.Context, in io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.exe, args...)
	cmd.Env = append(os.Environ(), "IPFS_PATH="+k.repo)
	cmd.Stdin = in
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if p := cmd.ProcessState; p != nil {
		k.commands += (p.UserTime() + p.SystemTime()).Seconds()
	}
	if err != nil {
		return "", fmt.Errorf("ipfs %s: %w: %s", args[0], err, bytes.TrimSpace(failed.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// startKubo makes a repository with Kubo's defaults, but for what reaches beyond
// this machine, and starts the daemon.
func startKubo(ctx context.Context, exe, repo string) (*kuboNode, error) {
	k := &kuboNode{exe: exe, repo: repo}
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
	k.cmd.Env = append(os.Environ(), "IPFS_PATH="+repo)
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
		return nil, errors.Join(fmt.Errorf("start Kubo: %w: %s", err, bytes.TrimSpace(failed.Bytes())), k.stop())
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

// get is `ipfs get` of what another node has, and what that costs the command and
// both nodes; the cost is 0 on systems that have no /proc.
func (k *kuboNode) get(ctx context.Context, root, file string, from *kuboNode) (moved, error) {
	used := func() (float64, bool) {
		a, aOK := cpuOf(k.cmd.Process.Pid)
		b, bOK := cpuOf(from.cmd.Process.Pid)
		return k.commands + a + b, aOK && bOK
	}
	before, _ := used()
	begun := time.Now()
	if _, err := k.run(ctx, nil, "get", "--progress=false", "-o", file, root); err != nil {
		return moved{}, err
	}
	m := moved{seconds: time.Since(begun).Seconds()}
	if after, ok := used(); ok {
		m.cpu = after - before
	}
	return m, nil
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

// runKubo measures (c): `ipfs get` of a file from one Kubo to another, and ours
// of the same file: both to the taker's store, durable, and on to a file.
func runKubo(ctx context.Context, o Options, z blocksSizes, emit func(Line)) (err error) {
	size := z.large
	s, giver, taker, root, err := couple(ctx, o, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var nodes []*kuboNode
	defer func() {
		for _, k := range nodes {
			err = errors.Join(err, k.stop())
		}
	}()
	for _, name := range []string{"kubo-giver", "kubo-taker"} {
		k, err := startKubo(ctx, o.Kubo, filepath.Join(s.dir, name))
		if err != nil {
			return err
		}
		nodes = append(nodes, k)
	}
	from, to := nodes[0], nodes[1]
	theirs, err := from.run(ctx, io.LimitReader(noise(), size), "add", "-Q", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576")
	if err != nil {
		return err
	}
	if theirs != root {
		return fmt.Errorf("the same file is %s for Kubo and %s for us", theirs, root)
	}
	if _, err := to.run(ctx, nil, "swarm", "connect", from.addr); err != nil {
		return err
	}
	kubo, ours := &series{size: size}, &series{size: size}
	file := filepath.Join(s.dir, "got")
	// Both write the file twice: into a store and out of it.
	warm := order{Do: "warm", Size: 2 * size, Path: filepath.Join(s.dir, "warm")}
	err = s.interleave(max(z.rounds-2, 1), []passage{
		{to: kubo, run: func() (m moved, err error) {
			if _, err := taker.ask(warm); err != nil {
				return m, err
			}
			if m, err = to.get(ctx, root, file, from); err != nil {
				return m, err
			}
			_, err = to.run(ctx, nil, "repo", "gc", "-q")
			return m, errors.Join(err, os.Remove(file))
		}},
		{to: ours, run: func() (m moved, err error) {
			if _, err := taker.ask(warm); err != nil {
				return m, err
			}
			m, err = s.fetch(taker, order{Do: "get", Root: root, Path: file, Size: size}, giver)
			return m, errors.Join(err, os.Remove(file))
		}},
	})
	if err != nil {
		return err
	}
	version, err := to.run(ctx, nil, "version", "-n")
	if err != nil {
		return err
	}
	l := Line{Bench: "blocks", Case: "kubo/1GiB", Value: ours.speed(), Unit: "MiB/s"}.With("ipfs get of Kubo "+version, kubo.speed()).RatioAtLeast(3)
	l.Note = "both into the taker's store and on to a file; chunks of 1 MiB, TCP and TLS; stores synced, files not"
	emit(l)
	if kubo.cost() > 0 {
		emit(cpuLine("kubo/1GiB", ours, kubo, "ipfs get of Kubo "+version))
	}
	return nil
}
