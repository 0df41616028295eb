package tasks

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// WorkerConfig sets a Worker. Zero fields take the default named beside them.
type WorkerConfig struct {
	Self   PeerID     // required
	Rand   *rand.Rand // required: jitter of bids and retries
	Limits SetLimits  // what the device gives at first; Slots 1

	QueueTime   time.Duration // predicted wait above which it bids and wants no more; 10 s
	Ahead       time.Duration // of work that it likes to have in hand; 4 s
	Kappa       float64       // seconds of bid delay a second of queue; 0.1
	MaxBidDelay time.Duration // 1 s
	Heartbeat   time.Duration // at the most between reports; 5 s
	Flush       time.Duration // at the least between deliveries to one job; 50 ms: they are signed, kept and judged together
	MaxLog      int           // bytes of log in a receipt; 16 KiB

	// Bounds on what one origin may have here. All of them together may have
	// workerShares times as much, so one that floods does not keep the others out.
	MaxQueue    uint32 // tasks held and not started; 512
	MaxReceipts uint32 // without a verdict; above it nothing of the origin starts; 4096
	MaxBytes    int64  // of leases, and of outputs and logs in such receipts; 64 MiB
	MaxJobs     int    // jobs served at once; 64
	MaxOffers   int    // offers waiting for their bid's delay; 64
}

// workerShares is how many origins may use all of their bounds at once.
const workerShares = 4

func (c WorkerConfig) withDefaults() WorkerConfig {
	fill(&c.Limits.Slots, 1)
	fill(&c.MaxQueue, 512)
	fill(&c.QueueTime, 10*time.Second)
	fill(&c.Ahead, 4*time.Second)
	fill(&c.Kappa, 0.1)
	fill(&c.MaxBidDelay, time.Second)
	fill(&c.Heartbeat, 5*time.Second)
	fill(&c.Flush, 50*time.Millisecond)
	fill(&c.MaxReceipts, 4096)
	fill(&c.MaxLog, 16<<10)
	fill(&c.MaxJobs, 64)
	fill(&c.MaxOffers, 64)
	fill(&c.MaxBytes, 64<<20)
	return c
}

func (c WorkerConfig) validate() error {
	var errs []error
	if c.Self == "" {
		errs = append(errs, errors.New("Self is empty: give this node's peer ID"))
	}
	if c.Rand == nil {
		errs = append(errs, errors.New("Rand is nil: give a seeded source"))
	}
	if !(c.Kappa >= 0) || c.QueueTime < 0 || c.Ahead < 0 || c.MaxBidDelay < 0 || c.Heartbeat < 0 || c.Flush < 0 ||
		c.MaxLog < 0 || c.MaxBytes < 0 || c.MaxJobs < 0 || c.MaxOffers < 0 || c.Limits.Memory < 0 {
		errs = append(errs, errors.New("a bound is negative: leave it 0 for its default"))
	}
	return errors.Join(errs...)
}

// Worker decides what this node bids for and runs, for all origins at once. It
// is not safe for concurrent use.
type Worker struct {
	cfg    WorkerConfig
	limits SetLimits
	offers []pendingBid // in the order they came
	missed []missed     // offers heard while paused or too small, oldest first
	bids   []told       // that no lease came for yet, oldest first
	jobs   []*served    // in the order they came
	books  []*account   // of the origins that have jobs here; tasks start in turn
	turn   int
	speeds map[CID]*speed

	slots   uint32 // taken by running tasks
	memory  int64  // taken by running tasks
	running []*run
	queued  uint32
	owed    uint32 // receipts without a verdict
	bytes   int64  // of leases and of those receipts

	done, failed, rejected uint64

	now time.Time
	out []WorkerEffect
}

// served is one job of one origin that this node has work of.
type served struct {
	origin PeerID
	book   *account
	job    JobID
	leases []*granted
	queue  []*run // not started, in order
	owed   []*run // with a receipt that has no verdict
	kept   map[CID]int

	beat  time.Duration // between reports
	grace time.Duration
	heard time.Time // last word of the origin
	last  time.Time // last delivery
	due   time.Time // next delivery
	out   bool      // one is under way
	sent  []*run    // in it
	tries uint
}

// granted is a lease in a worker's hands.
type granted struct {
	lease  Lease // without its assignments
	runs   []*run
	queued int   // of runs
	bytes  int64 // as it was told
}

// run is one assignment.
type run struct {
	served  *served
	lease   *granted
	task    Task
	replica uint32
	state   runState
	stopped bool // nobody wants it: its end is not told
	started time.Time
	receipt Receipt
	sent    time.Time // last delivery of the receipt, or of the commitment to it; zero: never
	pending bool      // the origin has it and has not judged
	commit  bool      // the receipt is committed to, and shown when asked
	asked   bool      // to show it
}

type runState uint8

const (
	runQueued runState = iota
	runRunning
	runOwed
	runOver
)

// speed is how long one task of a program takes here.
type speed struct {
	mean   time.Duration
	spread time.Duration // mean distance from mean
	used   time.Time
}

const maxSpeeds = 256

// NewWorker fails on a config without its required fields.
func NewWorker(cfg WorkerConfig) (*Worker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	return &Worker{cfg: cfg, limits: cfg.Limits, speeds: make(map[CID]*speed)}, nil
}

// Step takes one event and returns what must be done, in order.
func (w *Worker) Step(now time.Time, ev WorkerEvent) []WorkerEffect {
	if now.Before(w.now) {
		now = w.now
	}
	w.now, w.out = now, nil
	if w.limits.Paused && !w.limits.Until.IsZero() && !now.Before(w.limits.Until) {
		w.limits.Paused, w.limits.Until = false, time.Time{}
		w.reconsider()
	}
	switch ev := ev.(type) {
	case OfferIn:
		w.onOffer(ev)
	case LeaseIn:
		w.onLease(ev.Lease, ev.Bytes)
	case RevokeIn:
		w.onRevoke(ev)
	case RenewIn:
		w.onRenew(ev)
	case RevealIn:
		w.onReveal(ev)
	case VerdictsIn:
		w.onVerdicts(ev)
	case Ran:
		w.onRan(ev)
	case Delivered:
		w.onDelivered(ev)
	case DeliverFailed:
		w.onDeliverFailed(ev)
	case OriginSeen:
		w.onSeen(ev.Origin)
	case SetLimits:
		w.onLimits(ev)
	case WorkerTick:
		w.bid()
	}
	w.start()
	w.deliver()
	return w.out
}

func (w *Worker) emit(e WorkerEffect) { w.out = append(w.out, e) }

// Next is when Step must be called with WorkerTick at the latest; zero when
// only an event can change anything.
func (w *Worker) Next() time.Time {
	var next time.Time
	for i := range w.offers {
		next = earlier(next, w.offers[i].due)
	}
	for _, s := range w.jobs {
		if len(s.leases) == 0 {
			continue
		}
		if !s.out {
			next = earlier(next, s.due)
		}
		next = earlier(next, s.lost())
	}
	if w.limits.Paused {
		next = earlier(next, w.limits.Until)
	}
	return next
}

// lost is when the origin is given up.
func (s *served) lost() time.Time { return s.heard.Add(s.grace) }

// WorkerStatus is what a worker has in hand.
type WorkerStatus struct {
	Slots    uint32
	Running  uint32
	Queued   uint32
	Receipts uint32        // without a verdict
	Queue    time.Duration // predicted wait of one more task
	Jobs     int
	Paused   bool
	Until    time.Time
	Done     uint64   // receipts accepted since the start
	Failed   uint64   // tasks that failed here
	Rejected uint64   // receipts refused
	Lost     []PeerID // origins not heard for two reports
}

// Status tells what the worker has in hand.
func (w *Worker) Status() WorkerStatus {
	s := WorkerStatus{Slots: w.limits.Slots, Running: uint32(len(w.running)), Queued: w.queued, Receipts: w.owed,
		Queue: w.waitBeside("", math.MaxInt64), Jobs: len(w.jobs), Paused: w.limits.Paused, Until: w.limits.Until,
		Done: w.done, Failed: w.failed, Rejected: w.rejected}
	for _, job := range w.jobs {
		if w.now.Sub(job.heard) > 2*job.beat+time.Second {
			s.Lost = append(s.Lost, job.origin)
		}
	}
	return s
}

// Holds reports whether this node has work of job from origin: what a request
// of the origin for an output is checked by.
func (w *Worker) Holds(job JobID, origin PeerID) bool { return w.find(origin, job) != nil }

func (w *Worker) find(origin PeerID, job JobID) *served {
	for _, s := range w.jobs {
		if s.job == job && s.origin == origin {
			return s
		}
	}
	return nil
}

func (s *served) lease(id LeaseID) *granted {
	for _, l := range s.leases {
		if l.lease.ID == id {
			return l
		}
	}
	return nil
}

func (l *granted) run(ref Ref, replica uint32) *run {
	for _, r := range l.runs {
		if r.task.Ref == ref && r.replica == replica {
			return r
		}
	}
	return nil
}
