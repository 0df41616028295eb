package wire

import (
	"errors"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// ErrNoJob says that a node keeps no job of that ID.
var ErrNoJob = errors.New("no such job here")

// JobRecord is what a node keeps of a job that it is, was or may become the
// origin of.
type JobRecord struct {
	ID         tasks.JobID
	Submission []byte // the signed bytes, whose hash is ID; nil in a list
	Name       string
	Submitter  tasks.PeerID
	Published  bool // its submitter is owed an answer
	Created    time.Time
	Term       uint64 // this node became origin at; 0: it only keeps the job
	Yielded    uint64 // the highest term that it yielded to, its own when a nearer host had it; 0: never
	Forgotten  bool   // nothing more is owed
	State      tasks.State
	Reason     tasks.Reason
	Detail     string
	Output     tasks.CID
	Size       int64
	Tasks      uint32    // of the map stage; 0 before the split
	Finished   time.Time // zero while not over
	Retention  time.Duration
}

// Origin reports whether the node is the job's origin as far as it knows.
func (r JobRecord) Origin() bool { return r.Term > r.Yielded && !r.Forgotten }

// ReceiptKey names one receipt within all jobs.
type ReceiptKey struct {
	Job     tasks.JobID
	Ref     tasks.Ref
	Replica uint32
	Lease   tasks.LeaseID
	Worker  tasks.PeerID
}

// KeyOf names r.
func KeyOf(r tasks.Receipt) ReceiptKey {
	return ReceiptKey{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker}
}

// CommitmentKey names the receipt that c commits to.
func CommitmentKey(c tasks.Commitment) ReceiptKey {
	return ReceiptKey{Job: c.Job, Ref: c.Ref, Replica: c.Replica, Lease: c.Lease, Worker: c.Worker}
}

// VerdictKey names the receipt that v judges.
func VerdictKey(v tasks.Verdict) ReceiptKey {
	return ReceiptKey{Job: v.Job, Ref: v.Ref, Replica: v.Replica, Lease: v.Lease, Worker: v.Worker}
}

// SignedReceipt is a receipt with the signed batch that it came in.
type SignedReceipt struct {
	Receipt tasks.Receipt
	Batch   *SignedBatch
}

// SignedBatch is the bytes that a worker signed.
type SignedBatch struct {
	Hash   [32]byte // of Sealed
	Sealed []byte
}

// OwedReceipt is a receipt that a worker has no verdict on.
type OwedReceipt struct {
	Origin  tasks.PeerID
	Receipt tasks.Receipt
	Until   time.Time // after it the origin takes it no more

	// Of one that is committed to before it is shown.
	Body  []byte // the bytes that were hashed; kept as they are
	Nonce []byte // nil: it is not
}

// Commitment is what r binds its worker to.
func (r OwedReceipt) Commitment() tasks.Commitment {
	t := r.Receipt
	return tasks.Commitment{Job: t.Job, Ref: t.Ref, Replica: t.Replica, Lease: t.Lease, Worker: t.Worker, Hash: HashReceipt(r.Body, r.Nonce, t.Worker)}
}

// SaidVerdicts is a batch of verdicts as its origin signed it, of which some end
// receipts of this node.
type SaidVerdicts struct {
	Origin tasks.PeerID
	Sealed []byte
	Jobs   []tasks.JobID // that it speaks of
	At     time.Time
}

// Settled are a worker's receipts that need be kept no more, and what was said of
// them.
type Settled struct {
	Keys []ReceiptKey
	Said []SaidVerdicts
}

// Tally counts what became of a peer's receipts, over all jobs.
type Tally struct {
	Accepted uint32
	Rejected uint32 // blamed: see tasks.Reason.Blames
}

// Change is what one step of a job makes durable: all of it, or nothing.
type Change struct {
	Job       tasks.JobID
	At        time.Time // wall clock, for display and retention
	Term      uint64    // not 0: the node became origin at it
	Yielded   uint64    // not 0: it yielded to it
	Forgotten bool
	Split     []tasks.Task // not nil: the map stage, in order
	Grants    []tasks.GrantRecord
	Attempts  []tasks.Attempt
	Commits   []tasks.Commitment
	Receipts  []SignedReceipt
	Verdicts  []tasks.Verdict
	Results   []tasks.Result
	Finish    *tasks.Finish
	Tallies   map[tasks.PeerID]Tally // added to what is kept
}

// Empty reports whether there is nothing to make durable.
func (c Change) Empty() bool {
	return c.Term == 0 && c.Yielded == 0 && !c.Forgotten && c.Split == nil && len(c.Grants) == 0 && len(c.Attempts) == 0 && len(c.Commits) == 0 &&
		len(c.Receipts) == 0 && len(c.Verdicts) == 0 && len(c.Results) == 0 && c.Finish == nil && len(c.Tallies) == 0
}

// LogRecord is one try of a task as its receipt tells it.
type LogRecord struct {
	Receipt tasks.Receipt // without Inline
	At      time.Time
	Status  tasks.VerdictStatus // 0: none yet
	Verdict tasks.Reason
}

// PublishedRecord is what a submitter keeps of a job that it published.
type PublishedRecord struct {
	ID         tasks.JobID
	Submission []byte // signed
	Name       string
	Created    time.Time
	Retention  time.Duration
	Answer     *tasks.JobAnswer // accepted
	Answered   time.Time
}
