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
}

func (k *kuboNode) run(ctx context.Context, in io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.exe, args...)
	cmd.Env = append(os.Environ(), "IPFS_PATH="+k.repo)
	cmd.Stdin = in
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
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

// runKubo measures (c): `ipfs get` of a file from one Kubo to another, and ours
// of the same file, to the taker's store, durable, and on to a file.
func runKubo(ctx context.Context, o Options, z blocksSizes, emit func(Line)) (err error) {
	s, err := newSides(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	size := z.large
	giver, taker, root, err := s.couple(ctx, size)
	if err != nil {
		return err
	}
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
	for i := range max(z.rounds-3, 1) {
		o.say("round %d of %d", i+1, max(z.rounds-3, 1))
		file := filepath.Join(s.dir, "got")
		begun := time.Now()
		if _, err := to.run(ctx, nil, "get", "--progress=false", "-o", file, root); err != nil {
			return err
		}
		kubo.add(moved{seconds: time.Since(begun).Seconds()})
		if _, err := to.run(ctx, nil, "repo", "gc", "-q"); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
		got, err := move(taker, order{Do: "fetch", Root: root, Path: file}, giver)
		if err != nil {
			return err
		}
		ours.add(got)
		if _, err := taker.ask(order{Do: "drop"}); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	version, err := to.run(ctx, nil, "version", "-n")
	if err != nil {
		return err
	}
	l := Line{Bench: "blocks", Case: "kubo/1GiB", Value: ours.speed(), Unit: "MiB/s"}.With("ipfs get of Kubo "+version, kubo.speed()).RatioAtLeast(3)
	l.Note = "both into the taker's store and on to a file; chunks of 1 MiB, TCP"
	emit(l)
	return nil
}
