package tasks

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// SubmissionEvent is what happened to a job that this node published.
type SubmissionEvent interface{ submissionEvent() }

// OriginHeard is an origin's notice on the jobs topic.
type OriginHeard struct{ Notice Notice }

// AnswerIn is an origin's answer, by stream; the stream's other end is
// Answer.Origin.
type AnswerIn struct{ Answer JobAnswer }

// OutputKept answers KeepOutput: the output's bytes are here, or why not.
type OutputKept struct {
	Answer JobAnswer
	OK     bool
	Detail string
}

// SubmissionTick only lets time pass. It is also the first event.
type SubmissionTick struct{}

func (OriginHeard) submissionEvent()    {}
func (AnswerIn) submissionEvent()       {}
func (OutputKept) submissionEvent()     {}
func (SubmissionTick) submissionEvent() {}

// SubmissionEffect is what the shell of a Submission must do, in the order given.
type SubmissionEffect interface{ submissionEffect() }

// PublishSubmission puts the signed submission on the jobs topic (again).
type PublishSubmission struct{ Attempt uint32 }

// KeepOutput fetches and keeps the output before the answer is accepted. The
// shell answers with OutputKept, once.
type KeepOutput struct{ Answer JobAnswer }

// AcceptAnswer is durable, unique by job: the one result of this job.
type AcceptAnswer struct{ Answer JobAnswer }

// TellAnswered acknowledges an origin's answer. The shell sends it only after
// the AcceptAnswer before it is durable. Accepted is false when another answer
// was accepted before; that origin is released all the same.
type TellAnswered struct {
	To       PeerID
	Job      JobID
	Accepted bool
}

// PublishAnswered puts a NoticeAnswered on the jobs topic.
type PublishAnswered struct{ Notice Notice }

// AskAgain tells an origin that its answer could not be taken now, so that it
// delivers it again later. Reason is StaleTerm while another holds the job.
type AskAgain struct {
	To     PeerID
	Job    JobID
	Reason Reason
	Detail string
}

func (AskAgain) submissionEffect()          {}
func (PublishSubmission) submissionEffect() {}
func (KeepOutput) submissionEffect()        {}
func (AcceptAnswer) submissionEffect()      {}
func (TellAnswered) submissionEffect()      {}
func (PublishAnswered) submissionEffect()   {}

// SubmissionConfig sets a Submission. Zero fields take the default named.
type SubmissionConfig struct {
	Self     PeerID        // required: the submitter
	Rand     *rand.Rand    // required: jitter
	Retry    time.Duration // until the first republishing, doubling; 3 s
	MaxRetry time.Duration // 1 min
	Lapse    time.Duration // without an origin's heartbeat it publishes again; 30 s
}

// Submission follows one published job until exactly one answer to it is
// accepted, however many origins took it up.
type Submission struct {
	cfg      SubmissionConfig
	job      JobID
	accepted *JobAnswer
	fetching *JobAnswer
	attempts uint32 // publications
	quiet    uint   // publications since an origin was heard
	due      time.Time
	origin   PeerID
	term     uint64
	heard    time.Time
	trouble  string
	now      time.Time
	out      []SubmissionEffect
}

// NewSubmission starts with a job that was published or is about to be. accepted
// is the answer that was durable before a restart, or nil.
func NewSubmission(cfg SubmissionConfig, job JobID, accepted *JobAnswer, now time.Time) (*Submission, error) {
	fill(&cfg.Retry, 3*time.Second)
	fill(&cfg.MaxRetry, max(time.Minute, cfg.Retry))
	fill(&cfg.Lapse, 30*time.Second)
	if cfg.Self == "" || job == "" || cfg.Rand == nil || cfg.Retry < 0 || cfg.MaxRetry < cfg.Retry || cfg.Lapse < 0 {
		return nil, fmt.Errorf("submission of job %q: Self, Rand and the job's ID are required, and times must be above 0", job)
	}
	s := &Submission{cfg: cfg, job: job, now: now, due: now}
	if accepted != nil {
		answer := *accepted
		s.accepted, s.due = &answer, time.Time{} // told to whoever does not know
	}
	return s, nil
}

// Step takes one event and returns what must be done, in order.
func (s *Submission) Step(now time.Time, ev SubmissionEvent) []SubmissionEffect {
	if now.Before(s.now) {
		now = s.now
	}
	s.now, s.out = now, nil
	switch ev := ev.(type) {
	case OriginHeard:
		n := ev.Notice
		if n.Job == s.job && n.Kind == NoticeOrigin && s.leads(n.From, n.Term) {
			s.origin, s.term, s.heard, s.quiet = n.From, n.Term, now, 0
			s.due = now.Add(s.cfg.Lapse)
		}
		if s.accepted != nil && n.Job == s.job && n.Kind != NoticeAnswered {
			s.due = now // somebody does not know yet
		}
	case AnswerIn:
		s.onAnswer(ev.Answer)
	case OutputKept:
		s.onKept(ev)
	case SubmissionTick:
	}
	if reached(s.due, now) {
		s.publish()
	}
	return s.out
}

func (s *Submission) emit(e SubmissionEffect) { s.out = append(s.out, e) }

func (s *Submission) publish() {
	s.due = time.Time{}
	if s.accepted != nil {
		s.emit(PublishAnswered{Notice{Job: s.job, Kind: NoticeAnswered, From: s.cfg.Self}})
		return
	}
	if s.fetching != nil {
		s.due = s.now.Add(s.cfg.Retry)
		return
	}
	s.attempts++
	wait := doubled(s.cfg.Retry, s.quiet, s.cfg.MaxRetry)
	s.due = s.now.Add(wait + time.Duration(s.cfg.Rand.Int64N(int64(wait)/4+1)))
	s.quiet++
	s.emit(PublishSubmission{Attempt: s.attempts})
}

// leads reports whether an origin holds the job as far as this node knows: at the
// highest term heard, and at the same term the nearest, as the hosts settle it
// among themselves. One that falls silent holds it no longer.
func (s *Submission) leads(from PeerID, term uint64) bool {
	switch {
	case term > s.term:
		return term-s.term <= maxJump
	case s.origin == "", s.now.Sub(s.heard) > s.cfg.Lapse:
		return true
	case term == s.term:
		return from == s.origin || nearer(from, s.origin, s.job)
	}
	return false
}

// Holder is the job's origin as far as this node heard, and its term; "" when it
// heard none.
func (s *Submission) Holder() (PeerID, uint64) { return s.origin, s.term }

func (s *Submission) onAnswer(a JobAnswer) {
	switch {
	case a.Job != s.job || !a.State.Over() || a.State > Cancelled || (a.State == Done && a.Output == ""):
		s.emit(AskAgain{To: a.Origin, Job: a.Job, Reason: BadReceipt, Detail: "not an answer to this job"})
	case s.accepted != nil:
		s.emit(TellAnswered{To: a.Origin, Job: s.job, Accepted: *s.accepted == a})
	case a.Reason == StaleTerm:
		s.emit(TellAnswered{To: a.Origin, Job: s.job}) // its successor answers
	case a.Origin != s.cfg.Self && !s.leads(a.Origin, a.Term):
		s.emit(AskAgain{To: a.Origin, Job: s.job, Reason: StaleTerm, Detail: fmt.Sprintf("%s holds the job at term %d", s.origin, s.term)})
	case s.fetching != nil:
		s.emit(AskAgain{To: a.Origin, Job: s.job, Reason: OriginBusy, Detail: "another answer is being fetched"})
	case a.State == Done:
		s.fetching = &a
		s.emit(KeepOutput{a})
	default:
		s.accept(a)
	}
}

func (s *Submission) onKept(ev OutputKept) {
	if s.fetching == nil || *s.fetching != ev.Answer {
		return
	}
	s.fetching = nil
	if !ev.OK {
		s.trouble = clip(ev.Detail)
		s.emit(AskAgain{To: ev.Answer.Origin, Job: s.job, Reason: OriginBusy, Detail: s.trouble})
		return
	}
	s.accept(ev.Answer)
}

func (s *Submission) accept(a JobAnswer) {
	s.accepted, s.trouble = &a, ""
	s.emit(AcceptAnswer{a})
	s.emit(TellAnswered{To: a.Origin, Job: s.job, Accepted: true})
	s.due = s.now
}

// Next is when Step must be called with SubmissionTick at the latest; zero once
// an answer is accepted and told.
func (s *Submission) Next() time.Time { return s.due }

// Accepted gives the answer that was accepted, or nil.
func (s *Submission) Accepted() *JobAnswer {
	if s.accepted == nil {
		return nil
	}
	answer := *s.accepted
	return &answer
}

// Why says what the submission waits for.
func (s *Submission) Why(now time.Time) []Wait {
	w := Wait{Tasks: 1, Next: s.due}
	switch {
	case s.accepted != nil:
		return nil
	case s.fetching != nil:
		w.Text = fmt.Sprintf("fetching the output from %s", s.fetching.Origin)
	case s.trouble != "":
		w.Text = "the output could not be fetched: " + s.trouble
	case s.origin == "":
		w.Text = fmt.Sprintf("published %d times, no host has taken the job yet", s.attempts)
	case now.Sub(s.heard) > s.cfg.Lapse:
		w.Text = fmt.Sprintf("its origin %s was not heard for %s", s.origin, FormatDuration(now.Sub(s.heard).Round(time.Second)))
	default:
		w.Text = fmt.Sprintf("%s is its origin, at term %d", s.origin, s.term)
	}
	return []Wait{w}
}
