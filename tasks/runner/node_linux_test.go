package runner

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nodeArg makes the test binary a node that runs a program that spins.
const nodeArg = "__node"

// nodeMain prints the pid of the spinning process and waits to be killed.
func nodeMain(args []string) int {
	r, err := New(Config{Scratch: args[0], Slots: 1, guard: args[1] == "guard"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(context.Background()) }()
	running := newStarted()
	go func() {
		<-running.c
		r.mu.Lock()
		defer r.mu.Unlock()
		for c := range r.live {
			if c.key.job != "" { // not the one that waits for work
				fmt.Println(c.pid)
			}
		}
	}()
	task := ofJob("node", func(t *Task) { t.Stdout = running })
	_, err = r.Run(context.Background(), Program{Wasm: talkThenSpin().wasm()}, task)
	fmt.Fprintln(os.Stderr, "the program ended before the node:", err)
	return 1
}

// TestDiesWithNode: SIGKILL of a node ends the program that spins under it,
// with the parent-death signal and with a guard.
func TestDiesWithNode(t *testing.T) {
	for _, how := range []string{"signal", "guard"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			node := exec.Command(exe, nodeArg, t.TempDir(), how)
			node.Stderr = testWriter{t}
			out, err := node.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			guest, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				t.Fatalf("program %d is gone before its node: %v", pid, err)
			}
			defer unix.Close(guest)
			killed := time.Now()
			if err := node.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			fds := []unix.PollFd{{Fd: int32(guest), Events: unix.POLLIN}}
			for {
				n, err := unix.Poll(fds, 5000)
				if err == unix.EINTR {
					continue
				}
				if n != 1 {
					t.Errorf("program %d outlived its node by 5 s: %v", pid, err)
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						t.Error(err)
					}
				}
				break
			}
			t.Logf("died %v after its node", time.Since(killed))
			if err := node.Wait(); err == nil {
				t.Error("the node ended well")
			}
		})
	}
}

func TestGuarded(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.guard = true })
	if res, out := run(t, r, hello("guarded"), ofJob("g")); out != "guarded" {
		t.Errorf("%v, %q", res, out)
	}
	res, _ := run(t, r, spin(), ofJob("g", func(t *Task) { t.Limits.CPUTime = 50 * time.Millisecond }))
	if res.Detail == "" {
		t.Errorf("%+v", res)
	}
}
