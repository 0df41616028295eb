package tasks

import "time"

const whyAnswered = "its submitter has an answer"

// comeback is an origin that was away: meanwhile another may have taken its job at
// a higher term, and answered. It asks the submitter, and takes nothing up before
// it knows, or before a living successor would have spoken.
type comeback struct {
	askAt    time.Time // zero while the submitter is being asked
	until    time.Time
	answered bool // the submitter has an answer, and has not said whose
}

func (a *Adoption) comeBack() {
	b := a.back
	switch {
	case b == nil:
	case !reached(b.until, a.now):
		if reached(b.askAt, a.now) {
			b.askAt = time.Time{}
			a.emit(AskHolder{})
		}
	case b.answered:
		a.done(whyAnswered)
	default:
		a.resume()
	}
}

func (a *Adoption) resume() {
	a.back = nil
	a.emit(Resume{})
}

// Returning tells until when an origin that was away waits for word of another;
// zero when it does not.
func (a *Adoption) Returning() time.Time {
	if a.role != RoleOrigin || a.back == nil {
		return time.Time{}
	}
	return a.back.until
}

func (a *Adoption) onHolder(ev HolderTold) {
	switch {
	case ev.State == Cancelled && ev.Origin == a.submitter:
		a.done("its submitter withdrew it")
	case ev.State.Over():
		a.origin, a.highest = ev.Origin, max(a.highest, ev.Term)
		a.done(whyAnswered)
	case a.role != RoleOrigin || a.back == nil: // it knows by now
	case ev.Origin == a.cfg.Self && ev.Term == a.term && !a.back.answered:
		a.resume()
	case ev.Origin != "" && a.stronger(ev.Origin, ev.Term):
		a.yield(ev.Origin, ev.Term)
		a.highest, a.origin, a.heard = max(a.highest, ev.Term), ev.Origin, a.now
	default:
		a.back.askAt = a.now.Add(a.cfg.Retry)
	}
}

// stronger reports whether another origin's term beats this one's.
func (a *Adoption) stronger(from PeerID, term uint64) bool {
	if from == a.cfg.Self {
		return false
	}
	return term > a.term && term-a.term <= maxJump || term == a.term && nearer(from, a.cfg.Self, a.job)
}

// yield leaves the job to a stronger origin: this host goes on as keeper.
func (a *Adoption) yield(to PeerID, term uint64) {
	a.role, a.back = RoleKeeper, nil
	a.claim(a.cfg.Self)
	a.emit(Yield{Term: term, To: to})
}
