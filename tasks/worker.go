package tasks

import (
	"math/rand/v2"
	"time"
)

// WorkerConfig sets a Worker. Zero fields take the default named beside them.
type WorkerConfig struct {
	Self   PeerID     // required
	Rand   *rand.Rand // required: jitter of bids and retries
	Limits SetLimits  // what the device gives at first; Slots 1

	MaxQueue    uint32        // tasks held and not started; 512
	QueueTime   time.Duration // predicted wait above which it bids and wants no more; 10 s
	Kappa       float64       // seconds of bid delay a second of queue; 0.1
	MaxBidDelay time.Duration // 1 s
	Heartbeat   time.Duration // at the most between reports; 5 s
	Flush       time.Duration // receipts of one job are gathered so long; 20 ms
	MaxReceipts uint32        // without a verdict; above it nothing starts; 4096
	MaxLog      int           // bytes of log in a receipt; 16 KiB
	MaxJobs     int           // jobs served at once; 64
	MaxOffers   int           // offers waiting for their bid's delay; 256
}

// Worker decides what this node bids for and runs, for all origins at once. It
// is not safe for concurrent use.
type Worker struct{}

// NewWorker fails on a config without its required fields.
func NewWorker(cfg WorkerConfig) (*Worker, error) { return &Worker{}, nil }

// Step takes one event and returns what must be done, in order.
func (w *Worker) Step(now time.Time, ev WorkerEvent) []WorkerEffect { return nil }

// Next is when Step must be called with WorkerTick at the latest.
func (w *Worker) Next() time.Time { return time.Time{} }

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
	Lost     []PeerID // origins not heard within their leases
}

// Status tells what the worker has in hand.
func (w *Worker) Status() WorkerStatus { return WorkerStatus{} }

// Holds reports whether this node has work of job from origin: what a request
// of the origin for an output is checked by.
func (w *Worker) Holds(job JobID, origin PeerID) bool { return false }
