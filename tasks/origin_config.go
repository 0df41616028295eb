package tasks

import (
	"errors"
	"fmt"
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
	Window    time.Duration // how long bids are collected at the most; 0: 50 ms + 2 radii, 250 ms at least with a probe, at most 600 ms
	MinBids   uint32        // good slots below which the search widens, when so many tasks wait; 8
	Probes    int           // far peers asked each time the search widens; 8. -1: none, to show what they are worth

	Batch         time.Duration // of work in one lease; 2 s
	MaxBatch      uint32        // tasks in one lease; 256
	MinLease      time.Duration // 5 s
	MaxLease      time.Duration // 30 s: how long a silent death goes unseen
	Rejoin        time.Duration // after a restart of this node, a worker not heard for so long is taken for dead; 10 s
	Grace         time.Duration // a worker that lost the origin keeps results so long; 10 min
	BidLife       time.Duration // how long a bid or a Want is believed; 30 s
	Reveal        time.Duration // within which a worker shows what it committed to; 30 s
	Reannounce    time.Duration // at the least between offers once the radius is full; 1 s, doubling to MaxReannounce
	MaxReannounce time.Duration // 1 min
	MaxWorkers    int           // peers remembered; 4096
}

func (c OriginConfig) withDefaults() OriginConfig {
	fill(&c.Radius, 50*time.Millisecond)
	fill(&c.MaxRadius, time.Second)
	fill(&c.MinBids, 8)
	fill(&c.Probes, 8)
	fill(&c.Batch, 2*time.Second)
	fill(&c.MaxBatch, 256)
	fill(&c.MinLease, 5*time.Second)
	fill(&c.MaxLease, max(30*time.Second, c.MinLease))
	fill(&c.Rejoin, 10*time.Second)
	fill(&c.Grace, 10*time.Minute)
	fill(&c.BidLife, 30*time.Second)
	fill(&c.Reveal, 30*time.Second)
	fill(&c.Reannounce, time.Second)
	fill(&c.MaxReannounce, max(time.Minute, c.Reannounce))
	fill(&c.MaxWorkers, 4096)
	return c
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c OriginConfig) validate(job Job) error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.Self == "", "Self is empty: give this node's peer ID")
	fault(c.Rand == nil, "Rand is nil: give a seeded source")
	fault(c.Judge == nil && job.Spec.Verify.Mode == VerifyQuorum, "Judge is nil: mode %s needs one", job.Spec.Verify.Mode)
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Radius", c.Radius}, {"MaxRadius", c.MaxRadius}, {"Batch", c.Batch}, {"MinLease", c.MinLease},
		{"Rejoin", c.Rejoin}, {"Grace", c.Grace}, {"BidLife", c.BidLife}, {"Reveal", c.Reveal}, {"Reannounce", c.Reannounce}} {
		fault(d.value <= 0, "%s is %v: must be above 0", d.name, d.value)
	}
	fault(c.Window < 0, "Window is %v: must not be negative", c.Window)
	fault(c.MaxLease < c.MinLease, "MaxLease %v is under MinLease %v", c.MaxLease, c.MinLease)
	fault(c.MaxReannounce < c.Reannounce, "MaxReannounce %v is under Reannounce %v", c.MaxReannounce, c.Reannounce)
	fault(c.Probes < -1 || c.MaxWorkers < 1, "Probes %d or MaxWorkers %d is out of range", c.Probes, c.MaxWorkers)
	fault(job.ID == "", "the job has no ID")
	fault(job.Term == 0, "the job has no term: the first is 1")
	fault(job.Spec.Program == "", "the job has no program")
	fault(job.Spec.Verify.Replicas > MaxReplicas, "%d replicas are more than %d", job.Spec.Verify.Replicas, MaxReplicas)
	return errors.Join(errs...)
}
