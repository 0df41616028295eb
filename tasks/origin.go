package tasks

import "time"

// Origin decides one job: it offers, leases, re-leases and judges its tasks. It
// is not safe for concurrent use, and keeps no reference to a clock.
type Origin struct{}

// NewOrigin takes a job whose tasks are cut and durable. It fails on a config,
// spec or task list that no machine could run.
func NewOrigin(cfg OriginConfig, job Job, list []Task) (*Origin, error) { return &Origin{}, nil }

// RestoreOrigin takes up a job after a restart, from what was durable. Leases
// that were granted run for their full duration again from now, because nothing
// is known of the time in between; after that their tasks are leased again.
func RestoreOrigin(cfg OriginConfig, job Job, r Records, now time.Time) (*Origin, error) {
	return &Origin{}, nil
}

// Step takes one event and returns what must be done, in order. Once the job is
// over only receipts are answered.
func (o *Origin) Step(now time.Time, ev Event) []Effect { return nil }

// Next is when Step must be called with Tick at the latest; zero when only an
// event can move the job.
func (o *Origin) Next() time.Time { return time.Time{} }

// Wait is one reason why a job, or some of its tasks, is not further.
type Wait struct {
	Tasks uint32    // how many wait so
	Text  string    // what they wait for
	Next  time.Time // when something is tried again; zero: when an event comes
}

// Why says what everything that is not decided waits for, most tasks first. It
// is empty only when the job is over.
func (o *Origin) Why(now time.Time) []Wait { return nil }

// JobStatus is where a job stands, without its tasks.
type JobStatus struct {
	State    State
	Reason   Reason
	Detail   string
	Stage    Stage
	Tasks    uint32 // of both stages, the reduce counted from the start
	Decided  uint32
	Leased   uint32 // undecided, with a worker
	Waiting  uint32 // undecided, with no or too few workers
	Releases uint32 // assignments taken from the dead, the slow and the failed
	Copies   uint32 // tail copies
	Failures uint32 // of the program
	Workers  []WorkerShare
	Output   CID
	Size     int64
	Round    uint32        // offers made
	Radius   time.Duration // of the last
}

// WorkerShare is what one peer did for a job.
type WorkerShare struct {
	Worker   PeerID
	RTT      time.Duration
	Holds    uint32 // assignments now
	Accepted uint32
	Failed   uint32
	Rejected uint32
	Backoff  time.Time // not asked before; zero: free
}

// TaskState is where a task stands.
type TaskState uint8

// The states of a task.
const (
	TaskWaiting TaskState = 1 // needs a worker, or one more
	TaskLeased  TaskState = 2 // enough workers have it, or its output is being fetched
	TaskDecided TaskState = 3
)

// TaskStatus is one task with its history.
type TaskStatus struct {
	Ref      Ref
	State    TaskState
	Attempts []AttemptStatus // the last 32
	Releases uint32
	Result   *Result
}

// AttemptStatus is one assignment of a task to one worker.
type AttemptStatus struct {
	Worker  PeerID
	Lease   LeaseID
	Replica uint32
	RTT     time.Duration // when it was granted
	Started time.Time     // granted
	Ended   time.Time     // zero: still held
	State   AttemptState
	Reason  Reason // when Failed or Refused
}

// AttemptState is what became of an assignment.
type AttemptState uint8

// What became of an assignment.
const (
	AttemptHeld     AttemptState = 1 // with its worker
	AttemptLate     AttemptState = 2 // with its worker, slow: another may have it too
	AttemptAnswered AttemptState = 3 // its output is being fetched, or held and not yet judged
	AttemptAccepted AttemptState = 4
	AttemptRejected AttemptState = 5
	AttemptFailed   AttemptState = 6 // program or worker failed
	AttemptLost     AttemptState = 7 // its worker went silent or away
	AttemptRefused  AttemptState = 8 // its worker did not take it
	AttemptRevoked  AttemptState = 9 // no longer needed
)

// Status tells where the job stands. It costs the number of workers.
func (o *Origin) Status() JobStatus { return JobStatus{} }

// Tasks gives n tasks of a stage from the one at first on.
func (o *Origin) Tasks(stage Stage, first uint32, n int) []TaskStatus { return nil }

// Results gives the results of a stage in task order. It is complete when
// Assemble asks for it.
func (o *Origin) Results(stage Stage) []Result { return nil }

// Granted reports whether worker was given a lease that covers reading root:
// what a ticket is checked by. It is false once the job is over.
func (o *Origin) Granted(lease LeaseID, worker PeerID) bool { return false }
