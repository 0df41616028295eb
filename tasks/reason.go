package tasks

import "fmt"

// Reason says why a task, a receipt or an offer was refused or failed. The
// numbers cross the wire and are durable: append only, never reuse.
type Reason uint32

// OK is no reason at all. 1-99: the program or its limits; 100-199: the worker;
// 200-299: the origin's verdict; 300-399: the job.
const (
	OK          Reason = 0
	ExitCode    Reason = 1 // the program ended with another code than 0
	Trap        Reason = 2 // the program did what wasm forbids
	OutOfMemory Reason = 3
	TimeLimit   Reason = 4 // wall time
	CPULimit    Reason = 5
	OutputLimit Reason = 6
	BadProgram  Reason = 7 // not a module that this runner takes
	BadInput    Reason = 8 // a span that its file does not have

	WorkerBusy       Reason = 100 // queue full: try again later
	WorkerPaused     Reason = 101
	WorkerLacks      Reason = 102 // memory, runner, or disk
	NotMember        Reason = 103
	InputUnavailable Reason = 104 // nobody served the bytes in time
	WorkerFault      Reason = 105 // the worker's own failure, not the program's
	WorkerPolicy     Reason = 106 // its owner does not allow it
	TooFar           Reason = 107 // farther than the job allows
	WorkerFull       Reason = 108 // no room on its disk: try again later

	LateReceipt    Reason = 200 // the task was decided before
	UnknownLease   Reason = 201
	WrongTask      Reason = 202 // not what the lease granted
	OutputMismatch Reason = 203 // differs from what the quorum agreed on
	OutputMissing  Reason = 204 // the bytes never came, or do not hash to the CID
	BadReceipt     Reason = 205 // malformed, or signed by another
	NotCommitted   Reason = 206 // shown without having been committed to
	NotAsCommitted Reason = 207 // another answer than the one committed to
	NotRevealed    Reason = 208 // committed to, asked for and never shown
	OutputTooLarge Reason = 209 // more bytes than the job allows
	NotItsLease    Reason = 210 // under the lease of another worker

	TooManyFailures Reason = 300
	NoQuorum        Reason = 301
	CancelledByUser Reason = 302
	BadSpec         Reason = 303
	OriginBusy      Reason = 304 // the origin holds as many jobs as it may: try again later
	SplitFailed     Reason = 305
	StaleTerm       Reason = 306 // another origin holds the job at a higher term
	ReduceFailed    Reason = 307
	OriginFull      Reason = 308 // no room on the origin's disk: try again later
	AnsweredElse    Reason = 309 // its submitter has an answer, of another origin
)

var reasonText = map[Reason]string{
	OK: "ok", ExitCode: "exit code not 0", Trap: "wasm trap", OutOfMemory: "memory limit",
	TimeLimit: "wall time limit", CPULimit: "CPU time limit", OutputLimit: "output limit",
	BadProgram: "program can't be loaded", BadInput: "input span out of range",
	WorkerBusy: "worker's queue is full", WorkerPaused: "worker is paused", WorkerLacks: "worker lacks what the task needs",
	NotMember: "not a member", InputUnavailable: "inputs could not be fetched", WorkerFault: "worker failed",
	WorkerPolicy: "worker's owner does not allow it", TooFar: "farther than the job allows",
	WorkerFull:  "worker's disk is full",
	LateReceipt: "receipt came after the verdict", UnknownLease: "unknown lease", WrongTask: "not a task of the lease",
	OutputMismatch: "output differs from the quorum's", OutputMissing: "output bytes missing or not the CID's",
	BadReceipt:   "malformed or wrongly signed receipt",
	NotCommitted: "answer shown without a commitment", NotAsCommitted: "answer is not the one committed to",
	NotRevealed: "answer committed to and never shown", OutputTooLarge: "output larger than the job allows",
	NotItsLease:     "lease of another worker",
	TooManyFailures: "too many failures", NoQuorum: "no quorum", CancelledByUser: "cancelled",
	BadSpec: "spec not valid", OriginBusy: "origin holds as many jobs as it may", SplitFailed: "input could not be split",
	StaleTerm: "another origin holds the job", ReduceFailed: "reduce failed",
	OriginFull: "origin's disk is full", AnsweredElse: "another origin answered the job",
}

// Blames reports whether a verdict of this reason says that its worker lied, or
// would not stand by its word: it counts against the worker in later jobs too.
func (r Reason) Blames() bool {
	switch r {
	case WrongTask, OutputMismatch, OutputMissing, BadReceipt, NotCommitted, NotAsCommitted, NotRevealed, OutputTooLarge, NotItsLease:
		return true
	}
	return false
}

func (r Reason) String() string {
	if t, ok := reasonText[r]; ok {
		return t
	}
	return fmt.Sprintf("reason %d", uint32(r))
}
