package tasks

import "time"

// WorkerEvent is what happened to a node's work for others.
type WorkerEvent interface{ workerEvent() }

// OfferIn is an offer that came by gossip or as a probe. The shell has checked
// its signature and that the sender may submit; Able is its own filter's word
// (policy, runner, resources): OK, or why this node does not take such work.
type OfferIn struct {
	Offer Offer
	RTT   time.Duration // to the origin: measured, or else predicted
	Able  Reason
	Probe bool // asked directly: is answered in the same Step, by SendBid or Refuse
}

// LeaseIn is a lease whose origin's signature was checked.
type LeaseIn struct {
	Lease Lease
	Bytes int64 // that it takes
}

// RevokeIn is an origin's Revoke. Nil Refs means the whole lease.
type RevokeIn struct {
	Origin PeerID
	Job    JobID
	Lease  LeaseID
	Refs   []Ref
}

// RenewIn is an origin's Renew. Each lease that is not held here is refused in
// the same Step, as UnknownLease.
type RenewIn struct {
	Origin PeerID
	Job    JobID
	Leases []LeaseID
}

// RevealIn is an origin's Reveal.
type RevealIn struct {
	Origin  PeerID
	Job     JobID
	Lease   LeaseID
	Ref     Ref
	Replica uint32
}

// VerdictsIn are an origin's verdicts on this node's receipts.
type VerdictsIn struct {
	Origin   PeerID
	Verdicts []Verdict
}

// Ran answers Start: the run ended by itself, at a limit, or by Stop.
type Ran struct {
	Origin  PeerID // two may hold one job, and choose their leases' names
	Job     JobID
	Lease   LeaseID
	Ref     Ref
	Replica uint32
	Outcome Outcome
	Runner  string // its version, for the receipt
}

// Delivered answers Deliver: the origin has it. What it replied is fed first,
// as LeaseIn, RevokeIn, RenewIn, RevealIn and VerdictsIn. Unkept says that the
// commitments could not be made durable, and were not sent.
type Delivered struct {
	Origin PeerID
	Job    JobID
	Unkept bool
}

// DeliverFailed answers Deliver: the origin could not be reached, or refused.
type DeliverFailed struct {
	Origin     PeerID
	Job        JobID
	Reason     Reason // OK when it could not be reached
	RetryAfter time.Duration
}

// OriginSeen says that a peer connected, so what waits for it is sent now.
type OriginSeen struct{ Origin PeerID }

// SetLimits changes what the device gives. Running tasks go on; paused means
// that no task starts and nothing is bid for.
type SetLimits struct {
	Slots  uint32 // tasks at once, of one core each
	Memory int64  // bytes for all that run; 0: no bound
	Full   bool   // no room on the disk: nothing is taken or started
	Paused bool
	Until  time.Time // end of the pause by the machine's clock; zero: until told
}

// WorkerTick lets time pass. The bids on gossiped offers come from ticks only, so
// that the Step of a probe or a lease holds no SendBid or Refuse but its own.
type WorkerTick struct{}

func (OfferIn) workerEvent()       {}
func (LeaseIn) workerEvent()       {}
func (RevokeIn) workerEvent()      {}
func (RenewIn) workerEvent()       {}
func (RevealIn) workerEvent()      {}
func (VerdictsIn) workerEvent()    {}
func (Ran) workerEvent()           {}
func (Delivered) workerEvent()     {}
func (DeliverFailed) workerEvent() {}
func (OriginSeen) workerEvent()    {}
func (SetLimits) workerEvent()     {}
func (WorkerTick) workerEvent()    {}

// WorkerEffect is what the shell of a Worker must do, in the order given.
// Nothing a worker does needs to be durable, since an origin leases again what a
// worker forgot; except what it committed to.
type WorkerEffect interface{ workerEffect() }

// SendBid answers an offer. Whether what it reads is here, the shell looks up and
// says in the bid.
type SendBid struct {
	To    PeerID
	Bid   Bid
	Reads []CID
}

// Refuse answers a probe (no Lease), a lease or a renewal with a numbered reason.
type Refuse struct {
	To         PeerID
	Job        JobID
	Lease      LeaseID
	Reason     Reason
	RetryAfter time.Duration
}

// Start runs one assignment: fetch what it needs from Origin (Ticket is the
// lease), run it, keep its output. The shell answers with Ran, once, whatever
// happens; inputs that can't be had are InputUnavailable.
type Start struct {
	Origin    PeerID
	Lease     LeaseID
	Replica   uint32
	Execution Execution
}

// MaxHeld bounds the leases that one report names.
const MaxHeld = 1024

// Stop ends a run whose result nobody wants. Its Ran still comes.
type Stop struct {
	Origin  PeerID
	Job     JobID
	Lease   LeaseID
	Ref     Ref
	Replica uint32
}

// Deliver sends a heartbeat and the receipts that have no verdict yet, in one
// message. The shell answers with Delivered or DeliverFailed, once; there is at
// most one outstanding a job.
//
// Of Commits it sends the hashes alone, each made with a nonce of 32 bytes that it
// drew once; receipt and nonce are durable before. Reveals go with their nonces.
type Deliver struct {
	To       PeerID
	Report   Report
	Commits  []Receipt
	Reveals  []Receipt
	Receipts []Receipt
}

// ReleaseOutput says that an output this node made is owed to nobody any more.
type ReleaseOutput struct {
	Origin PeerID
	Job    JobID
	Output CID
}

// ReleaseJob says that nothing of a job is left here: tickets, inputs and
// scratch may go.
type ReleaseJob struct {
	Origin PeerID
	Job    JobID
}

func (SendBid) workerEffect()       {}
func (Refuse) workerEffect()        {}
func (Start) workerEffect()         {}
func (Stop) workerEffect()          {}
func (Deliver) workerEffect()       {}
func (ReleaseOutput) workerEffect() {}
func (ReleaseJob) workerEffect()    {}
