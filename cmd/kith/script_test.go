package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/tasks/runner"
)

// The test binary is kith when it is called so, and the child of one when that
// starts it again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == runner.ChildArg {
		os.Exit(kith())
	}
	testscript.Main(m, map[string]func(){"kith": func() { os.Exit(kith()) }})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("KITH_HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("KITH_LISTEN", "/ip4/127.0.0.1/tcp/0")
			e.Setenv("KITH_API_LISTEN", "127.0.0.1:0")
			e.Setenv("KITH_LOG_LEVEL", "warn")
			for _, name := range examples.Names() {
				b, err := examples.Program(name)
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(e.WorkDir, name+".wasm"), b, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "ready": ready, "set": set, "until": prints},
	})
}

// exits CODE COMMAND ARGS... runs a command that must end with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("exits: %v", err)
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("exits: %v", err)
		}
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v exits with %d, want %d", args[1:], got, want)
	}
}

// ready HOME... waits until the nodes of these homes are.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: ready HOME...")
	}
	for _, home := range args {
		deadline := time.Now().Add(30 * time.Second)
		for err := errors.New("not asked"); err != nil; {
			if err = isReady(ts, ts.MkAbs(home)); err != nil && time.Now().After(deadline) {
				ts.Fatalf("%s is not ready: %v", home, err)
			}
			if err != nil {
				<-time.After(10 * time.Millisecond)
			}
		}
	}
}

func isReady(ts *testscript.TestScript, home string) error {
	b, err := os.ReadFile(filepath.Join(home, "api.json"))
	if err != nil {
		return err
	}
	var at struct{ Address string }
	if err := json.Unmarshal(b, &at); err != nil {
		return err
	}
	c, err := client.New(at.Address, "")
	ts.Check(err)
	defer c.Close()
	return c.Ready(context.Background())
}

// until WORD COMMAND ARGS... runs a command again until it prints the word.
func prints(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until WORD COMMAND ARGS...")
	}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v does not print %q", args[1:], args[0])
		}
	}
}

// set NAME FIELD keeps the n-th word of the last output, from 1 on, as $NAME.
func set(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: set NAME FIELD")
	}
	n, err := strconv.Atoi(args[1])
	words := strings.Fields(ts.ReadFile("stdout"))
	if err != nil || n < 1 || n > len(words) {
		ts.Fatalf("set: no word %s in %q", args[1], words)
	}
	ts.Setenv(args[0], words[n-1])
}
