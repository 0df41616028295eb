//go:build linux

package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/tasks"
)

// alone runs the test again as a process with mounts of its own, which end with
// it, and reports true in that one. It skips where the system does not allow it.
func alone(t *testing.T, exe string) bool {
	t.Helper()
	const mark = "KITHTEST_ALONE"
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), mark+"=1", kithExe+"="+exe)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		t.Logf("%s", out)
		if bytes.Contains(out, []byte("--- SKIP")) {
			t.Skipf("not tried:\n%s", out)
		}
	case errors.As(err, &exit):
		t.Errorf("%v\n%s", err, out)
	default:
		t.Skipf("no process with mounts of its own here: %v", err)
	}
	return false
}

// kithExe names the binary that alone's process uses.
const kithExe = "KITHTEST_EXE"

// volume is a small file system in memory.
type volume struct {
	t   *testing.T
	dir string
}

func newVolume(t *testing.T, at, megabytes string) volume {
	t.Helper()
	v := volume{t, at}
	if err := unix.Mount("tmpfs", v.dir, "tmpfs", 0, "mode=0700,size="+megabytes+"m"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(v.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return v
}

// fill leaves so many bytes free; 0 leaves none at all.
func (v volume) fill(leave int64) {
	v.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(v.dir, &st); err != nil {
		v.t.Fatal(err)
	}
	f, err := os.OpenFile(v.ballast(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	if n := int64(st.Bavail)*st.Bsize - leave; n > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil && !errors.Is(err, unix.ENOSPC) {
			v.t.Fatal(err)
		}
	}
	for page := make([]byte, 4096); leave == 0; { // what others free meanwhile, too
		if _, err := f.Write(page); errors.Is(err, unix.ENOSPC) {
			break
		} else if err != nil {
			v.t.Fatal(err)
		}
	}
}

func (v volume) ballast() string { return filepath.Join(v.dir, "ballast") }

func (v volume) free() {
	v.t.Helper()
	if err := os.Remove(v.ballast()); err != nil {
		v.t.Fatal(err)
	}
}

// refusedFull checks an error of the API and its class, which is the command's
// exit code.
func refusedFull(t *testing.T, what string, err error, code tasks.Reason) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Status != http.StatusInsufficientStorage || e.Reason != api.ReasonFull || e.Code != uint32(code) || e.Hint == "" || client.ClassOf(err) != client.Refused {
		t.Errorf("%s: %v (%+v), want a refusal for lack of room with a hint", what, err, e)
	}
}

// commandRefused runs the command at a node and wants exit code 4 and a word on
// the disk.
func commandRefused(ctx context.Context, t *testing.T, exe string, p *Process, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(cleanEnv(), "KITH_HOME="+p.Home)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(string(out), "room") {
		t.Errorf("kith %s: %v, want exit code 4 and why\n%s", strings.Join(args, " "), err, out)
	}
}

// A disk gets full in the middle of a job: at the origin under the database, and
// under the blocks, and at a worker. New jobs and data
// are refused with the reason, what runs waits and says why, no node ends, and
// with room again it all goes on to the right bytes.
func TestDiskFull(t *testing.T) {
	scenario(t)
	exe := os.Getenv(kithExe)
	if exe == "" {
		exe = binary(t)
	}
	if !alone(t, exe) {
		return
	}
	// The origin's database and its blocks are on disks of their own.
	home, disk := newVolume(t, t.TempDir(), "320"), newVolume(t, t.TempDir(), "320")
	at := filepath.Join(home.dir, "home", "blocks")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	blocks := newVolume(t, at, "320")
	nodes := newNodes(t, 2)
	nodes[0].Home, nodes[1].Home = filepath.Join(home.dir, "home"), filepath.Join(disk.dir, "home")
	l := startLab(t, exe, nodes, func(int) []string { return []string{"--cpu", "1", "--disk", "300MiB"} })
	origin, worker := nodes[0], nodes[1]
	small := filepath.Join(t.TempDir(), "small.txt")
	l.must(os.WriteFile(small, []byte("a few words"), 0o600))
	some := l.upload(origin, "", []byte("neither a program nor much of a text"), api.AudienceMesh)
	spec := tasks.Spec{Kind: tasks.KindWasm, Program: some, Inputs: []tasks.Input{{Source: some, Split: tasks.Split{By: tasks.SplitLines, Size: 1}}}}
	refusals := func() {
		t.Helper()
		_, err := origin.Client.AddFile(l.ctx, strings.NewReader("new"), 3, api.AddOptions{})
		refusedFull(t, "add", err, tasks.OK)
		_, err = origin.Client.Submit(l.ctx, spec)
		refusedFull(t, "submit", err, tasks.OriginFull)
		commandRefused(l.ctx, t, exe, origin, "add", small)
		commandRefused(l.ctx, t, exe, origin, "run", "example:wordcount", "--input", small)
		checks, err := origin.Client.Doctor(l.ctx)
		l.must(err)
		if checks[0].Name != "disk" || checks[0].State != api.CheckFail || !strings.Contains(checks[0].Fix, "free some room") {
			t.Errorf("doctor: %+v", checks[0])
		}
	}
	// fill fills a node's disk in the middle of a job that stands still, since each
	// task takes two nodes and the other one is paused by then.
	fill := func(disk volume, leave int64, p, other *Process) (id string) {
		t.Helper()
		for {
			job, text, err := submitWordCount(l.ctx, origin.Client, 400)
			l.must(err)
			l.text = text
			l.until("some tasks are done", func() bool { return l.job(origin, string(job)).Done > 0 })
			l.pause(other)
			disk.fill(leave)
			// A store asks its disk for room every few seconds, and takes work meanwhile.
			i := 0
			l.until(p.Name+" takes nothing", func() bool {
				b := fmt.Appendf(nil, "before anybody saw it: %d", i)
				i++
				_, err := p.Client.AddFile(l.ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{})
				return err != nil
			})
			all, err := origin.Client.AllTasks(l.ctx, string(job))
			var stalled *api.Error
			if disk == home && errors.As(err, &stalled) && stalled.Status == http.StatusServiceUnavailable {
				return string(job) // not even the last step could be written
			}
			l.must(err)
			if slices.ContainsFunc(all, func(task api.Task) bool { return task.Stage == "map" && task.State != "decided" }) {
				return string(job)
			}
			disk.free() // both were quicker: the reduce may be out
			l.resume(other)
			l.done(origin, string(job), 2)
		}
	}

	for _, full := range []struct {
		what  string
		disk  volume
		leave int64
		why   string
		node  *Process
		other *Process // whose disk has room
	}{
		{"the origin's database", home, 0, "nothing can be made durable", origin, worker},
		{"the origin's blocks, but for what is kept free", blocks, 200 << 20, "are kept free", origin, worker},
		{"the origin's blocks", blocks, 0, "are kept free", origin, worker},
		{"the worker's disk", disk, 0, "disk is full", worker, origin},
	} {
		from := time.Now()
		id := fill(full.disk, full.leave, full.node, full.other)
		l.resume(full.other)
		l.says(origin, id, full.why)
		if full.disk == blocks { // the database's log has some room of its own, which small writes may find
			refusals()
		}
		for _, p := range nodes {
			if st, err := p.Client.Status(l.ctx); err != nil || !st.Ready {
				t.Errorf("%s with %s full: %+v, %v", p.Name, full.what, st, err)
			}
		}
		said := time.Since(from)
		full.disk.free()
		l.done(origin, id, 2)
		t.Logf("%s: said after %v, done after %v", full.what, said.Round(time.Second/10), time.Since(from).Round(time.Second/10))
	}

	for _, p := range nodes {
		select {
		case <-p.Exited():
			t.Errorf("%s ended: %v\n%s", p.Name, p.State(), p.Tail())
		default:
		}
		if _, err := p.Client.GC(l.ctx); err != nil {
			t.Errorf("%s collects: %v", p.Name, err)
		}
	}
	again := []byte("room again")
	if got, err := l.cat(origin, l.upload(origin, "", again, api.AudienceMesh)); err != nil || !bytes.Equal(got, again) {
		t.Errorf("read %q, %v", got, err)
	}
}
