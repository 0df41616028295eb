package tasks

import "time"

// Event is what happened to a job that this node is the origin of.
type Event interface{ originEvent() }

// Standing is what this node knows of a peer from outside the job at hand: what
// it measured itself, never what the peer says.
type Standing struct {
	RTT      time.Duration // measured, or else predicted; this node itself has 0
	Unknown  bool          // RTT is neither: the peer ranks last
	Accepted uint32        // receipts of other jobs accepted; 0 makes a stranger
	Rejected uint32        // receipts of other jobs that disagreed or had no bytes
	Kin      []string      // what others may have too: two peers that share one may be of one owner
}

// BidIn is a bid, for an offer or for a probe. This node's own worker bids too.
type BidIn struct {
	Bid      Bid
	Standing Standing
}

// RefusedBy is a peer's word that it will not take an offer, a probe or a lease
// now. It is not asked again before RetryAfter.
type RefusedBy struct {
	Worker     PeerID
	Reason     Reason
	RetryAfter time.Duration
}

// LeaseFailed says that a Grant did not reach its worker or was refused by it,
// or that the worker does not hold a lease that was renewed (UnknownLease). The
// assignments are leased again at once.
type LeaseFailed struct {
	Lease      LeaseID
	Worker     PeerID
	Reason     Reason // of the refusal; WorkerFault when it could not be reached
	RetryAfter time.Duration
}

// Report is a worker's heartbeat for one job: it renews the leases it names and
// asks for more work. It is the main path by which work moves.
type Report struct {
	Job     JobID
	Worker  PeerID
	Held    []LeaseID     // leases with anything that the origin does not have yet; at most MaxHeld
	Running []Ref         // started and not ended
	Want    uint32        // more tasks that it would take now
	Slots   uint32        // tasks that it runs at once
	Queue   time.Duration // predicted wait before one more would start
}

// ReportIn is a Report that came in.
type ReportIn struct {
	Report   Report
	Standing Standing
}

// ReceiptIn is a receipt whose signature and sender were checked: Receipt.Worker
// is who sent it. Opens is the hash that the receipt's bytes, the nonce that came
// with it and its worker make together; nil: it came without a nonce.
type ReceiptIn struct {
	Receipt Receipt
	Opens   *Hash
}

// CommitIn is a worker's commitment, whose sender was checked.
type CommitIn struct{ Commitment Commitment }

// RevealTold says that the worker's node took a Reveal. It does not say that the
// answer comes.
type RevealTold struct {
	Worker  PeerID
	Lease   LeaseID
	Ref     Ref
	Replica uint32
}

// HeldOutput answers Hold: the bytes are durable here and hash to Output.
type HeldOutput struct {
	Ref    Ref
	Worker PeerID
	Output CID
	Size   int64
	Folder bool // a folder with stdout in it, not a plain file
}

// HoldFailed answers Hold. OutputMissing blames the worker: its bytes never
// came or do not hash to the CID; OutputTooLarge too. Any other reason is this
// node's own trouble, and Hold is asked again later.
type HoldFailed struct {
	Ref    Ref
	Worker PeerID
	Output CID
	Reason Reason
	Detail string
}

// PeerGone says that the connection to a peer ended.
type PeerGone struct{ Worker PeerID }

// PeerCame says that a member was connected to, for the first time or again, and
// not because a probe went to it.
type PeerCame struct{ Worker PeerID }

// InputsBack says that bytes which this node had lost are here again: workers may
// have asked for them in vain.
type InputsBack struct{}

// CancelJob ends the job at its user's word.
type CancelJob struct {
	Detail string
	Reason Reason // OK: CancelledByUser
}

// Superseded says that another node holds the job and this one yields to it:
// its term is higher, or equal and it is nearer to the job. Lower terms are
// ignored.
type Superseded struct {
	Term uint64
	By   PeerID
}

// Assembled answers Assemble: the job's output is durable and pinned.
type Assembled struct {
	Output CID
	Size   int64
}

// AssembleFailed answers Assemble. It is asked again later.
type AssembleFailed struct{ Detail string }

// Tick only lets time pass.
type Tick struct{}

func (BidIn) originEvent()          {}
func (RefusedBy) originEvent()      {}
func (LeaseFailed) originEvent()    {}
func (ReportIn) originEvent()       {}
func (ReceiptIn) originEvent()      {}
func (CommitIn) originEvent()       {}
func (RevealTold) originEvent()     {}
func (HeldOutput) originEvent()     {}
func (HoldFailed) originEvent()     {}
func (PeerGone) originEvent()       {}
func (PeerCame) originEvent()       {}
func (InputsBack) originEvent()     {}
func (CancelJob) originEvent()      {}
func (Superseded) originEvent()     {}
func (Assembled) originEvent()      {}
func (AssembleFailed) originEvent() {}
func (Tick) originEvent()           {}

// Effect is what the shell of an Origin must do, in the order given.
type Effect interface{ originEffect() }

// Announce publishes the job's offer by gossip. There is one live offer a job:
// each replaces the one before. The shell fills Offer's Coord and Addresses.
type Announce struct{ Offer Offer }

// Probe sends Offer directly to N peers drawn uniformly from those known,
// neighbours excluded. Their bids and refusals come back as BidIn and RefusedBy.
type Probe struct {
	N     int
	Offer Offer
}

// Grant is durable (as [GrantRecord]), then sent to its worker. If it can't be
// delivered or is refused, the shell answers with LeaseFailed.
type Grant struct{ Lease Lease }

// Renew tells a worker that its leases run for their full duration again: in
// answer to its report, or after a restart to ask who still holds them. The shell
// answers with LeaseFailed for each that the worker does not hold, and with
// nothing when it can't be reached.
type Renew struct {
	Worker PeerID
	Leases []LeaseID
}

// Revoke tells a worker to drop assignments: it stops what runs of them and
// sends no receipt for them. Nil Refs means the whole lease.
type Revoke struct {
	Worker PeerID
	Lease  LeaseID
	Refs   []Ref
}

// Hold fetches an output from its worker (from Inline, when that is not nil)
// and stores it, pinned for the job. The shell answers with HeldOutput or
// HoldFailed, once.
type Hold struct {
	Ref    Ref
	Worker PeerID
	Output CID
	Inline []byte
	Limit  int64 // bytes that the output may have
}

// Commit is durable: a worker has answered, and will show it when asked.
type Commit struct{ Commitment Commitment }

// Reveal asks a worker to show what it committed to. The shell answers with
// RevealTold when the worker's node has taken it; else it is asked again.
type Reveal struct {
	Worker  PeerID
	Lease   LeaseID
	Ref     Ref
	Replica uint32
}

// Blame is durable: it counts against a worker for what no assignment of its own
// stands behind.
type Blame struct {
	Worker PeerID
	Reason Reason
}

// Record is durable: what one assignment came to while its task stays
// undecided. Verdict (pending, or a rejection of the receipt) is sent after.
type Record struct {
	Attempt Attempt
	Verdict Verdict
}

// Decide is durable in one transaction, unique by (job, ref): the result and
// the verdicts on the receipts that it settles. The verdicts are sent after.
type Decide struct {
	Result   Result
	Verdicts []Verdict
}

// Answer sends verdicts that change nothing.
type Answer struct{ Verdicts []Verdict }

// Assemble makes one CID of the results of a stage ([Origin.Results]) and pins
// it for the job. The shell answers with Assembled or AssembleFailed, once.
type Assemble struct{ Stage Stage }

// Finish is durable: the job is over. Done carries its output.
type Finish struct {
	State  State
	Reason Reason
	Detail string
	Output CID
	Size   int64
}

func (Announce) originEffect() {}
func (Probe) originEffect()    {}
func (Grant) originEffect()    {}
func (Renew) originEffect()    {}
func (Revoke) originEffect()   {}
func (Hold) originEffect()     {}
func (Commit) originEffect()   {}
func (Reveal) originEffect()   {}
func (Blame) originEffect()    {}
func (Record) originEffect()   {}
func (Decide) originEffect()   {}
func (Answer) originEffect()   {}
func (Assemble) originEffect() {}
func (Finish) originEffect()   {}

// Attempt is what a receipt came to, as the origin keeps it on disk until its
// task is decided. It is unique by (job, Ref, Lease, Replica).
type Attempt struct {
	Ref     Ref
	Replica uint32
	Lease   LeaseID
	Worker  PeerID
	Reason  Reason // OK: an answer whose bytes are held
	Detail  string
	Output  CID
	Size    int64
	Folder  bool
}

// GrantRecord is what must survive of a lease: who may answer which tasks.
type GrantRecord struct {
	Lease    LeaseID
	Worker   PeerID
	Stage    Stage
	Indexes  []uint32
	Replicas []uint32 // beside Indexes
}

// Record gives the durable part of a lease.
func (l Lease) Record() GrantRecord {
	r := GrantRecord{Lease: l.ID, Worker: l.Worker}
	for _, a := range l.Assignments {
		r.Stage = a.Task.Ref.Stage
		r.Indexes = append(r.Indexes, a.Task.Ref.Index)
		r.Replicas = append(r.Replicas, a.Replica)
	}
	return r
}

// Records are what [RestoreOrigin] starts from: all that was durable.
type Records struct {
	Tasks       []Task        // of the map stage, in order
	Results     []Result      // of both stages
	Attempts    []Attempt     // at least those of undecided tasks
	Commitments []Commitment  // at least those of undecided tasks
	Grants      []GrantRecord // every one that this job's term ever made
	Finish      *Finish       // the job was over already
}
