//go:build unix

package chaos

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/testnet/internal/built"
)

var kith = built.Once("-tags", "crashpoints")

func TestMain(m *testing.M) {
	if config := os.Getenv(ClientEnv); config != "" {
		if err := ClientMain(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	built.Main(m)
}

// What a longer run is told by: how many kills, from which seed.
const (
	envKills   = "KITH_CHAOS_KILLS"
	envSeed    = "KITH_CHAOS_SEED"
	envMutants = "KITH_CHAOS_MUTANTS" // durable steps to leave out
	envScenes  = "KITH_CHAOS_SCENES"  // durable steps to play the scenes of, without kills
	envDir     = "KITH_CHAOS_DIR"     // where homes and logs are left to look at
)

func number(t *testing.T, env string, def int) int {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}

func newRun(t *testing.T) Run {
	t.Helper()
	exe := kith(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv(envDir)
	if dir == "" {
		dir = t.TempDir()
	}
	return Run{Exe: exe, Client: func() *exec.Cmd { return exec.Command(self) }, Dir: dir, Out: t.Output(), Seed: uint64(number(t, envSeed, 1))}
}

func say(t *testing.T, r Report) {
	t.Helper()
	t.Logf("%d kills of nodes in %.0f s, %d of them at random instants; %d of clients; settled in %.1f s", r.Kills, r.Killing.Seconds(), r.Outside, r.Clients, r.Settled.Seconds())
	t.Logf("acknowledged: %d jobs (%d published, %d with a quorum, %d that fail), %d adds, %d invites, %d settings, %d joins; %d reads, %d task results checked",
		r.Jobs, r.Published, r.Quorum, r.Failing, r.Adds, r.Invites, r.Settings, r.Joins, r.Reads, r.Tasks)
	for _, p := range slices.Sorted(maps.Keys(r.Hits)) {
		t.Logf("%4d %s", r.Hits[p], p)
	}
}

// Processes are killed again and again, at every named point and at random
// instants, and nothing that was acknowledged is lost or counted twice. With
// KITH_CHAOS_KILLS=200 and more every point must have been died at five times.
func TestChaos(t *testing.T) {
	r := newRun(t)
	r.Kills, r.Points = number(t, envKills, 25), points(node.Steps())
	if r.Kills >= 200 {
		r.Scenes, r.Each = node.Steps(), max(5, r.Kills/400)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(r.Kills)*4*time.Second)
	defer cancel()
	report, err := r.Run(ctx)
	say(t, report)
	if err != nil {
		t.Fatal(err)
	}
	for what, list := range map[string][]string{"faults": report.Faults, "open": report.Open} {
		if len(list) > 0 {
			t.Errorf("%d %s:\n%s", len(list), what, strings.Join(list[:min(40, len(list))], "\n"))
		}
	}
	if report.Jobs == 0 || report.Tasks == 0 || report.Adds == 0 {
		t.Errorf("nothing was acknowledged: %+v", report.Checked)
	}
}

// Scenes without the killing that otherwise follows, to look at one of them.
func TestScenes(t *testing.T) {
	which := os.Getenv(envScenes)
	if which == "" {
		t.Skipf("set %s=all, or to durable steps with commas", envScenes)
	}
	r := newRun(t)
	if r.Scenes = strings.Split(which, ","); which == "all" {
		r.Scenes = node.Steps()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	report, err := r.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if bad := slices.Concat(report.Faults, report.Open); len(bad) > 0 {
		t.Errorf("%d faults, %d open:\n%s", len(report.Faults), len(report.Open), strings.Join(bad, "\n"))
	}
}

// Every durable step that is left out is seen by the checker, one after the
// other. KITH_CHAOS_MUTANTS names the steps, or all.
func TestMutants(t *testing.T) {
	which := os.Getenv(envMutants)
	if which == "" {
		t.Skipf("set %s=all, or to durable steps with commas", envMutants)
	}
	for _, step := range node.Steps() {
		if which != "all" && !slices.Contains(strings.Split(which, ","), step) {
			continue
		}
		t.Run(step, func(t *testing.T) {
			r := newRun(t)
			r.Dir = filepath.Join(r.Dir, strings.ReplaceAll(step, "/", "-"))
			r.Skip, r.Points, r.Kills, r.Bound = step, points([]string{step}), number(t, envKills, 40), 60*time.Second
			r.Nodes, r.Hands = 3, 3
			if shows(step) { // before the killing; a submitter, two origins and a host that only keeps
				r.Scenes, r.Kills, r.Nodes = []string{step}, 3, 4
			}
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
			defer cancel()
			report, err := r.Run(ctx)
			seen := report.Faults
			for _, open := range report.Open { // in the scene nothing is late by chance
				if strings.HasPrefix(open, scenesLog+": ") {
					seen = append(seen, open)
				}
			}
			if err != nil { // nodes that can't start any more, say
				seen = append(seen, err.Error())
			}
			t.Logf("%s: %d faults after %d kills in %.0f s; open: %.300q", step, len(seen), report.Kills, report.Killing.Seconds(), report.Open)
			for _, s := range seen[:min(8, len(seen))] {
				t.Logf("SEEN %s: %.500s", step, s)
			}
			if len(seen) == 0 {
				t.Errorf("nobody saw that %s is left out", step)
			}
		})
	}
}
