package tasks

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Notice is a small signed message on the jobs topic about a published job.
type Notice struct {
	Job       JobID
	Term      uint64 // of the origin that speaks; 0 in a claim
	Kind      NoticeKind
	From      PeerID // who signed it
	Addresses []byte // From's signed peer record
}

// NoticeKind says what a notice tells.
type NoticeKind uint8

// What a notice tells. The numbers cross the wire: append only.
const (
	NoticeClaim    NoticeKind = 1 // From has the submission on disk and would be origin
	NoticeOrigin   NoticeKind = 2 // From is origin at Term; repeated as its heartbeat
	NoticeAnswered NoticeKind = 3 // From, the submitter, has accepted a result: forget the job
)

// JobAnswer is what an origin owes the submitter of a published job.
type JobAnswer struct {
	Job    JobID
	Term   uint64
	Origin PeerID
	State  State // Done, Failed or Cancelled
	Reason Reason
	Detail string
	Output CID // when Done
	Size   int64
}

// AdoptionEvent is what happened to a published job that this host heard of.
type AdoptionEvent interface{ adoptionEvent() }

// NoticeIn is a notice whose signature was checked. An answered notice counts
// only when From is the job's submitter.
type NoticeIn struct{ Notice Notice }

// Resubmitted says that the submission was heard again: its submitter has no
// answer and knows no origin.
type Resubmitted struct{}

// JobOver says that the job this node is origin of is over, durably.
type JobOver struct{ Answer JobAnswer }

// AnswerTaken says that the submitter acknowledged the answer.
type AnswerTaken struct{}

// AnswerFailed says that the answer could not be delivered; it is tried again.
type AnswerFailed struct{}

// HolderTold is the submitter's answer to AskHolder: whom it holds for the job's
// origin, and whether it has an answer. Origin is "" when it could not be asked or
// knows none.
type HolderTold struct {
	Origin PeerID
	Term   uint64
	State  State // Over: an answer is accepted, of Origin
}

// AdoptionTick only lets time pass. It is also the first event.
type AdoptionTick struct{}

func (NoticeIn) adoptionEvent()     {}
func (Resubmitted) adoptionEvent()  {}
func (JobOver) adoptionEvent()      {}
func (AnswerTaken) adoptionEvent()  {}
func (AnswerFailed) adoptionEvent() {}
func (HolderTold) adoptionEvent()   {}
func (AdoptionTick) adoptionEvent() {}

// AdoptionEffect is what the shell of an Adoption must do, in the order given.
type AdoptionEffect interface{ adoptionEffect() }

// Adopt is durable: the submission is kept, so that the claim after it is true.
type Adopt struct{}

// SendNotice publishes on the jobs topic. The shell fills Addresses.
type SendNotice struct{ Notice Notice }

// BecomeOrigin is durable (job, term), then the shell makes an Origin at Term
// and runs it. The notice after it tells everyone.
type BecomeOrigin struct{ Term uint64 }

// Yield is durable: another origin holds the job at a higher term, or at the
// same one and is nearer. The shell
// feeds the Origin Superseded and goes on as keeper only.
type Yield struct {
	Term uint64
	To   PeerID
}

// SendAnswer delivers the answer to the submitter, by stream. The shell answers
// with AnswerTaken or AnswerFailed, once.
type SendAnswer struct{ Answer JobAnswer }

// AskHolder asks the submitter who holds the job. The shell answers with
// HolderTold, once.
type AskHolder struct{}

// Resume says that an origin that was away still leads: the shell runs its Origin
// on.
type Resume struct{}

// Forget is durable: nothing more is owed. The machine is done; the job's
// record may go when its retention ends. An Origin still running for it is fed
// CancelJob, and one that was away ends as AnsweredElse.
type Forget struct {
	Why    string
	Origin PeerID // another one that held the job last; "" when none is known
	Term   uint64 // its term
}

func (f Forget) String() string {
	if f.Origin == "" {
		return f.Why
	}
	return fmt.Sprintf("of %s, at term %d: %s", f.Origin, f.Term, f.Why)
}

func (Adopt) adoptionEffect()        {}
func (SendNotice) adoptionEffect()   {}
func (BecomeOrigin) adoptionEffect() {}
func (Yield) adoptionEffect()        {}
func (SendAnswer) adoptionEffect()   {}
func (AskHolder) adoptionEffect()    {}
func (Resume) adoptionEffect()       {}
func (Forget) adoptionEffect()       {}

// AdoptionConfig sets an Adoption. Zero fields take the default named.
type AdoptionConfig struct {
	Self      PeerID        // required
	Rand      *rand.Rand    // required: jitter
	Hosts     int           // hosts that this node knows of, itself included: makes ranks of distances; 1
	Keepers   int           // hosts that keep a submission; 3
	Step      time.Duration // of waiting for each rank nearer; 200 ms
	MaxWait   time.Duration // 3 s
	Settle    time.Duration // from a claim until the nearest claimant is origin; 1 s
	Heartbeat time.Duration // between an origin's notices; 5 s
	Lapse     time.Duration // without one, the next nearest keeper succeeds; 20 s
	Retry     time.Duration // between deliveries of the answer at first, doubling; 1 s
	MaxRetry  time.Duration // 1 min
	Keep      time.Duration // after which a host that holds nothing forgets the job; 10 min
	GiveUp    time.Duration // after which nobody is owed anything; 7 days
}

// AdoptionRecord is what was durable of an adoption, for RestoreAdoption.
type AdoptionRecord struct {
	Adopted bool
	Term    uint64 // this node became origin at; 0: never
	Yielded uint64 // the highest term that it yielded to, its own when a nearer host had it; 0: never
	Answer  *JobAnswer
}
