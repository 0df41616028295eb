//go:build unix

package state

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

const childEnv = "KITH_STATE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		childWrites(path)
	}
	os.Exit(m.Run())
}

// childWrites decides tasks from many goroutines until it is killed, and prints
// the number of each when the store says that it is durable.
func childWrites(path string) {
	s, err := Open(path)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	job := testJob('a')
	first := 0
	if rec, err := s.Records(context.Background(), job, 1); err == nil {
		first = len(rec.Results)
		for _, r := range rec.Results {
			first = max(first, int(r.Ref.Index)+1)
		}
	} else if _, err := s.AddJob(context.Background(), wire.JobRecord{ID: job, Submission: []byte("x"), Term: 1, State: tasks.Running}); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for g := range 16 {
		go func() {
			for i := first + g; ; i += 16 {
				if err := s.Apply(context.Background(), decision(&testing.T{}, job, uint32(i))); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(i)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// A process that is killed with SIGKILL while it writes loses nothing that it
// was told is durable.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	acknowledged := map[int]bool{}
	for round := range 4 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		guard := time.AfterFunc(time.Minute, func() { _ = child.Process.Kill() })
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			i, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
			if err != nil {
				t.Errorf("child: %s", lines.Text())
				break
			}
			acknowledged[i] = true
			if n == 150+37*round {
				if err := child.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
		guard.Stop()
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := s.Records(t.Context(), testJob('a'), 1)
		if err != nil {
			t.Fatal(err)
		}
		have := map[int]bool{}
		for _, r := range rec.Results {
			have[int(r.Ref.Index)] = true
		}
		for i := range acknowledged {
			if !have[i] {
				t.Errorf("round %d: decision %d was acknowledged and is lost", round, i)
			}
		}
		if len(rec.Grants) != len(rec.Results) || len(rec.Attempts) != len(rec.Results) {
			t.Errorf("round %d: %d results with %d leases and %d attempts: a change was cut in two", round, len(rec.Results), len(rec.Grants), len(rec.Attempts))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < 600 {
		t.Errorf("only %d decisions were acknowledged in all", len(acknowledged))
	}
}
