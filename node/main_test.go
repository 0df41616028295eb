package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/runner"
)

// holdArg makes the test binary hold a home until its standard input ends.
const holdArg = "__hold"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case runner.ChildArg:
			os.Exit(runner.ChildMain(os.Args[2:]))
		case holdArg:
			os.Exit(hold(Home(os.Args[2])))
		}
	}
	dir, err := os.MkdirTemp("", "kith-node-test-")
	if err != nil {
		panic(err)
	}
	sharedCache = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// sharedCache is one folder of compiled programs for all nodes that run some.
var sharedCache string

func hold(home Home) int {
	release, err := home.tryLock()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held")
	if _, err := io.Copy(io.Discard, bufio.NewReader(os.Stdin)); err != nil {
		return 2
	}
	if err := release(); err != nil {
		return 3
	}
	return 0
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// idle runs no program: it is for nodes that get no job.
type idle struct{}

func (idle) Run(context.Context, tasks.Execution) (tasks.Outcome, error) {
	return tasks.Outcome{}, errors.New("this node was to run nothing")
}

// config is that of a node on loopback, in a home of its own that belongs to no
// mesh, with ports that the system picks.
func config(t testing.TB) Config {
	t.Helper()
	return Config{
		Home: Home(filepath.Join(t.TempDir(), "home")), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoQUIC: true,
		APIListen: "127.0.0.1:0", Log: testLog(t), Seams: Seams{Runner: idle{}},
	}
}

// founder is config for a home that made a mesh.
func founder(t testing.TB) Config {
	t.Helper()
	cfg := config(t)
	if _, err := Found(cfg.Home, "test", false, time.Now()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// running is a node that runs until stop, or the end of the test.
type running struct {
	*Node
	started Started
	stop    func()
	ended   chan error // of Run
}

func start(t testing.TB, cfg Config) *running {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := New(ctx, cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return runNode(t, n)
}

func runNode(t testing.TB, n *Node) *running {
	t.Helper()
	r := &running{Node: n, ended: make(chan error, 1)}
	up := make(chan Started, 1)
	n.cfg.Notify = func(s Started) { up <- s }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { r.ended <- n.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	select {
	case r.started = <-up:
	case err := <-r.ended:
		r.ended <- nil
		t.Fatalf("Run ended before the node was up: %v", err)
	}
	return r
}

// await returns when ok does, asked at first and after every event of the node.
func await(t testing.TB, n *running, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ch, err := n.events.Subscribe(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	for !ok() {
		if _, open := <-ch; !open {
			t.Fatalf("%s: not so in time", what)
		}
	}
}

// meet returns when each of the nodes has the others as members.
func meet(t testing.TB, nodes ...*running) {
	t.Helper()
	for _, n := range nodes {
		await(t, n, "members", func() bool { return len(n.host.Members()) >= len(nodes)-1 })
	}
}

// invite makes a line for one more node.
func invite(t testing.TB, n *running, change ...func(*api.InviteRequest)) api.Invite {
	t.Helper()
	req := api.InviteRequest{Uses: 1}
	for _, f := range change {
		f(&req)
	}
	i, err := n.CreateInvite(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// joiner is config for a node that joins by the line at its first start.
func joiner(t testing.TB, line string) Config {
	cfg := config(t)
	cfg.Join = line
	return cfg
}

// mesh starts n nodes of one mesh, the founder first, all connected.
func mesh(t testing.TB, n int, change func(i int, c *Config)) []*running {
	t.Helper()
	var out []*running
	for i := range n {
		cfg := config(t)
		if i == 0 {
			cfg = founder(t)
		} else {
			cfg.Join = invite(t, out[0]).Line
		}
		if change != nil {
			change(i, &cfg)
		}
		out = append(out, start(t, cfg))
	}
	meet(t, out...)
	return out
}

// notice is testLog that also signals a message, without waiting for a reader.
func notice(t testing.TB, message string, c chan<- struct{}) *slog.Logger {
	return slog.New(noticer{testLog(t).Handler(), message, c})
}

type noticer struct {
	slog.Handler
	message string
	c       chan<- struct{}
}

func (n noticer) Enabled(context.Context, slog.Level) bool { return true }

func (n noticer) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == n.message {
		select {
		case n.c <- struct{}{}:
		default:
		}
	}
	if !n.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return n.Handler.Handle(ctx, r)
}
