package testnet

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
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/testnet/internal/built"
)

// The binary, and the one that can be told to die at a point.
var (
	binary      = built.Once()
	crashBinary = built.Once("-tags", "crashpoints")
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(lieEnv); kind != "" { // a process that TestLiars started
		if err := lie(kind, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	built.Main(m)
}

// newNodes makes n nodes that end with the test.
func newNodes(t *testing.T, n int) []*Process {
	t.Helper()
	nodes, err := NewProcesses(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := StopAll(nodes); err != nil {
			t.Error(err)
		}
	})
	return nodes
}

// The demo ends well, with the counts right and something leased again, and
// leaves no file.
func TestDemo(t *testing.T) {
	exe := binary(t)
	dir := t.TempDir()
	var said bytes.Buffer
	out, err := Demo{Exe: exe, Out: &said, Dir: dir}.Run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if !out.Match || out.Counted != out.Expected || out.Counted < 200_000 || len(out.LeasedAgain) == 0 || out.Killed == "" {
		t.Errorf("outcome %+v\n%s", out, said.String())
	}
	for _, w := range out.Workers[1:] {
		if w.Count > 0 && w.RTTMs <= 0 {
			t.Errorf("%s did %d tasks at an unknown RTT", w.Node, w.Count)
		}
	}
	nothingIn(t, dir)
}

// Interrupted at any stage, the demo ends with a failure and leaves neither file
// nor process.
func TestDemoInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("windows has no SIGINT to send to another process")
	}
	exe := binary(t)
	for _, stage := range []string{"Starting five nodes", "holds job", "killed with SIGKILL"} {
		t.Run(stage, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), exe, "demo")
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.Contains(lines.Text(), stage) {
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, out); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v, want exit code 1", err)
			}
			nothingIn(t, dir)
			noProcessOf(t, dir)
		})
	}
}

// nothingIn fails when a folder holds anything.
func nothingIn(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
	}
}

// noProcessOf fails when a process was started with a path under dir.
func noProcessOf(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-eo", "pid,args").Output()
	if err != nil {
		t.Fatalf("list processes: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) {
			t.Errorf("left behind: %s", strings.TrimSpace(line))
		}
	}
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		n    []uint32
		want string
	}{{nil, ""}, {[]uint32{4}, "4"}, {[]uint32{0, 1, 2, 7, 9, 10}, "0-2,7,9-10"}} {
		if got := ranges(c.n); got != c.want {
			t.Errorf("ranges(%v) = %q, want %q", c.n, got, c.want)
		}
	}
}
