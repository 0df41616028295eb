package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/tasks"
)

// A log is made by hand here: what a client wrote of one job, from its wish to
// its last look. Each case changes one thing of it.
const (
	jobID  = "job1"
	output = "cid-output"
)

func want(w Want) *Want { return &w }

func lines(numbers ...int) (b []byte) {
	for _, n := range numbers {
		b = fmt.Appendf(b, "%08d\n", n)
	}
	return b
}

func tries(index uint32, output string, states ...string) Task {
	t := Task{Stage: "map", Index: index, Output: output}
	for i, s := range states {
		t.Tries = append(t.Tries, Try{Lease: fmt.Sprintf("t1-%d%d", index, i), Worker: fmt.Sprintf("worker%d", i), State: s})
	}
	return t
}

// goodJob is the log of a job of two tasks that went well.
func goodJob() []Entry {
	return []Entry{
		{Op: Begun},
		{Op: Intent, Key: "c0-1", Want: want(Want{Kind: WantJob, First: 10, Tasks: 2, Random: 16})},
		{Op: Acked, Key: "c0-1", Job: jobID},
		{Op: Seen, Job: jobID, State: "running"},
		{Op: Tried, Job: jobID, Tasks: []Task{tries(0, "a", "accepted"), tries(1, "", "lost", "held")}},
		{Op: Seen, Job: jobID, State: "done", CID: output},
		{Op: Tried, Job: jobID, Tasks: []Task{tries(0, "a", "accepted"), tries(1, "b", "lost", "accepted")}},
		{Op: Bytes, Job: jobID, CID: output, Size: 2 * (line + 16), Sum: "sum", Data: lines(10, 11)},
		{Op: Seen, Job: jobID, State: "done", CID: output},
		{Op: Bytes, Job: jobID, CID: output, Size: 2 * (line + 16), Sum: "sum", Data: lines(10, 11)},
		{Op: Finished},
	}
}

// goodOthers is the log of all that is not a job.
func goodOthers() []Entry {
	return []Entry{
		{Op: Begun},
		{Op: Intent, Key: "c0-1", Sum: "sum1", Want: want(Want{Kind: WantAdd})},
		{Op: Acked, Key: "c0-1", CID: "kept"},
		{Op: Intent, Key: "c0-2", Sum: "sum2", Want: want(Want{Kind: WantAdd})},
		{Op: Acked, Key: "c0-2", CID: "dropped"},
		{Op: Intent, Key: "c0-3", CID: "dropped", Want: want(Want{Kind: WantUnpin})},
		{Op: Acked, Key: "c0-3", CID: "dropped"},
		{Op: Intent, Key: "c0-4", Want: want(Want{Kind: WantInvite})},
		{Op: Acked, Key: "c0-4", CID: "inv"},
		{Op: Listed, CID: "inv", State: "open"},
		{Op: Intent, Key: "c0-5", CID: "inv", Want: want(Want{Kind: WantRevoke})},
		{Op: Acked, Key: "c0-5", CID: "inv"},
		{Op: Intent, Key: "c0-6", Want: want(Want{Kind: WantPause})},
		{Op: Acked, Key: "c0-6"},
		{Op: Setting, State: "paused"},
		{Op: NoBytes, Key: "c0-1", CID: "kept", Text: "its node is down"},
		{Op: Bytes, Key: "c0-1", CID: "kept", Sum: "sum1"},
		{Op: Listed, CID: "inv", State: "revoked"},
		{Op: Intent, Key: "join-0", CID: "one", Want: want(Want{Kind: WantJoin})},
		{Op: Acked, Key: "join-0", CID: "one", Node: "peer1"},
		{Op: Swept, CID: "dropped"},
		{Op: Room, Was: 100, Added: 1000, Size: 300},
		{Op: Given, CID: "block"},
		{Op: Owes, Node: "worker0", Size: 1},
		{Op: Owes, Node: "worker0", Size: 0},
		{Op: Finished},
	}
}

// goodHosts is what two hosts showed of a published job: one gave it up at term 2,
// took it back at term 3 and let go of it.
func goodHosts() []Entry {
	return before(change(goodJob(), Intent, 1, func(e *Entry) { e.Want.Published = true }),
		Entry{Op: Held, Job: jobID, Node: "host1", State: "running", Origin: "host1", Term: 1},
		Entry{Op: Held, Job: jobID, Node: "host1", State: "kept", Origin: "host2", Term: 2},
		Entry{Op: Held, Job: jobID, Node: "host2", State: "running", Origin: "host2", Term: 2},
		Entry{Op: Held, Job: jobID, Node: "host1", State: "running", Origin: "host1", Term: 3},
		Entry{Op: Let, Job: jobID, Node: "host1"},
		Entry{Op: Held, Job: jobID, Node: "host1", State: "done", Term: 3},
		Entry{Op: Held, Job: jobID, Node: "host2", State: "kept", Origin: "host1", Term: 3})
}

func without(log []Entry, drop func(Entry) bool) []Entry { return slices.DeleteFunc(log, drop) }

// before puts entries in front of the client's last word.
func before(log []Entry, more ...Entry) []Entry { return slices.Insert(log, len(log)-1, more...) }

// change edits the nth entry of a kind.
func change(log []Entry, op Op, n int, edit func(*Entry)) []Entry {
	for i := range log {
		if log[i].Op == op {
			if n--; n == 0 {
				edit(&log[i])
			}
		}
	}
	return log
}

func TestChecker(t *testing.T) {
	brief := func(log []Entry) []Entry {
		return change(log, Intent, 1, func(e *Entry) { e.Want.Brief = true })
	}
	gone := Entry{Op: Gone, Job: jobID}
	for name, c := range map[string]struct {
		log   []Entry
		fault string // "": none
		open  string // "": nothing
	}{
		"a job that went well":          {log: goodJob()},
		"the rest, well":                {log: goodOthers()},
		"a brief job that is gone":      {log: before(brief(goodJob()), gone)},
		"hosts that gave up and let go": {log: goodHosts()},
		"a client that was killed":      {log: slices.Insert(goodJob(), 4, Entry{Op: Begun})},
		"an unacknowledged job lost":    {log: []Entry{{Op: Intent, Key: "k", Want: want(Want{Kind: WantJob})}, {Op: Failed, Key: "k"}, {Op: Finished}}},
		"a withdrawal that may be":      {log: before(change(goodOthers(), Acked, 5, func(e *Entry) { e.Op = Failed }), Entry{Op: Listed, CID: "inv", State: "revoked"})},
		"an unpin that may be, unread":  {log: before(without(goodOthers(), func(e Entry) bool { return e.Op == Acked && e.Key == "c0-3" }), Entry{Op: NoBytes, CID: "dropped", State: "missing"})},

		"an acknowledged job lost":           {log: before(goodJob(), gone), fault: "job c0-1 job1 was acknowledged and is not known"},
		"a brief job lost before it is over": {log: slices.Insert(brief(goodJob()), 4, gone), fault: "was acknowledged and is not known"},
		"a brief job that comes back":        {log: before(brief(goodJob()), gone, Entry{Op: Seen, Job: jobID, State: "done", CID: output}), fault: "was gone, past its retention, and is done again"},
		"acknowledged twice":                 {log: slices.Insert(goodJob(), 3, Entry{Op: Acked, Key: "c0-1", Job: jobID}), fault: "job job1 was acknowledged twice"},
		"acknowledged and never asked for":   {log: before(goodJob(), Entry{Op: Acked, Key: "c0-9", Job: "other"}), fault: "c0-9 was acknowledged and never asked for"},
		"done, then running":                 {log: before(goodJob(), Entry{Op: Seen, Job: jobID, State: "running"}), fault: `then running with ""`},
		"another output": {log: before(goodJob(), Entry{Op: Seen, Job: jobID, State: "done", CID: "cid-other"}),
			fault: `was done with output "cid-output" of "" at term 0, then done with "cid-other"`},
		"another origin's answer": {log: before(goodJob(), Entry{Op: Seen, Job: jobID, State: "done", CID: output, Origin: "peer2", Term: 2}), fault: `of "peer2" at term 2`},
		"failed where it should be done": {log: change(change(goodJob(), Seen, 2, func(e *Entry) { e.State = "failed" }), Seen, 3, func(e *Entry) { e.State = "failed" }),
			fault: "is failed, not done"},
		"other bytes later":         {log: change(goodJob(), Bytes, 2, func(e *Entry) { e.Sum = "other" }), fault: "the output changed from cid-output (sum) to cid-output (other)"},
		"a result counted twice":    {log: change(goodJob(), Bytes, 1, func(e *Entry) { e.Data, e.Size = lines(10, 11, 11), 3*(line+16) }), fault: "the output has 75 bytes, not 50"},
		"one in the place of two":   {log: change(goodJob(), Bytes, 1, func(e *Entry) { e.Data = lines(10, 10) }), fault: "place 1 has task 10, not 11"},
		"a task's line is missing":  {log: change(goodJob(), Bytes, 1, func(e *Entry) { e.Data = lines(10) }), fault: "place 1 has task -1, not 11"},
		"out of order":              {log: change(goodJob(), Bytes, 1, func(e *Entry) { e.Data = lines(11, 10) }), fault: "place 0 has task 11, not 10"},
		"a decided task changes":    {log: change(goodJob(), Tried, 2, func(e *Entry) { e.Tasks[0].Output = "z" }), fault: `map task 0 was decided as a, then shown with "z"`},
		"a decided task is not":     {log: change(goodJob(), Tried, 2, func(e *Entry) { e.Tasks[0].Output = "" }), fault: `map task 0 was decided as a, then shown with ""`},
		"a lease of two workers":    {log: change(goodJob(), Tried, 2, func(e *Entry) { e.Tasks[0].Tries[0].Worker = "other" }), fault: "lease t1-00 was worker0's, then other's"},
		"two tries accepted":        {log: change(goodJob(), Tried, 2, func(e *Entry) { e.Tasks[1].Tries[0].State = "accepted" }), fault: "map task 1 has 2 accepted tries, not 1"},
		"no try accepted":           {log: change(goodJob(), Tried, 2, func(e *Entry) { e.Tasks[1].Tries[1].State = "late" }), fault: "map task 1 has 0 accepted tries, not 1"},
		"an accepted try is lost":   {log: change(goodJob(), Tried, 2, func(e *Entry) { e.Tasks[0].Tries[0].State = "lost" }), fault: "map task 0, lease t1-00, replica 0 was accepted, then lost"},
		"a failed try is forgotten": {log: change(goodJob(), Tried, 1, func(e *Entry) { e.Tasks[1].Tries[0].State = "failed" }), fault: "map task 1, lease t1-10, replica 0 was failed, then lost"},
		"an honest worker blamed": {log: change(goodJob(), Tried, 2, func(e *Entry) {
			e.Tasks[1].Tries[0].State, e.Tasks[1].Tries[0].Why = "rejected", uint32(tasks.NotCommitted)
		}),
			fault: "job c0-1 job1: honest worker0 is blamed for the try of map task 1, lease t1-10, replica 0: "},
		"a worker that died when asked": {log: change(goodJob(), Tried, 2, func(e *Entry) {
			e.Tasks[1].Tries[0].State, e.Tasks[1].Tries[0].Why = "rejected", uint32(tasks.NotRevealed)
		})},
		"an answer that came late": {log: change(goodJob(), Tried, 2, func(e *Entry) {
			e.Tasks[1].Tries[0].State, e.Tasks[1].Tries[0].Why = "rejected", uint32(tasks.LateReceipt)
		})},
		"a job that does not end":    {log: without(goodJob(), func(e Entry) bool { return e.State == "done" || e.Op == Bytes }), open: "job c0-1 job1 was acknowledged and is not over"},
		"an output that nobody read": {log: without(goodJob(), func(e Entry) bool { return e.Op == Bytes }), open: "is done and its output was never read"},
		"an output that is missing": {log: before(goodJob(), Entry{Op: NoBytes, Key: "c0-1", CID: output, State: "missing", Text: "no such block"}),
			fault: "cid-output of c0-1 can't be read: no such block"},

		"other bytes than added":     {log: change(goodOthers(), Bytes, 1, func(e *Entry) { e.Sum = "sum9" }), fault: "kept: added bytes with sum sum1, read sum9"},
		"added and never read":       {log: without(goodOthers(), func(e Entry) bool { return e.Op == Bytes }), open: "kept, added as c0-1, was never read"},
		"added and not there":        {log: before(goodOthers(), Entry{Op: NoBytes, Key: "c0-1", CID: "kept", State: "missing", Text: "gone"}), fault: "kept of c0-1 can't be read: gone"},
		"added and not read in time": {log: before(goodOthers(), Entry{Op: NoBytes, Key: "c0-1", CID: "kept", Text: "timeout"}), open: "kept of c0-1 was not read: timeout"},
		"unpinned and still here":    {log: change(goodOthers(), Swept, 1, func(e *Entry) { e.State = "here" }), fault: "dropped was unpinned and collected, and is here"},
		"its room not given back":    {log: change(goodOthers(), Room, 1, func(e *Entry) { e.Size = 1100 }), fault: "1000 bytes were added to 100, let go of and collected, and 1100 are on disk"},
		"an invite lost":             {log: before(goodOthers(), Entry{Op: Gone, CID: "inv"}), fault: "invite inv was acknowledged and is not listed"},
		"a withdrawn invite is open": {log: before(goodOthers(), Entry{Op: Listed, CID: "inv", State: "open"}), fault: "invite inv is revoked and listed as open"},
		"seen withdrawn, then open": {log: before(without(goodOthers(), func(e Entry) bool { return e.Op == Acked && e.Key == "c0-5" }), Entry{Op: Listed, CID: "inv", State: "open"}),
			fault: "invite inv is revoked and listed as open"},
		"an invite for one lets in two": {log: before(goodOthers(), Entry{Op: Intent, Key: "join-1", CID: "one", Want: want(Want{Kind: WantJoin})}, Entry{Op: Acked, Key: "join-1", CID: "one", Node: "peer2"}),
			fault: "invite one, good for one, let in peer1 and peer2"},
		"held again after it was let go of": {log: before(goodHosts(), Entry{Op: Held, Job: jobID, Node: "host1", State: "kept", Term: 3}),
			fault: "host1 let go of it, and is shown to hold it again, kept"},
		"held at the term that it was given up at": {log: change(goodHosts(), Held, 4, func(e *Entry) { e.Term = 2 }), fault: "host1 gave it up at term 2, and is its origin at term 2"},
		"judged, and owed again":                   {log: before(goodOthers(), Entry{Op: Owes, Node: "worker0", Size: 1}), fault: "worker0 owed 0 answers, took no work, and owes 1"},
		"given to others":                          {log: change(goodOthers(), Given, 1, func(e *Entry) { e.State = "yes" }), fault: "block, of what was let go of and collected, was given to another member"},
		"past its retention": {log: change(change(brief(goodJob()), Seen, 2, func(e *Entry) { e.At = 1 }), Seen, 3, func(e *Entry) { e.At = 100_000 }),
			fault: "is past its retention for 39 s, and is still known"},
		"not long past its retention": {log: change(change(brief(goodJob()), Seen, 2, func(e *Entry) { e.At = 1 }), Seen, 3, func(e *Entry) { e.At = 80_000 })},
		"a pause forgotten":           {log: before(goodOthers(), Entry{Op: Setting, State: "running"}), fault: "the node is running, which is not what it was last told"},

		"a client that did not end":   {log: goodJob()[:10], open: "the client did not end"},
		"a client killed at the end":  {log: append(goodJob(), Entry{Op: Begun}), open: "the client did not end"},
		"a client that said nothing":  {log: []Entry{}, open: "the log is empty: the client never began"},
		"a client that began, and no": {log: []Entry{{Op: Begun}}, open: "the client did not end"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Check(map[string][]Entry{"client": c.log}, nil)
			for what, list := range map[string]struct {
				got  []string
				want string
			}{"faults": {got.Faults, c.fault}, "open": {got.Open, c.open}} {
				if list.want == "" && len(list.got) > 0 {
					t.Errorf("%s: %q, want none", what, list.got)
				}
				if list.want != "" && !strings.Contains(strings.Join(list.got, "\n"), list.want) {
					t.Errorf("%s: %q, want one with %q", what, list.got, list.want)
				}
				for _, s := range list.got {
					if !strings.HasPrefix(s, "client: ") {
						t.Errorf("%q does not say whose log it is of", s)
					}
				}
			}
		})
	}
}

// Silence is blamed on who may have died; it is a fault when the worker was up from
// the job's beginning until the blame.
func TestCheckerKnowsWhoWasUp(t *testing.T) {
	up := []Entry{{Op: Up, Node: "worker0", At: 1_000}, {Op: Up, Node: "worker1", At: 1_000}}
	dead := Entry{Op: Down, Node: "worker0"}
	for _, c := range []struct {
		name  string
		nodes []Entry
		fault bool
	}{
		{"it was up all the time", up, true},
		{"its lives are not known", up[1:], false},
		{"it died meanwhile", append(slices.Clone(up), Entry{Op: dead.Op, Node: dead.Node, At: 25_000}), false},
		{"it was back before, and ready", append(slices.Clone(up), Entry{Op: Down, Node: "worker0", At: 5_000}, Entry{Op: Up, Node: "worker0", At: 6_000}), true},
		{"it was back just then", append(slices.Clone(up), Entry{Op: Down, Node: "worker0", At: 5_000}, Entry{Op: Up, Node: "worker0", At: 19_000}), false},
		{"it was not back", append(slices.Clone(up), Entry{Op: Down, Node: "worker0", At: 5_000}), false},
		{"it is known to be dead a moment later", append(slices.Clone(up), Entry{Op: Down, Node: "worker0", At: 31_000}), false},
		{"it died later", append(slices.Clone(up), Entry{Op: Down, Node: "worker0", At: 40_000}), true},
		{"it had just begun", []Entry{{Op: Up, Node: "worker0", At: 19_000}}, false},
		{"another died", append(slices.Clone(up), Entry{Op: Down, Node: "worker1", At: 25_000}), true},
	} {
		for _, why := range []tasks.Reason{tasks.NotRevealed, tasks.OutputMissing} {
			log := change(change(goodJob(), Acked, 1, func(e *Entry) { e.At = 20_000 }), Tried, 2, func(e *Entry) {
				e.At = 30_000
				e.Tasks[1].Tries[0].State, e.Tasks[1].Tries[0].Why = "rejected", uint32(why)
			})
			got := Check(map[string][]Entry{"client": log}, c.nodes).Faults
			if !c.fault && len(got) > 0 || c.fault && (len(got) != 1 || !strings.Contains(got[0], "worker0, which was up all the time, is blamed")) {
				t.Errorf("%s, %v: %q", c.name, why, got)
			}
		}
	}
}

// A checker that was given nothing to check has found nothing well.
func TestCheckerWantsLogs(t *testing.T) {
	if got := Check(nil, nil).Faults; len(got) != 1 || !strings.Contains(got[0], "there are no logs") {
		t.Errorf("without logs: %q", got)
	}
}

// What was acknowledged is counted: a run in which nothing was is no proof.
func TestCheckerCounts(t *testing.T) {
	got := Check(map[string][]Entry{"a": goodJob(), "b": goodOthers()}, nil)
	if got.Jobs != 1 || got.Tasks != 2 || got.Adds != 2 || got.Invites != 1 || got.Settings != 1 || got.Joins != 1 || got.Reads != 3 {
		t.Errorf("counted %+v", got)
	}
}
