package tasks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Adoption decides whether this host keeps, runs or leaves a published job.
// Any number of hosts may come to run one job; its submitter accepts one result.
type Adoption struct {
	cfg       AdoptionConfig
	job       JobID
	submitter PeerID
	role      Role
	term      uint64 // own, as origin
	highest   uint64 // term heard or held
	origin    PeerID
	heard     time.Time // the origin's last heartbeat, or when its absence began to count
	claims    []claim   // nearest first
	started   time.Time
	touched   time.Time // last word about the job
	claimAt   time.Time // listener: when it claims unless enough nearer ones did
	settleAt  time.Time // keeper: when the nearest claimant becomes origin
	beatAt    time.Time // origin: next heartbeat
	spoke     time.Time
	jitter    time.Duration

	back     *comeback // of an origin that was away, until it knows that it leads
	answer   *JobAnswer
	sending  bool
	answerAt time.Time
	tries    uint

	now time.Time
	out []AdoptionEffect
}

type claim struct {
	peer PeerID
	dist [32]byte
}

// Role is what a host is to a published job.
type Role uint8

// What a host is to a published job.
const (
	RoleListener Role = 1 // heard of it, holds nothing
	RoleKeeper   Role = 2 // has it on disk, would succeed
	RoleOrigin   Role = 3
	RoleDone     Role = 4 // owes nothing any more
)

// maxClaims bounds the claimants remembered: the nearest.
const maxClaims = 16

// distance orders hosts by nearness to a job: XOR of hashes, as in Kademlia.
func distance(id PeerID, job JobID) (d [32]byte) {
	a, b := sha256.Sum256([]byte(id)), sha256.Sum256([]byte(job))
	for i := range d {
		d[i] = a[i] ^ b[i]
	}
	return d
}

// nearer reports whether a is nearer to the job than b.
func nearer(a, b PeerID, job JobID) bool {
	x, y := distance(a, job), distance(b, job)
	return bytes.Compare(x[:], y[:]) < 0
}

func (c AdoptionConfig) withDefaults() AdoptionConfig {
	fill(&c.Hosts, 1)
	fill(&c.Keepers, 3)
	fill(&c.Step, 200*time.Millisecond)
	fill(&c.MaxWait, 3*time.Second)
	fill(&c.Settle, time.Second)
	fill(&c.Heartbeat, 5*time.Second)
	fill(&c.Lapse, 20*time.Second)
	fill(&c.Retry, time.Second)
	fill(&c.MaxRetry, time.Minute)
	fill(&c.Keep, 10*time.Minute)
	fill(&c.GiveUp, 7*24*time.Hour)
	return c
}

func (c AdoptionConfig) validate(job JobID, submitter PeerID) error {
	var errs []error
	if c.Self == "" || job == "" || submitter == "" {
		errs = append(errs, errors.New("Self, the job's ID or its submitter is empty"))
	}
	if c.Rand == nil {
		errs = append(errs, errors.New("Rand is nil: give a seeded source"))
	}
	for _, d := range []time.Duration{c.Step, c.MaxWait, c.Settle, c.Heartbeat, c.Retry, c.MaxRetry, c.Keep, c.GiveUp} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("a duration is %v: must be above 0", d))
		}
	}
	if c.Lapse <= c.Heartbeat {
		errs = append(errs, fmt.Errorf("Lapse %v must be above Heartbeat %v", c.Lapse, c.Heartbeat))
	}
	if c.Hosts < 1 || c.Keepers < 1 {
		errs = append(errs, errors.New("Hosts or Keepers is under 1"))
	}
	return errors.Join(errs...)
}

// NewAdoption starts when a submission was heard for the first time.
func NewAdoption(cfg AdoptionConfig, job JobID, submitter PeerID, now time.Time) (*Adoption, error) {
	return RestoreAdoption(cfg, job, submitter, AdoptionRecord{}, now)
}

// RestoreAdoption takes up an adoption after a restart.
func RestoreAdoption(cfg AdoptionConfig, job JobID, submitter PeerID, r AdoptionRecord, now time.Time) (*Adoption, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(job, submitter); err != nil {
		return nil, fmt.Errorf("adoption of job %s: %w", job, err)
	}
	a := &Adoption{cfg: cfg, job: job, submitter: submitter, role: RoleListener, now: now, started: now,
		touched: now, heard: now, answer: r.Answer, highest: max(r.Term, r.Yielded)}
	a.jitter = a.upTo(cfg.Step / 4)
	switch {
	case r.Term > r.Yielded, r.Answer != nil:
		a.role, a.term, a.origin, a.beatAt = RoleOrigin, r.Term, cfg.Self, now
		if r.Answer != nil {
			a.answerAt = now
		} else {
			a.back = &comeback{askAt: now, until: now.Add(cfg.Heartbeat + cfg.Settle)}
		}
	case r.Adopted:
		a.role = RoleKeeper
		a.claim(cfg.Self)
	default:
		a.claimAt = now.Add(a.delay())
	}
	return a, nil
}

// delay is how long this host leaves the job to nearer ones: a step for each
// that is likely to be nearer.
func (a *Adoption) delay() time.Duration {
	d := distance(a.cfg.Self, a.job)
	rank := float64(binary.BigEndian.Uint64(d[:8])) / (1 << 63) / 2 * float64(a.cfg.Hosts)
	return min(time.Duration(float64(a.cfg.Step)*float64(int(rank))), a.cfg.MaxWait) + a.jitter
}

func (a *Adoption) upTo(d time.Duration) time.Duration {
	return time.Duration(a.cfg.Rand.Int64N(int64(d) + 1))
}

// Role tells what this host is to the job, at which term, and who its origin
// is as far as it heard.
func (a *Adoption) Role() (role Role, term uint64, origin PeerID) {
	return a.role, a.highest, a.origin
}

// Next is when Step must be called with AdoptionTick at the latest.
func (a *Adoption) Next() time.Time {
	next := a.started.Add(a.cfg.GiveUp)
	switch a.role {
	case RoleDone:
		return time.Time{}
	case RoleListener:
		next = earlier(next, a.touched.Add(a.cfg.Keep))
		next = earlier(next, a.claimAt)
	case RoleKeeper:
		next = earlier(next, a.settleAt)
		if a.settleAt.IsZero() {
			next = earlier(next, a.lapses())
		}
	case RoleOrigin:
		next = earlier(next, a.beatAt)
		if a.back != nil {
			next = earlier(earlier(next, a.back.askAt), a.back.until)
		}
		if !a.sending {
			next = earlier(next, a.answerAt)
		}
	}
	return next
}

// lapses is when this keeper takes over from a silent origin: the nearest first.
func (a *Adoption) lapses() time.Time {
	place := slices.IndexFunc(a.claims, func(c claim) bool { return c.peer == a.cfg.Self })
	return a.heard.Add(a.cfg.Lapse + time.Duration(max(place, 0))*a.cfg.Lapse/4 + a.jitter)
}

// Step takes one event and returns what must be done, in order.
func (a *Adoption) Step(now time.Time, ev AdoptionEvent) []AdoptionEffect {
	if now.Before(a.now) {
		now = a.now
	}
	a.now, a.out = now, nil
	if a.role == RoleDone {
		return nil
	}
	switch ev := ev.(type) {
	case NoticeIn:
		a.onNotice(ev.Notice)
	case Resubmitted:
		a.onResubmitted()
	case JobOver:
		if a.role == RoleOrigin && a.answer == nil && ev.Answer.Reason != StaleTerm {
			answer := ev.Answer
			a.answer, a.answerAt = &answer, now
		}
	case AnswerTaken:
		if a.sending {
			a.sending = false
			a.done("the submitter has the answer")
		}
	case AnswerFailed:
		if a.sending {
			a.sending = false
			a.answerAt = now.Add(doubled(a.cfg.Retry, a.tries, a.cfg.MaxRetry) + a.upTo(a.cfg.Retry/4))
			a.tries++
		}
	case HolderTold:
		a.onHolder(ev)
	case AdoptionTick:
	}
	a.due()
	return a.out
}

func (a *Adoption) emit(e AdoptionEffect) { a.out = append(a.out, e) }

func (a *Adoption) done(why string) {
	a.role, a.back = RoleDone, nil
	f := Forget{Why: why}
	if a.origin != a.cfg.Self {
		f.Origin, f.Term = a.origin, a.highest
	}
	a.emit(f)
}

func reached(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// due does what time asks for.
func (a *Adoption) due() {
	if a.role != RoleDone && reached(a.started.Add(a.cfg.GiveUp), a.now) {
		a.done("nobody took the answer in time")
	}
	switch a.role {
	case RoleListener:
		switch {
		case reached(a.claimAt, a.now):
			a.claimAt = time.Time{}
			if a.before() < a.cfg.Keepers {
				a.role = RoleKeeper
				a.claim(a.cfg.Self)
				a.settleAt = a.now.Add(a.cfg.Settle)
				a.emit(Adopt{})
				a.say(Notice{Kind: NoticeClaim})
			}
		case reached(a.touched.Add(a.cfg.Keep), a.now):
			a.done("others hold it")
		}
	case RoleKeeper:
		switch {
		case reached(a.settleAt, a.now):
			a.settleAt, a.heard = time.Time{}, a.now
			if a.highest == 0 && a.before() == 0 {
				a.lead()
			}
		case a.settleAt.IsZero() && reached(a.lapses(), a.now):
			a.lead()
		}
	case RoleOrigin:
		if a.comeBack(); a.role != RoleOrigin {
			return
		}
		if reached(a.beatAt, a.now) {
			a.beat()
		}
		if !a.sending && reached(a.answerAt, a.now) {
			a.sending, a.answerAt = true, time.Time{}
			a.emit(SendAnswer{*a.answer})
		}
	}
}

// before counts the claimants nearer than this host.
func (a *Adoption) before() int {
	n, own := 0, distance(a.cfg.Self, a.job)
	for _, c := range a.claims {
		if bytes.Compare(c.dist[:], own[:]) < 0 {
			n++
		}
	}
	return n
}

func (a *Adoption) claim(id PeerID) {
	c := claim{id, distance(id, a.job)}
	i, known := slices.BinarySearchFunc(a.claims, c, func(x, y claim) int { return bytes.Compare(x.dist[:], y.dist[:]) })
	if !known {
		a.claims = slices.Insert(a.claims, i, c)
		a.claims = a.claims[:min(len(a.claims), maxClaims)]
	}
}

func (a *Adoption) say(n Notice) {
	n.Job, n.From = a.job, a.cfg.Self
	a.spoke = a.now
	a.emit(SendNotice{n})
}

func (a *Adoption) beat() {
	a.beatAt = a.now.Add(a.cfg.Heartbeat)
	a.say(Notice{Kind: NoticeOrigin, Term: a.term})
}

// lead makes this host the origin at the next term.
func (a *Adoption) lead() {
	a.highest++
	a.role, a.term, a.origin = RoleOrigin, a.highest, a.cfg.Self
	a.emit(BecomeOrigin{Term: a.term})
	a.beat()
}

func (a *Adoption) onNotice(n Notice) {
	if n.Job != a.job || n.From == a.cfg.Self {
		return
	}
	switch n.Kind {
	case NoticeClaim:
		a.touched = a.now
		a.claim(n.From)
	case NoticeOrigin:
		if n.Term > 0 {
			a.touched = a.now
			a.onOrigin(n)
		}
	case NoticeAnswered:
		switch {
		case n.From != a.submitter:
		case a.back != nil: // it tells whose, too, when it is asked
			a.back.answered = true
		default:
			a.done(whyAnswered)
		}
	}
}

// maxJump bounds how far a term may be above the one known: terms rise one by
// one, and a liar must not use them up.
const maxJump = 1000

func (a *Adoption) onOrigin(n Notice) {
	if n.Term > a.highest && n.Term-a.highest > maxJump {
		return
	}
	if a.role == RoleOrigin {
		switch {
		case a.answer != nil:
			// What is done is delivered; the submitter takes the first.
			if n.Term < a.term && a.now.Sub(a.spoke) >= time.Second {
				a.beat()
			}
		case a.stronger(n.From, n.Term):
			a.yield(n.From, n.Term)
		case a.now.Sub(a.spoke) >= time.Second:
			a.beat() // so that it yields
		}
		if a.role == RoleOrigin {
			return
		}
	}
	if n.Term > a.highest || n.From == a.origin || a.origin == "" ||
		(n.Term == a.highest && nearer(n.From, a.origin, a.job)) {
		a.highest, a.origin, a.heard = max(a.highest, n.Term), n.From, a.now
	}
}

// onResubmitted: the submitter hears nobody, so whoever holds the job speaks up.
func (a *Adoption) onResubmitted() {
	a.touched = a.now
	switch quiet := a.now.Sub(a.spoke) >= time.Second; {
	case a.role == RoleOrigin && quiet:
		a.beat()
	case a.role == RoleKeeper && quiet:
		a.say(Notice{Kind: NoticeClaim})
	case a.role == RoleListener && a.claimAt.IsZero():
		a.claims = nil // those that are left claim again
		a.claimAt = a.now.Add(a.delay())
	}
}
