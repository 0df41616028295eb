package chaos

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Checked is what the checker found.
type Checked struct {
	Jobs, Published, Quorum, Failing int      // acknowledged
	Tasks                            int      // with a result that was read
	Adds, Invites, Settings, Joins   int      // acknowledged
	Reads                            int      // of content
	Faults                           []string // what was said is not so
	Open                             []string // what was promised did not come in time
}

// Check reads what clients logged, and nothing else. Each log is one client's,
// in its order. nodes is the log of when nodes were up: it only serves to tell a
// worker that died from one that is blamed for silence and was there all the time.
//
//   - What was acknowledged is there at the end: jobs are over, as they should be,
//     what was added has its bytes, an invite is listed, the policy holds.
//   - What was said stays said: a job that was over never is anything else, its
//     output never changes, nor does that of a decided task, nor the one answer to
//     a published job; a withdrawn invite stays so.
//   - What was let go of is gone after a collection, and its room is given back.
//   - Each task counts once: its number stands once in the output, in its place,
//     and without replicas one try of it was accepted; a lease is one worker's; a
//     try that was accepted, or that failed, stays so, and nobody is blamed for
//     what it said: nobody lies here; nor for silence, but who may have been down.
//   - A host that gave a published job up holds it later at a higher term only, and
//     one that let go of it never again.
func Check(logs map[string][]Entry, nodes []Entry) Checked {
	c := &checker{downs: downs(nodes)}
	if len(logs) == 0 {
		c.fault("checker", "there are no logs")
	}
	for name, log := range logs {
		c.client(name, log)
	}
	slices.Sort(c.Faults)
	slices.Sort(c.Open)
	return c.Checked
}

type checker struct {
	Checked
	downs map[string][]span // by node; nil of one whose lives are not known
}

func (c *checker) fault(client, format string, args ...any) {
	c.Faults = append(c.Faults, client+": "+fmt.Sprintf(format, args...))
}

func (c *checker) open(client, format string, args ...any) {
	c.Open = append(c.Open, client+": "+fmt.Sprintf(format, args...))
}

// jobLog is what one client heard of one job.
type jobLog struct {
	want    Want
	id      string
	over    *Entry
	bytes   *Entry
	gone    bool
	outputs map[string]string // of decided tasks
	leases  map[string]string // whose each is
	tries   map[string]string // those that have ended for good, and how
	last    []Task
	read    bool // its content
	acked   int64
	blamed  map[string]bool   // tries
	gaveUp  map[string]uint64 // by host: the term of the origin that it keeps the job for
	let     map[string]bool   // hosts that hold it no more
}

func (c *checker) client(name string, log []Entry) {
	intents := map[string]Entry{}
	jobs := map[string]*jobLog{}
	adds := map[string]Entry{} // by CID: the intent
	dropped := map[string]bool{}
	addRead := map[string]bool{}
	invites := map[string]string{} // what is known of each
	paused := map[string]bool{"running": true}
	joined := map[string]string{}
	owes := map[string]int64{}
	unread := map[string]string{} // by CID: content that was not there in time, and why
	ended := false
	for _, e := range log {
		ended = e.Op == Finished
		switch e.Op {
		case Intent:
			intents[e.Key] = e
			switch e.Want.Kind {
			case WantUnpin:
				dropped[e.CID] = true
			case WantRevoke:
				if invites[e.CID] == "open" {
					invites[e.CID] = "either"
				}
			case WantPause:
				paused["paused"] = true
			case WantResume:
				paused["running"] = true
			}
		case Acked:
			if intents[e.Key].Want == nil {
				c.fault(name, "%s was acknowledged and never asked for", e.Key)
				continue
			}
			w := *intents[e.Key].Want
			switch w.Kind {
			case WantJob:
				if jobs[e.Job] != nil {
					c.fault(name, "job %s was acknowledged twice", e.Job)
				}
				jobs[e.Job] = &jobLog{want: w, id: e.Key + " " + e.Job, outputs: map[string]string{}, leases: map[string]string{}, tries: map[string]string{},
					acked: e.At, blamed: map[string]bool{}, gaveUp: map[string]uint64{}, let: map[string]bool{}}
				c.Jobs++
				count(&c.Published, w.Published)
				count(&c.Quorum, w.Quorum)
				count(&c.Failing, w.Fails)
			case WantAdd:
				adds[e.CID] = intents[e.Key]
				c.Adds++
			case WantInvite:
				invites[e.CID] = "open"
				c.Invites++
			case WantRevoke:
				invites[e.CID] = "revoked"
			case WantPause:
				paused = map[string]bool{"paused": true}
				c.Settings++
			case WantResume:
				paused = map[string]bool{"running": true}
				c.Settings++
			case WantJoin: // CID: the invite, Node: who joined with it
				if by := joined[e.CID]; by != "" && by != e.Node {
					c.fault(name, "invite %s, good for one, let in %s and %s", e.CID, by, e.Node)
				}
				joined[e.CID] = e.Node
				c.Joins++
			}
		case Seen:
			if j := jobs[e.Job]; j != nil {
				c.seen(name, j, e)
			}
		case Tried:
			if j := jobs[e.Job]; j != nil {
				c.tried(name, j, e)
			}
		case Bytes:
			c.Reads++
			delete(unread, e.CID)
			if j := jobs[e.Job]; j != nil {
				c.content(name, j, e)
			} else if in, ok := adds[e.CID]; ok {
				addRead[e.CID] = true
				if in.Sum != e.Sum {
					c.fault(name, "%s: added bytes with sum %s, read %s of %d bytes", e.CID, in.Sum, e.Sum, e.Size)
				}
			}
		case NoBytes:
			switch {
			case dropped[e.CID]:
			case e.State == "": // its node was down, perhaps
				unread[e.CID] = fmt.Sprintf("%s of %s was not read: %s", e.CID, e.Key, e.Text)
			default:
				c.fault(name, "%s of %s can't be read: %s", e.CID, e.Key, e.Text)
			}
		case Gone:
			switch j := jobs[e.Job]; {
			case j != nil && j.want.Brief && j.over != nil:
				j.gone = true
			case j != nil:
				c.fault(name, "job %s was acknowledged and is not known", j.id)
			case invites[e.CID] != "":
				c.fault(name, "invite %s was acknowledged and is not listed", e.CID)
			}
		case Held:
			if j := jobs[e.Job]; j != nil {
				c.held(name, j, e)
			}
		case Let:
			if j := jobs[e.Job]; j != nil {
				j.let[e.Node] = true
			}
		case Owes:
			if n, told := owes[e.Node]; told && e.Size > n {
				c.fault(name, "%s owed %d answers, took no work, and owes %d", e.Node, n, e.Size)
			}
			owes[e.Node] = e.Size
		case Given:
			if e.State == "yes" {
				c.fault(name, "%s, of what was let go of and collected, was given to another member", e.CID)
			}
		case Swept:
			if e.State == "here" {
				c.fault(name, "%s was unpinned and collected, and is here", e.CID)
			}
		case Room:
			if e.Size >= e.Was+e.Added/2 {
				c.fault(name, "%d bytes were added to %d, let go of and collected, and %d are on disk", e.Added, e.Was, e.Size)
			}
		case Listed:
			if is := invites[e.CID]; is != "either" && is != e.State {
				c.fault(name, "invite %s is %s and listed as %s", e.CID, is, e.State)
			}
			if e.State == "revoked" { // also when that was not acknowledged
				invites[e.CID] = e.State
			}
		case Setting:
			if !paused[e.State] {
				c.fault(name, "the node is %s, which is not what it was last told", e.State)
			}
		}
	}
	for _, why := range unread {
		c.open(name, "%s", why)
	}
	switch {
	case len(log) == 0:
		c.open(name, "the log is empty: the client never began")
	case !ended:
		c.open(name, "the client did not end: something acknowledged is still open, or it failed")
	}
	for id, in := range adds {
		if !dropped[id] && !addRead[id] {
			c.open(name, "%s, added as %s, was never read", id, in.Key)
		}
	}
	for _, j := range jobs {
		c.end(name, j)
	}
}

func count(n *int, ok bool) {
	if ok {
		*n++
	}
}

func (c *checker) seen(name string, j *jobLog, e Entry) {
	if j.gone {
		c.fault(name, "job %s was gone, past its retention, and is %s again", j.id, e.State)
	}
	if j.over != nil && (j.over.State != e.State || j.over.CID != e.CID || j.over.Origin != e.Origin || j.over.Term != e.Term) {
		c.fault(name, "job %s was %s with output %q of %q at term %d, then %s with %q of %q at term %d", j.id,
			j.over.State, j.over.CID, j.over.Origin, j.over.Term, e.State, e.CID, e.Origin, e.Term)
	}
	if j.want.Brief && j.over != nil && j.over.At > 0 && e.At-j.over.At > (briefTime+staleTime).Milliseconds() {
		c.fault(name, "job %s is past its retention for %d s, and is still known", j.id, (e.At-j.over.At)/1000-int64(briefTime.Seconds()))
	}
	if over(e.State) && j.over == nil {
		j.over = &e
	}
}

// staleTime is how long a job that is past its retention may be known: its node may
// be down, and then has much to do.
const staleTime = 30 * time.Second

// held looks at a published job as one of its hosts shows it.
func (c *checker) held(name string, j *jobLog, e Entry) {
	switch term := j.gaveUp[e.Node]; {
	case j.let[e.Node] && !over(e.State):
		c.fault(name, "job %s: %s let go of it, and is shown to hold it again, %s", j.id, e.Node, e.State)
	case e.Origin == e.Node && e.Term <= term:
		c.fault(name, "job %s: %s gave it up at term %d, and is its origin at term %d", j.id, e.Node, term, e.Term)
	case e.Origin != e.Node:
		j.gaveUp[e.Node] = max(term, e.Term)
	}
}

func (c *checker) tried(name string, j *jobLog, e Entry) {
	for _, t := range e.Tasks {
		at := fmt.Sprintf("%s task %d", t.Stage, t.Index)
		if was := j.outputs[at]; was != "" && was != t.Output {
			c.fault(name, "job %s: %s was decided as %s, then shown with %q", j.id, at, was, t.Output)
		}
		if t.Output != "" {
			j.outputs[at] = t.Output
		}
		for _, a := range t.Tries {
			if by := j.leases[a.Lease]; by != "" && by != a.Worker {
				c.fault(name, "job %s: lease %s was %s's, then %s's", j.id, a.Lease, by, a.Worker)
			}
			j.leases[a.Lease] = a.Worker
			try := fmt.Sprintf("%s, lease %s, replica %d", at, a.Lease, a.Replica)
			if was := j.tries[try]; was != "" && was != a.State {
				c.fault(name, "job %s: the try of %s was %s, then %s", j.id, try, was, a.State)
			}
			if a.State == "rejected" && !j.blamed[try] {
				j.blamed[try] = true
				c.blamed(name, j, a, try, e.At)
			}
			if a.State == "accepted" || a.State == "failed" {
				j.tries[try] = a.State
			}
		}
	}
	if j.over != nil && len(e.Tasks) > 0 {
		j.last = e.Tasks
	}
}

// content holds a job's output against what each of its tasks was to write.
func (c *checker) content(name string, j *jobLog, e Entry) {
	switch {
	case j.bytes == nil:
		j.bytes = &e
	case j.bytes.Sum != e.Sum || j.bytes.CID != e.CID:
		c.fault(name, "job %s: the output changed from %s (%s) to %s (%s)", j.id, j.bytes.CID, j.bytes.Sum, e.CID, e.Sum)
	default:
		return
	}
	j.read = true
	w := j.want
	if want := int64(w.Tasks * (line + w.Random)); e.Size != want {
		c.fault(name, "job %s: the output has %d bytes, not %d", j.id, e.Size, want)
	}
	lines := strings.Fields(string(e.Data))
	for i := range max(len(lines), w.Tasks) {
		n := -1
		if i < len(lines) {
			n, _ = strconv.Atoi(lines[i]) // 0 is no task's number
		}
		if i >= w.Tasks || n != w.First+i {
			c.fault(name, "job %s: place %d has task %d, not %d", j.id, i, n, w.First+i)
			return
		}
	}
	c.Tasks += w.Tasks
}

// end looks at what is known of a job when its client has ended.
func (c *checker) end(name string, j *jobLog) {
	want := "done"
	if j.want.Fails {
		want = "failed"
	}
	switch {
	case j.over == nil:
		c.open(name, "job %s was acknowledged and is not over", j.id)
		return
	case j.over.State != want:
		c.fault(name, "job %s is %s, not %s: %s", j.id, j.over.State, want, j.over.Text)
	case want == "done" && !j.read && !j.gone:
		c.open(name, "job %s is done and its output was never read", j.id)
	}
	if j.want.Published || j.want.Quorum || j.want.Fails || j.gone {
		return
	}
	for _, t := range j.last {
		accepted := 0
		for _, a := range t.Tries {
			count(&accepted, a.State == "accepted")
		}
		if accepted != 1 {
			c.fault(name, "job %s: %s task %d has %d accepted tries, not 1: %+v", j.id, t.Stage, t.Index, accepted, t.Tries)
		}
	}
}
