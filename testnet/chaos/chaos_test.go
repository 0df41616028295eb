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
	if testing.Short() {
		t.Skip("short: kills processes for a while")
	}
	exe, err := kith()
	if err != nil {
		t.Fatal(err)
	}
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
		r.Kept, r.Each = true, max(5, r.Kills/400)
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

// redundant are the steps that may be left out without anyone being told what is
// not so, and why.
var redundant = map[string]string{
	"state/settle":   "a receipt that is owed still is delivered again, and gets its verdict again",
	"state/yield":    "a host that forgot yields again when it hears of the higher term",
	"state/taken":    "an origin that forgot delivers its answer again, and is told that there is one",
	"state/forget":   "a host that forgot hears that the job was answered when it brings its own answer",
	"storage/index":  "pinning indexes what is not indexed",
	"storage/forget": "the next collection forgets it",
}

// Every durable step that is left out is seen by the checker, one after the
// other; those that are redundant are not. KITH_CHAOS_MUTANTS names the steps,
// or all.
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
			if step == "state/receipt" || step == "state/nonce" { // seen in a scene of its own, before the killing
				r.Kept, r.Kills = true, 3
			}
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
			defer cancel()
			report, err := r.Run(ctx)
			seen := report.Faults
			for _, open := range report.Open { // in the scene nothing is late by chance
				if strings.HasPrefix(open, "kept: job ") {
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
			switch why, may := redundant[step]; {
			case may && len(seen) > 0:
				t.Errorf("%s is not redundant (%s)", step, why)
			case !may && len(seen) == 0:
				t.Errorf("nobody saw that %s is left out", step)
			}
		})
	}
}
