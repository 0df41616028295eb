package sim_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet/sim"
)

// held is what a process holds when no job is in hand and retention has passed.
type held struct {
	jobs       int // that are over
	goroutines int
	files      int
	heap       float64        // bytes of live objects, after a collection
	rows       map[string]int // of all nodes' databases, by table
}

// Tables that may keep something for longer than a job's retention, and for how
// long: all others must be empty once that has passed.
var lasting = map[string]string{
	"said": "30 days, 64 MiB", "said_jobs": "as said", "tallies": "180 days, 16 Ki peers", "settings": "for ever, by name",
	"storage_roots": "until a collection", "storage_blocks": "until a collection", "storage_pins": "an upload's for a day, the programs' here", "storage_schema": "a row a version",
}

func look(t *testing.T, m *sim.Mesh, jobs int) held {
	t.Helper()
	h := held{jobs: jobs, rows: map[string]int{}}
	for _, n := range m.Nodes {
		tables := []string{}
		rows, err := n.State().DB().Query(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			tables = append(tables, name)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range tables {
			var count int
			if err := n.State().DB().QueryRow(`SELECT count(*) FROM ` + name).Scan(&count); err != nil {
				t.Fatal(err)
			}
			h.rows[name] += count
		}
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd here: open files can't be counted")
	}
	h.files = len(open)
	h.goroutines = runtime.NumGoroutine()
	runtime.GC()
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	h.heap = float64(mem.HeapAlloc)
	return h
}

// soakJob hands the i-th job to a mesh: mostly small ones, and of each ten one with
// inputs and a reduce, one under a quorum, one published.
func soakJob(m *sim.Mesh, i int) (at *sim.Node, id tasks.JobID, published bool) {
	origin := m.Nodes[i%2]
	spec := origin.Numbers(uint32(1 + i%3))
	switch i % 10 {
	case 3:
		spec = origin.WordCount(strings.Repeat(fmt.Sprintf("job %d counts these words\n", i), 4), 2)
	case 5:
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
	case 7:
		published = true
	}
	spec.Retention = time.Minute
	if published {
		return origin, origin.Publish(spec), true
	}
	return origin, origin.Submit(spec), false
}

// TestSoak runs many jobs through a mesh with databases and blocks on disk: what is
// held when they are over, and past their retention, does not grow with their number.
// `make soak` runs 10,000 (KITH_SOAK is the number).
func TestSoak(t *testing.T) {
	jobs := 300
	if s := os.Getenv("KITH_SOAK"); s != "" {
		var err error
		if jobs, err = strconv.Atoi(s); err != nil || jobs < 100 {
			t.Fatalf("KITH_SOAK=%q: give a number of jobs, 100 or more", s)
		}
	}
	const parts, atOnce = 20, 16
	cfg := sim.Config{Nodes: 4, Dir: t.TempDir(), Service: func(int, tasks.Execution) time.Duration { return 10 * time.Millisecond }}
	sim.Run(t, cfg, func(m *sim.Mesh) {
		began := time.Now()
		var seen []held
		for part := range parts {
			type running struct {
				at        *sim.Node
				id        tasks.JobID
				published bool
			}
			var now []running
			wait := func() {
				for _, r := range now {
					m.Until(fmt.Sprintf("job %s is over", r.id), 10*time.Minute, func() bool {
						v := r.at.Job(r.id)
						if r.published {
							return v.Answer != nil
						}
						return v.Record.State.Over()
					})
					v := r.at.Job(r.id)
					if r.published && v.Answer.State != tasks.Done || !r.published && v.Record.State != tasks.Done {
						t.Fatalf("job %s: %+v", r.id, v)
					}
				}
				now = now[:0]
			}
			for i := part * jobs / parts; i < (part+1)*jobs/parts; i++ {
				at, id, published := soakJob(m, i)
				if now = append(now, running{at, id, published}); len(now) == atOnce {
					wait()
				}
			}
			wait()
			sim.Sleep(16 * time.Minute) // retention, and what was fetched for tasks and for splits
			for _, n := range m.Nodes {
				n.ForgetRuns()
				n.LetUploadsGo()
				if _, err := n.Blocks.GC(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			h := look(t, m, (part+1)*jobs/parts)
			seen = append(seen, h)
			if testing.Verbose() {
				t.Logf("after %5d jobs: %4d goroutines, %3d files, %5.1f MB; rows %v", h.jobs, h.goroutines, h.files, h.heap/1e6, h.rows)
			}
			for _, table := range slices.Sorted(maps.Keys(h.rows)) {
				if n := h.rows[table]; n > 0 && lasting[table] == "" {
					t.Errorf("after %d jobs %d rows are left in %s", h.jobs, n, table)
				}
			}
			if t.Failed() {
				return
			}
		}
		early, late := seen[2:4], seen[18:20] // at the ends of the second tenth's halves, and of the last's
		flat := func(what string, slack float64, of func(held) float64) {
			a, b := (of(early[0])+of(early[1]))/2, (of(late[0])+of(late[1]))/2
			t.Logf("%s: %.1f in the second tenth of %d jobs, %.1f in the last (%+.1f%%)", what, a, jobs, b, 100*(b-a)/max(a, 1))
			if b > a*1.1+slack {
				t.Errorf("%s grew from %.1f to %.1f", what, a, b)
			}
		}
		// The newest 1,024 to 2,048 events of each node stay for its API's subscribers,
		// and a database opens up to four connections as they are needed, two files each.
		const events, connections = 1.0, 4 * 4 * 2
		flat("goroutines", 0, func(h held) float64 { return float64(h.goroutines) })
		flat("open files", connections, func(h held) float64 { return float64(h.files) })
		flat("heap, MB", events, func(h held) float64 { return h.heap / 1e6 })
		for _, table := range []string{"storage_roots", "storage_blocks", "storage_pins"} {
			flat("rows of "+table, 0, func(h held) float64 { return float64(h.rows[table]) })
		}
		if n := seen[parts-1].rows["tallies"]; n > len(m.Nodes)*len(m.Nodes) {
			t.Errorf("%d tallies of %d nodes", n, len(m.Nodes))
		}
		t.Logf("rows that are kept for %s: %d of said", lasting["said"], seen[parts-1].rows["said"])
		t.Logf("%v of virtual time", time.Since(began).Round(time.Second))
	})
}
