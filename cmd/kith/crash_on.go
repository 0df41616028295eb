//go:build crashpoints && unix

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
)

// The environment of a build for tests of crashes. A point is a durable step and
// when: "state/decide:before" or "state/decide:after".
const (
	// Where to die by SIGKILL, a list: "POINT" or "POINT:N", at the Nth time the
	// process passes it; "random:SEED:SHARE", at a share of all passages.
	envCrashAt = "KITH_CRASH_AT"
	// A file that gets a line with the point, synced, before the process dies.
	envCrashLog = "KITH_CRASH_LOG"
	// Durable steps to leave out, a list: they are said to be done and are not.
	envSkipCommit = "KITH_SKIP_COMMIT"
	// A duration: published jobs change hands when their origin was silent for so
	// long, and what is past its retention goes within a second.
	envCrashFast = "KITH_CRASH_FAST"
)

// crashSeams makes the node die, or forget, as the environment says.
func crashSeams(s *node.Seams) error {
	known := map[string]bool{}
	for _, step := range node.Steps() {
		known[step] = true
	}
	k := &crasher{log: os.Getenv(envCrashLog), at: map[string]int{}, skip: map[string]bool{}}
	var errs []error
	for _, text := range list(os.Getenv(envCrashAt)) {
		if err := k.parse(text, known); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", envCrashAt, err))
		}
	}
	for _, step := range list(os.Getenv(envSkipCommit)) {
		if !known[step] {
			errs = append(errs, fmt.Errorf("%s: no durable step %q", envSkipCommit, step))
		}
		k.skip[step] = true
	}
	if text := os.Getenv(envCrashFast); text != "" {
		lapse, err := time.ParseDuration(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: write it as 5s", envCrashFast, err))
		}
		s.Market.Sweep = time.Second
		s.Market.Adoption = tasks.AdoptionConfig{Heartbeat: lapse / 4, Lapse: lapse, Settle: 300 * time.Millisecond, MaxRetry: 4 * time.Second}
		s.Market.Submission = tasks.SubmissionConfig{MaxRetry: 4 * time.Second, Lapse: lapse + time.Second}
		s.Market.Origin = tasks.OriginConfig{MinLease: 2 * time.Second, MaxLease: 5 * time.Second, MaxReannounce: 2 * time.Second}
	}
	s.Around = k.around
	return errors.Join(errs...)
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// crasher ends the process at a point.
type crasher struct {
	log  string
	skip map[string]bool

	mu    sync.Mutex
	at    map[string]int // passages left
	rand  *rand.Rand
	share float64
}

func (k *crasher) parse(text string, known map[string]bool) (err error) {
	parts := strings.Split(text, ":")
	switch {
	case len(parts) == 3 && parts[0] == "random":
		var seed uint64
		if seed, err = strconv.ParseUint(parts[1], 10, 64); err == nil {
			k.share, err = strconv.ParseFloat(parts[2], 64)
		}
		k.rand = rand.New(rand.NewPCG(seed, 0))
		return err
	case len(parts) != 2 && len(parts) != 3, !known[parts[0]], parts[1] != "before" && parts[1] != "after":
		return fmt.Errorf("%q is not STEP:before, STEP:after or random:SEED:SHARE", text)
	}
	n := 1
	if len(parts) == 3 {
		if n, err = strconv.Atoi(parts[2]); err != nil || n < 1 {
			return fmt.Errorf("%q: %q is no passage: count from 1, or leave it out for the first", text, parts[2])
		}
	}
	k.at[parts[0]+":"+parts[1]] = n
	return nil
}

func (k *crasher) around(step string, do func() error) error {
	k.pass(step + ":before")
	if !k.skip[step] {
		if err := do(); err != nil {
			return err
		}
	}
	k.pass(step + ":after")
	return nil
}

// pass dies when it is time. The lock is not given back then: nothing passes any
// more.
func (k *crasher) pass(point string) {
	k.mu.Lock()
	n, armed := k.at[point]
	k.at[point] = n - 1
	if armed && n == 1 || k.rand != nil && k.rand.Float64() < k.share {
		k.die(point)
	}
	k.mu.Unlock()
}

func (k *crasher) die(point string) {
	if k.log != "" {
		f, err := os.OpenFile(k.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, point)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "crash point not written down:", err)
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		fmt.Fprintln(os.Stderr, "no SIGKILL to myself:", err)
	}
	select {} // until it comes
}
