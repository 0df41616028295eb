package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// node is a running kith or Kubo: commands of it go to that process.
type node struct {
	program
	id   string
	addr string // where it listens for peers, with its ID
}

// start runs a daemon until the test ends. up is in the line that it prints
// when it serves.
func start(t *testing.T, p program, up string, args ...string) {
	t.Helper()
	cmd := exec.Command(p.exe, append(p.args, args...)...)
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe() // kith up --while-stdin
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	ready, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		s := bufio.NewScanner(r)
		for seen := false; s.Scan(); {
			log.WriteString(s.Text() + "\n")
			if !seen && strings.Contains(s.Text(), up) {
				seen = true
				close(ready)
			}
		}
	}()
	exited := make(chan error, 1)
	go func() {
		exited <- cmd.Wait()
		w.Close()
	}()
	t.Cleanup(func() {
		stdin.Close()
		// It may have ended by its standard input already.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err = <-exited:
		case <-time.After(20 * time.Second):
			t.Errorf("%s does not end", filepath.Base(p.exe))
			err = errors.Join(cmd.Process.Kill(), <-exited)
		}
		<-over
		if err != nil || t.Failed() {
			t.Logf("%s ended: %v; its log:\n%s", filepath.Base(p.exe), err, log.String())
		}
	})
	select {
	case <-ready:
	case <-over:
		t.Fatalf("%s ended at its start", filepath.Base(p.exe))
	case <-time.After(time.Minute):
		t.Fatalf("%s is not up", filepath.Base(p.exe))
	}
}

// newKith starts a node of a mesh of its own.
func newKith(t *testing.T) *node {
	t.Helper()
	p := program{exe: kithExe, env: cleanEnv(), args: []string{"--home", filepath.Join(t.TempDir(), "home")}}
	start(t, p, "  reach", "up", "--init", "--while-stdin", "--listen", "/ip4/127.0.0.1/tcp/0", "--api-listen", "127.0.0.1:0")
	var is struct {
		Peer      string
		Addresses []string
	}
	if err := json.Unmarshal([]byte(p.run(t, "id", "--json")), &is); err != nil || len(is.Addresses) == 0 {
		t.Fatalf("kith id: %+v, %v", is, err)
	}
	return &node{program: p, id: is.Peer, addr: is.Addresses[0] + "/p2p/" + is.Peer}
}

// add stores what is at path and gives its CID.
func (n *node) add(t *testing.T, path string, args ...string) string {
	t.Helper()
	return n.run(t, append([]string{"add", "--quiet", path}, args...)...)
}

// newKubo starts a node as `ipfs init` makes it, but that it listens on
// loopback alone, knows nobody and asks nobody's servers.
func newKubo(t *testing.T) *node {
	t.Helper()
	repo := filepath.Join(t.TempDir(), "ipfs")
	p := program{exe: kuboExe, env: cleanEnv("IPFS_PATH="+repo, "IPFS_TELEMETRY=off")}
	p.run(t, "init", "--empty-repo")
	file := filepath.Join(repo, "config")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]map[string]any
	var whole map[string]any
	if err := json.Unmarshal(b, &whole); err != nil {
		t.Fatal(err)
	}
	config = map[string]map[string]any{
		"Addresses": {"Swarm": []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, "API": "/ip4/127.0.0.1/tcp/0", "Gateway": "/ip4/127.0.0.1/tcp/0"},
		"Discovery": {"MDNS": map[string]any{"Enabled": false}},
		"Routing":   {"Type": "dht", "DelegatedRouters": []string{}},
		"Ipns":      {"DelegatedPublishers": []string{}},
		"DNS":       {"Resolvers": map[string]string{}},
		"AutoConf":  {"Enabled": false},
		"AutoTLS":   {"Enabled": false},
		"Swarm":     {"DisableNatPortMap": true},
		"Version":   {"SwarmCheckEnabled": false},
	}
	for part, settings := range config {
		for k, v := range settings {
			whole[part].(map[string]any)[k] = v
		}
	}
	whole["Bootstrap"] = []string{}
	if b, err = json.MarshalIndent(whole, "", "  "); err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	start(t, p, "Daemon is ready", "daemon")
	var is struct {
		ID        string
		Addresses []string
	}
	if err := json.Unmarshal([]byte(p.run(t, "id")), &is); err != nil {
		t.Fatal(err)
	}
	n := &node{program: p, id: is.ID}
	for _, a := range is.Addresses {
		if strings.Contains(a, "/tcp/") {
			n.addr = a
		}
	}
	if n.addr == "" {
		t.Fatalf("Kubo listens on no TCP port: %v", is.Addresses)
	}
	return n
}
