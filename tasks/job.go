package tasks

import (
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
)

// JobID names a job: the lower-case base32 SHA-256 of its signed submission's
// bytes, 52 characters.
type JobID string

// PeerID is a node's libp2p peer ID in its text form. The package needs no more
// than equality and XOR rank from it.
type PeerID string

// LeaseID names one lease of one origin. It is unique within a job.
type LeaseID string

// CID is the text form of a CIDv1. Packages at the edge parse it.
type CID string

// Ref names one task of a job.
type Ref struct {
	Stage Stage
	Index uint32
}

// Stage is a job's phase: every job maps, and some reduce what was mapped.
type Stage uint8

// The stages. Their numbers cross the wire and are durable: append only.
const (
	StageMap    Stage = 0
	StageReduce Stage = 1
)

func (s Stage) String() string {
	if s == StageReduce {
		return "reduce"
	}
	return "map"
}

// Job is a spec that an origin holds. It is durable before its ID is shown.
type Job struct {
	ID         JobID
	Spec       Spec
	Submission []byte    // the signed bytes, whose hash is ID
	Submitter  PeerID    // who signed
	Term       uint64    // a successor origin takes a higher one
	Created    time.Time // origin's wall clock, for display and retention only
	Published  bool      // came over the jobs topic: its submitter is owed an answer
}

// State is where a job stands.
type State uint8

// The states of a job. Their numbers are durable: append only.
const (
	Splitting  State = 1 // reading the inputs to cut them into tasks
	Running    State = 2
	Assembling State = 3 // all tasks decided, output being put together
	Done       State = 4
	Failed     State = 5
	Cancelled  State = 6
)

func (s State) String() string {
	switch s {
	case Splitting:
		return "splitting"
	case Running:
		return "running"
	case Assembling:
		return "assembling"
	case Done:
		return "done"
	case Failed:
		return "failed"
	case Cancelled:
		return "cancelled"
	}
	return "unknown"
}

// Over reports whether no event moves the job any more.
func (s State) Over() bool { return s >= Done }

// Task is the unit that one worker runs.
type Task struct {
	Ref    Ref
	Stdin  []Span          // concatenated, in order; none is an empty stdin
	Inputs map[string]Span // named, read-only, under /in
	Size   int64           // bytes of input, for predictions
}

// Span is a run of bytes of one content-addressed file, or a whole folder.
type Span struct {
	Root   CID
	Path   string // inside Root when that is a folder; "" for Root itself
	Offset int64
	Length int64 // -1: to the end
}

// Offer is what an origin tells its neighbourhood: one small message a job,
// never one a task.
type Offer struct {
	Job       JobID
	Term      uint64
	Origin    PeerID
	Kind      Kind
	Program   CID
	Inputs    []CID // roots, so that a peer that caches them can say so
	Needs     Resources
	Waiting   uint32 // tasks that nobody holds
	Replicas  uint32
	Round     uint32        // how often the radius was widened
	MaxRTT    time.Duration // the job's locality bound; 0: none
	Radius    time.Duration // predicted RTT within which peers forward and bid
	Window    time.Duration // how long the origin collects bids
	Coord     coord.Coordinate
	Addresses []byte // the origin's signed peer record
}

// Bid is a worker's direct answer to an offer.
type Bid struct {
	Job    JobID
	Worker PeerID
	Slots  uint32        // tasks that it can run at once now
	Queue  time.Duration // predicted wait before the first starts
	Speed  float64       // its own past tasks a second with this program; 0: none
	Cached bool          // it holds the program and inputs already
}

// Assignment is one replica of one task.
type Assignment struct {
	Task    Task
	Replica uint32
}

// Lease is the origin's signed grant of a batch of tasks to one worker. Its
// duration runs on each side's own monotonic clock.
type Lease struct {
	ID               LeaseID
	Job              JobID
	Term             uint64
	Origin           PeerID
	Worker           PeerID
	Program          CID // of the assignments' stage: a lease never mixes stages
	Args             []string
	Env              map[string]string
	Kind             Kind
	Needs            Resources
	Tasks            uint32 // tasks in the stage: KITH_TASKS
	Nondeterministic bool
	Commit           bool // answers are committed to, and shown when asked
	Assignments      []Assignment
	Duration         time.Duration
	Grace            time.Duration // after the origin was last heard, results still count
}

// Usage is what a task cost its worker.
type Usage struct {
	Wall   time.Duration
	CPU    time.Duration
	Memory int64 // bytes, at the peak
	Input  int64 // bytes of stdin
	Output int64 // bytes
}

// Receipt is a worker's signed statement of what one assignment came to.
type Receipt struct {
	Job     JobID
	Ref     Ref
	Replica uint32
	Lease   LeaseID
	Worker  PeerID
	Reason  Reason // OK, or why it failed
	Detail  string // for people; bounded
	Output  CID    // when OK
	Inline  []byte // the output itself, when small and one block
	Log     []byte // the tail of stderr; bounded
	Runner  string // version of the runner
	Usage   Usage
}

// Hash is a SHA-256.
type Hash [32]byte

// Commitment binds a worker to a receipt that nobody has seen. Hash is of the
// receipt's bytes, a nonce of 32 bytes that the worker drew, and its peer ID, so
// that nobody can tell the receipt from it, and nobody else can show one for it.
type Commitment struct {
	Job     JobID
	Ref     Ref
	Replica uint32
	Lease   LeaseID
	Worker  PeerID
	Hash    Hash
}

// Verdict is the origin's signed answer to a receipt, or to a commitment.
type Verdict struct {
	Job     JobID
	Ref     Ref
	Replica uint32
	Lease   LeaseID
	Worker  PeerID
	Status  VerdictStatus
	Reason  Reason // when rejected
	Related bool   // accepted by a quorum with too few unrelated peers in it
}

// VerdictStatus says how a receipt was judged.
type VerdictStatus uint8

// How a receipt was judged. The numbers cross the wire: append only.
const (
	Pending  VerdictStatus = 1
	Accepted VerdictStatus = 2
	Rejected VerdictStatus = 3
)

// Result is the one accepted output of a task.
type Result struct {
	Ref     Ref
	Output  CID
	Size    int64
	Folder  bool     // Output is a folder with stdout in it, not a plain file
	Workers []PeerID // who agreed on it
	Related bool     // they are a quorum, but too few of them unrelated peers
}

// Execution is what a runner is given: one task with everything that it may see.
type Execution struct {
	Job              JobID
	Ref              Ref
	Tasks            uint32
	Kind             Kind
	Program          CID
	Args             []string
	Env              map[string]string
	Stdin            []Span
	Inputs           map[string]Span
	Needs            Resources
	Nondeterministic bool
}

// Outcome is what a run came to. A program's failure is a Reason, not an error.
type Outcome struct {
	Reason Reason
	Detail string
	Output CID // when Reason is OK
	Inline []byte
	Log    []byte
	Usage  Usage
}
