package state

import "github.com/kith-mesh/kith/tasks/wire"

// Commit names a durable step. Tests kill the process right before or after one,
// or leave it out; nothing else depends on the names.
type Commit string

// The durable steps. After each of the first group something is said to someone:
// to a user, a worker, an origin or the whole mesh.
const (
	CommitSubmit  Commit = "state/submit"  // a job of this node; its ID is said
	CommitPublish Commit = "state/publish" // a submission; its ID is said, and it goes out
	CommitSplit   Commit = "state/split"   // a job's tasks
	CommitGrant   Commit = "state/grant"   // leases; they are sent
	CommitRecord  Commit = "state/record"  // attempts that failed; their verdicts are sent
	CommitDecide  Commit = "state/decide"  // results with verdicts and tallies; the verdicts are sent
	CommitFinish  Commit = "state/finish"  // what a job came to
	CommitPromise Commit = "state/promise" // workers' commitments; they may be asked to show what they committed to
	CommitReceipt Commit = "state/receipt" // a worker's receipts; they are sent
	CommitNonce   Commit = "state/nonce"   // a worker's receipts and nonces; their hashes are sent
	CommitSettle  Commit = "state/settle"  // verdicts came: the receipts are forgotten
	CommitAdopt   Commit = "state/adopt"   // a published job heard of; this host claims it
	CommitTerm    Commit = "state/term"    // this host is origin; it says so
	CommitYield   Commit = "state/yield"   // another host is, at a higher term
	CommitAccept  Commit = "state/accept"  // the one answer; its origin is told
	CommitForget  Commit = "state/forget"  // a published job is answered, by this host or another
	CommitInvite  Commit = "state/invite"  // an invite; it is shown
	CommitRedeem  Commit = "state/redeem"  // one use of it; a token is given
	CommitSetting Commit = "state/setting" // policy, pause; the user is told
	CommitRevoke  Commit = "state/revoke"  // an invite or a member
	CommitRemove  Commit = "state/remove"  // a job past its retention

	// CommitTransaction is what they share: the one SQLite transaction of all
	// the callers that came meanwhile.
	CommitTransaction Commit = "state/transaction"
)

// Commits lists every durable step of this package.
var Commits = []Commit{CommitSubmit, CommitPublish, CommitSplit, CommitGrant, CommitRecord, CommitDecide, CommitFinish, CommitPromise, CommitReceipt, CommitNonce, CommitSettle,
	CommitAdopt, CommitTerm, CommitYield, CommitAccept, CommitForget, CommitInvite, CommitRedeem, CommitSetting, CommitRevoke, CommitRemove,
	CommitTransaction}

// around runs a durable step, which a test may look at.
func (s *State) around(c Commit, do func() error) error {
	if s.Around == nil {
		return do()
	}
	return s.Around(c, do)
}

// commitOf names a change by the weightiest of what it writes.
func commitOf(c wire.Change) Commit {
	switch {
	case c.Finish != nil:
		return CommitFinish
	case len(c.Results) > 0:
		return CommitDecide
	case c.Split != nil:
		return CommitSplit
	case c.Term > 0:
		return CommitTerm
	case c.Yielded > 0:
		return CommitYield
	case c.Forgotten:
		return CommitForget
	case len(c.Commits) > 0:
		return CommitPromise
	case len(c.Grants) > 0 && len(c.Attempts) == 0:
		return CommitGrant
	}
	return CommitRecord
}
