package tasks

import (
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
type Submission struct{}

// NewSubmission starts with a job that was published or is about to be. accepted
// is the answer that was durable before a restart, or nil.
func NewSubmission(cfg SubmissionConfig, job JobID, accepted *JobAnswer, now time.Time) (*Submission, error) {
	return &Submission{}, nil
}

// Step takes one event and returns what must be done, in order.
func (s *Submission) Step(now time.Time, ev SubmissionEvent) []SubmissionEffect { return nil }

// Next is when Step must be called with SubmissionTick at the latest.
func (s *Submission) Next() time.Time { return time.Time{} }

// Accepted gives the answer that was accepted, or nil.
func (s *Submission) Accepted() *JobAnswer { return nil }

// Why says what the submission waits for.
func (s *Submission) Why(now time.Time) []Wait { return nil }
