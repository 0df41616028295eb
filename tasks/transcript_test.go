package tasks_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/verify"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestTranscripts runs each testdata/*.txt: a block is one command a line, a
// line "----", and what came of it, up to an empty line. Lines with # are
// comments. The machines are deterministic, so what comes is exact.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, now: epochStart, rng: rand.New(rand.NewPCG(1, 2))}
			got := s.run(string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("differs (go test -run TestTranscripts -update rewrites it):\n%s", firstDifference(string(text), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < len(a) || i < len(b); i++ {
		x, y := "", ""
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d:\n- %s\n+ %s", i+1, x, y)
		}
	}
	return ""
}

// script plays one transcript against whichever machine its first command makes.
type script struct {
	t      *testing.T
	now    time.Time
	rng    *rand.Rand
	cfg    tasks.OriginConfig
	job    tasks.Job
	origin *tasks.Origin
	worker *tasks.Worker
	adopt  *tasks.Adoption
	submit *tasks.Submission
	disk   tasks.Records
	out    strings.Builder
}

func (s *script) run(text string) string {
	var b strings.Builder
	for _, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		input, _, _ := strings.Cut(block, "\n----")
		b.WriteString(input)
		s.out.Reset()
		ran := false
		for _, line := range strings.Split(input, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				s.command(line)
				ran = true
			}
		}
		if ran {
			b.WriteString("\n----\n" + s.out.String())
		} else {
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// args are the key=value words of a command.
type args struct {
	t    *testing.T
	line string
	kv   map[string]string
	used map[string]bool
}

func (a args) str(key, fallback string) string {
	a.used[key] = true
	if v, ok := a.kv[key]; ok {
		return v
	}
	return fallback
}

func (a args) num(key string, fallback uint64) uint64 {
	n, err := strconv.ParseUint(a.str(key, fmt.Sprint(fallback)), 10, 64)
	if err != nil {
		a.t.Fatalf("%s: %s: %v", a.line, key, err)
	}
	return n
}

func (a args) dur(key string) time.Duration {
	d, err := time.ParseDuration(a.str(key, "0s"))
	if err != nil {
		a.t.Fatalf("%s: %s: %v", a.line, key, err)
	}
	return d
}

func (a args) has(key string) bool { _, ok := a.kv[key]; a.used[key] = true; return ok }

func (a args) list(key string) []string {
	if v := a.str(key, ""); v != "" {
		return strings.Split(v, ",")
	}
	return nil
}

func (a args) ref(key string) tasks.Ref {
	v := a.str(key, "0")
	if rest, ok := strings.CutPrefix(v, "reduce/"); ok {
		n, _ := strconv.ParseUint(rest, 10, 32)
		return tasks.Ref{Stage: tasks.StageReduce, Index: uint32(n)}
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		a.t.Fatalf("%s: %s: %v", a.line, key, err)
	}
	return tasks.Ref{Index: uint32(n)}
}

func (s *script) command(line string) {
	words := strings.Fields(line)
	a := args{s.t, line, make(map[string]string), make(map[string]bool)}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		a.kv[k] = v
	}
	s.now = s.now.Add(a.dur("after"))
	switch {
	case words[0] == "origin" || words[0] == "restore":
		s.newOrigin(words[0], a)
	case words[0] == "worker":
		w, err := tasks.NewWorker(tasks.WorkerConfig{Self: "me", Rand: s.rng, Limits: tasks.SetLimits{Slots: uint32(a.num("slots", 1)), Memory: int64(a.num("memory", 0))}})
		s.must(err)
		s.worker = w
	case words[0] == "host":
		s.newHost(a)
	case words[0] == "back":
		s.backHost(a)
	case words[0] == "submitter":
		m, err := tasks.NewSubmission(tasks.SubmissionConfig{Self: "user", Rand: s.rng}, "job", nil, s.now)
		s.must(err)
		s.submit = m
	case s.origin != nil:
		s.originCommand(words[0], a)
	case s.worker != nil:
		s.workerCommand(words[0], a)
	case s.adopt != nil:
		s.adoptCommand(words[0], a)
	case s.submit != nil:
		s.submitCommand(words[0], a)
	default:
		s.t.Fatalf("%s: no machine yet", line)
	}
	for k := range a.kv {
		if !a.used[k] {
			s.t.Fatalf("%s: unknown word %s", line, k)
		}
	}
}

func (s *script) must(err error) {
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) printf(format string, v ...any) { fmt.Fprintf(&s.out, format+"\n", v...) }

// at writes a time as the distance from the transcript's start.
func (s *script) at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Sub(epochStart).Round(time.Millisecond).String()
}

func refText(r tasks.Ref) string { return fmt.Sprintf("%v/%d", r.Stage, r.Index) }

func refsText(list []tasks.Ref) string {
	if list == nil {
		return "all"
	}
	var words []string
	for _, r := range list {
		words = append(words, refText(r))
	}
	return strings.Join(words, ",")
}

func verdictText(v tasks.Verdict) string {
	t := fmt.Sprintf("%s %s %s", v.Worker, v.Lease, refText(v.Ref))
	switch v.Status {
	case tasks.Accepted:
		if v.Related {
			return t + " accepted, of related peers"
		}
		return t + " accepted"
	case tasks.Pending:
		return t + " pending"
	}
	return fmt.Sprintf("%s rejected: %v", t, v.Reason)
}

func (s *script) newOrigin(what string, a args) {
	var err error
	if what == "restore" {
		s.origin, err = tasks.RestoreOrigin(s.cfg, s.job, s.disk, s.now)
		s.must(err)
		s.originStep(tasks.Tick{})
		return
	}
	sp := spec(uint32(a.num("replicas", 1)), a.has("reduce"))
	sp.Retry.Max = uint32(a.num("retry", 5))
	sp.Locality.MaxRTT = a.dur("maxrtt")
	sp.Nondeterministic = a.has("nondeterministic")
	s.job = tasks.Job{ID: "job", Spec: sp, Term: 1}
	for i := range a.num("tasks", 1) {
		s.disk.Tasks = append(s.disk.Tasks, tasks.Task{Ref: tasks.Ref{Index: uint32(i)}})
	}
	s.cfg = tasks.OriginConfig{Self: "origin", Judge: verify.Decide, Rand: s.rng}
	s.origin, err = tasks.NewOrigin(s.cfg, s.job, s.disk.Tasks)
	s.must(err)
	s.originStep(tasks.Tick{})
}

func (s *script) originCommand(name string, a args) {
	w := tasks.PeerID(a.str("w", "a"))
	standing := tasks.Standing{RTT: a.dur("rtt"), Unknown: a.has("far"), Accepted: uint32(a.num("known", 0)), Kin: a.list("kin")}
	lease, ref := tasks.LeaseID(a.str("lease", "")), a.ref("task")
	reason := tasks.Reason(a.num("reason", 0))
	out := tasks.CID(a.str("out", "x"))
	switch name {
	case "tick":
		s.originStep(tasks.Tick{})
	case "bid":
		s.originStep(tasks.BidIn{Bid: tasks.Bid{Job: "job", Worker: w, Slots: uint32(a.num("slots", 1)), Queue: a.dur("queue")}, Standing: standing})
	case "refuse":
		s.originStep(tasks.RefusedBy{Worker: w, Reason: reason, RetryAfter: a.dur("retry")})
	case "undelivered":
		s.originStep(tasks.LeaseFailed{Lease: lease, Worker: w, Reason: reason, RetryAfter: a.dur("retry")})
	case "report":
		r := tasks.Report{Job: "job", Worker: w, Want: uint32(a.num("want", 0)), Slots: uint32(a.num("slots", 1)), Queue: a.dur("queue")}
		for _, id := range a.list("held") {
			r.Held = append(r.Held, tasks.LeaseID(id))
		}
		s.originStep(tasks.ReportIn{Report: r, Standing: standing})
	case "receipt":
		r := tasks.Receipt{Job: "job", Ref: ref, Replica: uint32(a.num("replica", 0)), Lease: lease, Worker: w, Reason: reason, Detail: a.str("detail", "")}
		if reason == tasks.OK {
			if r.Output = out; !a.has("fetch") {
				r.Inline = []byte(out)
			}
		}
		in := tasks.ReceiptIn{Receipt: r}
		if a.has("reveal") { // what it hashes to
			h := tasks.Hash(sha256.Sum256([]byte(a.str("reveal", ""))))
			in.Opens = &h
		}
		s.originStep(in)
	case "commit":
		s.originStep(tasks.CommitIn{Commitment: tasks.Commitment{Job: "job", Ref: ref, Replica: uint32(a.num("replica", 0)), Lease: lease, Worker: w,
			Hash: sha256.Sum256([]byte(a.str("hash", "")))}})
	case "told":
		s.originStep(tasks.RevealTold{Worker: w, Lease: lease, Ref: ref, Replica: uint32(a.num("replica", 0))})
	case "held":
		s.originStep(tasks.HeldOutput{Ref: ref, Worker: w, Output: out, Size: 1})
	case "unheld":
		s.originStep(tasks.HoldFailed{Ref: ref, Worker: w, Output: out, Reason: reason})
	case "came":
		s.originStep(tasks.PeerCame{Worker: w})
	case "inputs":
		s.originStep(tasks.InputsBack{})
	case "gone":
		s.originStep(tasks.PeerGone{Worker: w})
	case "cancel":
		s.originStep(tasks.CancelJob{})
	case "superseded":
		s.originStep(tasks.Superseded{Term: a.num("term", 2), By: w})
	case "assembled":
		s.originStep(tasks.Assembled{Output: out, Size: 1})
	case "unassembled":
		s.originStep(tasks.AssembleFailed{Detail: a.str("detail", "")})
	case "why":
		for _, x := range s.origin.Why(s.now) {
			s.printf("%d: %s; next %s", x.Tasks, x.Text, s.at(x.Next))
		}
	case "status":
		x := s.origin.Status()
		s.printf("%v %v of %d decided, %d leased, %d waiting, %d releases, %d copies, %d failures", x.State, x.Decided, x.Tasks, x.Leased, x.Waiting, x.Releases, x.Copies, x.Failures)
		for _, p := range x.Workers {
			s.printf("  %s holds %d, accepted %d, failed %d, rejected %d, backs off until %s", p.Worker, p.Holds, p.Accepted, p.Failed, p.Rejected, s.at(p.Backoff))
		}
	case "tasks":
		for _, stage := range []tasks.Stage{tasks.StageMap, tasks.StageReduce} {
			for _, x := range s.origin.Tasks(stage, 0, 100) {
				s.printf("%s %v, %d releases", refText(x.Ref), x.State, x.Releases)
				for _, y := range x.Attempts {
					s.printf("  %s %s %v %v", y.Worker, y.Lease, y.State, y.Reason)
				}
			}
		}
	default:
		s.t.Fatalf("unknown command %s", name)
	}
}

func (s *script) originStep(ev tasks.Event) {
	for _, e := range s.origin.Step(s.now, ev) {
		switch e := e.(type) {
		case tasks.Announce:
			s.printf("announce round %d, %d waiting, radius %v, window %v", e.Offer.Round, e.Offer.Waiting, e.Offer.Radius, e.Offer.Window)
		case tasks.Probe:
			s.printf("probe %d", e.N)
		case tasks.Grant:
			s.disk.Grants = append(s.disk.Grants, e.Lease.Record())
			var list []string
			for _, x := range e.Lease.Assignments {
				list = append(list, fmt.Sprintf("%s#%d", refText(x.Task.Ref), x.Replica))
			}
			s.printf("grant %s to %s for %v: %s", e.Lease.ID, e.Lease.Worker, e.Lease.Duration, strings.Join(list, ","))
		case tasks.Renew:
			s.printf("renew %s %v", e.Worker, e.Leases)
		case tasks.Revoke:
			s.printf("revoke %s %s %s", e.Worker, e.Lease, refsText(e.Refs))
		case tasks.Hold:
			s.printf("hold %s of %s from %s, inline %v", e.Output, refText(e.Ref), e.Worker, e.Inline != nil)
		case tasks.Record:
			s.disk.Attempts = append(s.disk.Attempts, e.Attempt)
			s.printf("record %s %v; tell %s", refText(e.Attempt.Ref), e.Attempt.Reason, verdictText(e.Verdict))
		case tasks.Commit:
			s.disk.Commitments = append(s.disk.Commitments, e.Commitment)
			s.printf("keep the commitment of %s to %s", e.Commitment.Worker, refText(e.Commitment.Ref))
		case tasks.Reveal:
			s.printf("ask %s %s to show %s", e.Worker, e.Lease, refText(e.Ref))
		case tasks.Blame:
			s.printf("blame %s: %v", e.Worker, e.Reason)
		case tasks.Decide:
			s.disk.Results = append(s.disk.Results, e.Result)
			s.printf("decide %s = %s by %v", refText(e.Result.Ref), e.Result.Output, e.Result.Workers)
			for _, v := range e.Verdicts {
				s.printf("  tell %s", verdictText(v))
			}
		case tasks.Answer:
			for _, v := range e.Verdicts {
				s.printf("tell %s", verdictText(v))
			}
		case tasks.Assemble:
			s.printf("assemble %v: %d results", e.Stage, len(s.origin.Results(e.Stage)))
		case tasks.Finish:
			s.disk.Finish = &e
			s.printf("finish %v: %v %s %s", e.State, e.Reason, e.Detail, e.Output)
		default:
			s.t.Fatalf("unknown effect %T", e)
		}
	}
	if err := s.origin.Check(); err != nil {
		s.t.Fatalf("after %T: %v", ev, err)
	}
	s.printf("at %s, next %s", s.at(s.now), s.at(s.origin.Next()))
}
