package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wallsArg makes the test binary a child that tries its walls itself, as if a
// program had broken out of wasm.
const wallsArg = "__walls"

// wallsMain prints a line for each attempt that should not have succeeded, or
// should have.
func wallsMain(args []string) int {
	scratch, input, secret := args[0], args[1], args[2]
	w, err := confine()
	if prio, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || prio != 20-19 { // as the kernel tells it
		fmt.Println("priority:", prio, err)
	}
	if err == nil {
		err = w.close(loadMessage{Scratch: scratch, Inputs: map[string]string{"in": input}, Memory: 1 << 20, CPU: time.Hour})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	refused := func(what, wall string, err error) {
		if slices.ContainsFunc(w.reached, func(r string) bool { return strings.HasPrefix(r, wall) }) && !errors.Is(err, fs.ErrPermission) {
			fmt.Printf("%s in spite of %s: %v\n", what, wall, err)
		}
	}
	granted := func(what string, err error) {
		if err != nil {
			fmt.Printf("%s: %v\n", what, err)
		}
	}
	_, err = os.ReadFile(secret)
	refused("read a host file", "landlock", err)
	refused("write to an input", "landlock", os.WriteFile(filepath.Join(input, "new"), nil, 0o600))
	_, err = os.ReadFile(filepath.Join(input, "a"))
	granted("read an input", err)
	granted("write to scratch", os.WriteFile(filepath.Join(scratch, "f"), []byte("x"), 0o600))
	granted("remove from scratch", os.Remove(filepath.Join(scratch, "f")))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	refused("made a socket", "seccomp", err)
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	refused("made a unix socket", "seccomp", err)
	refused("signalled its parent", "seccomp", unix.Kill(os.Getppid(), 0))
	refused("started a program", "seccomp", exec.Command("/proc/self/exe", "-test.run=xxx").Run())
	refused("looked at another process", "seccomp", unix.PtraceAttach(os.Getppid()))
	done := make(chan struct{}) // threads still start
	for range 20 {
		go func() {
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
			done <- struct{}{}
		}()
	}
	for range 20 {
		<-done
	}
	for name, which := range map[string]int{"core": unix.RLIMIT_CORE, "files": unix.RLIMIT_NOFILE} {
		var l unix.Rlimit
		if err := unix.Getrlimit(which, &l); err != nil || l.Max > openFiles {
			fmt.Println(name, l, err)
		}
	}
	fmt.Println("tried:", w)
	return 0
}

func TestWalls(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"scratch/", "in/a", "secret"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, wallsArg, filepath.Join(dir, "scratch"), filepath.Join(dir, "in"), filepath.Join(dir, "secret"))
	cmd.Env = childEnv()
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "tried: process, rlimits, no-new-privs") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Log(lines[0])
}
