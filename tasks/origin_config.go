package tasks

import (
	"math/rand/v2"
	"time"
)

// Answered is one held output of one worker, as a [Judge] sees it.
type Answered struct {
	Worker PeerID
	Output CID
}

// Judgement is what a Judge makes of the answers to one task.
type Judgement struct {
	Decided  bool   // Output is accepted
	Output   CID    // when Decided
	More     uint32 // else: further answers needed, from peers that gave none
	NoQuorum bool   // else: none can be reached within the bound on tries
	Detail   string // who answered what, when NoQuorum
}

// Judge decides from a task's answers. It is pure. tasks/verify has them.
type Judge func(v Verify, r Retry, answers []Answered) Judgement

// OriginConfig sets an Origin. The zero value of each field takes the default
// named beside it, except where it says required.
type OriginConfig struct {
	Self  PeerID     // required: this node
	Judge Judge      // required for any mode but none
	Rand  *rand.Rand // required: draws among qualified bids

	Radius    time.Duration // of the first offer; 50 ms
	MaxRadius time.Duration // an offer that reaches everyone; 1 s. The job's MaxRTT bounds it too
	Window    time.Duration // how long bids are collected at the most; 0: 100 ms + 2 radii, at most 600 ms
	MinBids   uint32        // good slots below which the search widens, when so many tasks wait; 8
	Probes    int           // far peers asked each time the search widens; 8

	Batch         time.Duration // of work in one lease; 2 s
	MaxBatch      uint32        // tasks in one lease; 256
	MinLease      time.Duration // 5 s
	MaxLease      time.Duration // 30 s: how long a silent death goes unseen
	Grace         time.Duration // a worker that lost the origin keeps results so long; 10 min
	BidLife       time.Duration // how long a bid or a Want is believed; 30 s
	Reannounce    time.Duration // at the least between offers once the radius is full; 1 s, doubling to MaxReannounce
	MaxReannounce time.Duration // 1 min
	MaxWorkers    int           // peers remembered; 4096
}
