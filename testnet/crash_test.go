//go:build unix

package testnet

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// A node that is told to dies by SIGKILL at the point it is told, having written
// down which; what it had said by then is there after the restart. A binary
// without the build tag pays no heed.
func TestCrashPoint(t *testing.T) {
	exe, plain := crashBinary(t), binary(t)
	p := newNodes(t, 1)[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := func(exe string, args ...string) {
		t.Helper()
		if err := errors.Join(p.Start(exe, args...), p.Ready(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	add := func(text string) (tasks.CID, error) {
		root, err := p.Client.AddFile(ctx, strings.NewReader(text), int64(len(text)), api.AddOptions{Pin: true})
		return tasks.CID(root.CID), err
	}
	has := func(c tasks.CID, want string) {
		t.Helper()
		r, err := p.Client.Cat(ctx, c, "", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if b, err := io.ReadAll(r); err != nil || string(b) != want {
			t.Errorf("read %q, %v; want %q", b, err, want)
		}
	}
	crashes := filepath.Join(t.TempDir(), "crashes")
	p.Env = []string{"KITH_CRASH_AT=storage/pin:after:2", "KITH_CRASH_LOG=" + crashes}
	start(plain, "--init")
	var kept []tasks.CID
	for _, text := range []string{"one", "two", "three"} {
		c, err := add(text)
		if err != nil {
			t.Fatalf("a binary without crash points: %v", err)
		}
		kept = append(kept, c)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	start(exe)
	has(kept[2], "three")
	c, err := add("four")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add("five"); err == nil {
		t.Error("the second pin was said to be done")
	}
	<-p.Exited()
	var exit *exec.ExitError
	if !errors.As(p.State(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the node ended with %v", p.State())
	}
	if b, err := os.ReadFile(crashes); err != nil || string(b) != "storage/pin:after\n" {
		t.Errorf("it wrote down %q, %v", b, err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"storage/pin:after:0", "storage/pin:after:-1", "storage/pin:after:two"} {
		p.Env = []string{"KITH_CRASH_AT=" + never}
		if err := errors.Join(p.Start(exe), p.Ready(ctx)); err == nil || !strings.Contains(p.Tail(), never) || !strings.Contains(p.Tail(), "count from 1") {
			t.Errorf("a node that is to die at %q starts, or does not say why not: %v, %s", never, err, p.Tail())
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	p.Env = nil
	start(exe)
	has(c, "four")
}
