package wire

import (
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/kith-mesh/kith/tasks"
)

// fuzz checks a decoder: what it takes it gives again the same, and what it
// refuses is ErrMalformed.
func fuzz[T any](f *testing.F, gen func(*rapid.T) T, enc func(T) ([]byte, error), dec func([]byte) (T, error)) {
	f.Helper()
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	for seed := range 4 {
		b, err := enc(rapid.Custom(gen).Example(seed))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := dec(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			return
		}
		again, err := enc(v)
		if err != nil {
			t.Fatalf("what was decoded is not encoded: %v", err)
		}
		w, err := dec(again)
		if err != nil || !reflect.DeepEqual(v, w) {
			t.Fatalf("%+v\nbecame %+v, %v", v, w, err)
		}
	})
}

func FuzzSubmission(f *testing.F) {
	fuzz(f, func(t *rapid.T) Submission { return Submission{Mesh: "m", Spec: genSpec(t), Nonce: make([]byte, 16)} }, MarshalSubmission, UnmarshalSubmission)
}
func FuzzOffer(f *testing.F)   { fuzz(f, genOffer, MarshalOffer, UnmarshalOffer) }
func FuzzLease(f *testing.F)   { fuzz(f, genLease, MarshalLease, UnmarshalLease) }
func FuzzTask(f *testing.F)    { fuzz(f, genTask, MarshalTask, UnmarshalTask) }
func FuzzReceipt(f *testing.F) { fuzz(f, genReceipt, MarshalReceipt, UnmarshalReceipt) }

func FuzzBid(f *testing.F) {
	fuzz(f, func(t *rapid.T) tasks.Bid { return tasks.Bid{Job: genJob(t), Worker: genPeer(t)} }, MarshalBid, UnmarshalBid)
}

func FuzzReceipts(f *testing.F) {
	fuzz(f, func(t *rapid.T) []tasks.Receipt { return []tasks.Receipt{genReceipt(t)} },
		func(rs []tasks.Receipt) ([]byte, error) { return MarshalReceipts("m", rs) },
		func(b []byte) ([]tasks.Receipt, error) { _, rs, err := UnmarshalReceipts(b); return rs, err })
}

func FuzzVerdicts(f *testing.F) {
	fuzz(f, func(t *rapid.T) []tasks.Verdict {
		return []tasks.Verdict{{Job: genJob(t), Lease: genLeaseID(t), Worker: genPeer(t), Status: tasks.Accepted}}
	}, func(vs []tasks.Verdict) ([]byte, error) { return MarshalVerdicts("m", vs) },
		func(b []byte) ([]tasks.Verdict, error) { _, vs, err := UnmarshalVerdicts(b); return vs, err })
}

func FuzzReveals(f *testing.F) {
	fuzz(f, func(t *rapid.T) []Reveal { return []Reveal{genReveal(t)} },
		func(rs []Reveal) ([]byte, error) { return MarshalReveals("m", rs) },
		func(b []byte) ([]Reveal, error) { _, rs, err := UnmarshalReveals(b); return rs, err })
}

func FuzzReport(f *testing.F) {
	fuzz(f, func(t *rapid.T) WorkReport {
		return WorkReport{Jobs: []tasks.Report{{Job: genJob(t), Want: 2}}, Commits: []tasks.Commitment{genCommitment(t)}, Reveals: []byte{1}}
	},
		MarshalReport, func(b []byte) (WorkReport, error) { return UnmarshalReport(b, "") })
}

func FuzzOrders(f *testing.F) {
	fuzz(f, func(t *rapid.T) Orders {
		return Orders{Leases: [][]byte{{1}}, Revokes: []Revocation{{Job: genJob(t), Lease: genLeaseID(t)}}, Asks: []Ask{{Job: genJob(t), Ref: genRef(t), Lease: genLeaseID(t)}}}
	}, MarshalOrders, UnmarshalOrders)
}

func FuzzOrdersReply(f *testing.F) {
	fuzz(f, func(t *rapid.T) []RefusedLease {
		return []RefusedLease{{Job: genJob(t), Lease: genLeaseID(t), Reason: tasks.WorkerBusy}, {Job: genJob(t), Lease: genLeaseID(t), Reason: tasks.UnknownLease}}
	}, MarshalOrdersReply, UnmarshalOrdersReply)
}

func FuzzTaken(f *testing.F) {
	fuzz(f, func(t *rapid.T) []tasks.JobID { return []tasks.JobID{genJob(t)} }, MarshalTaken, UnmarshalTaken)
}

func FuzzTicket(f *testing.F) {
	fuzz(f, func(t *rapid.T) Ticket { return Ticket{genJob(t), genLeaseID(t)} }, MarshalTicket, UnmarshalTicket)
}

func FuzzNotice(f *testing.F) {
	fuzz(f, func(t *rapid.T) tasks.Notice { return tasks.Notice{Job: genJob(t), Kind: 1, From: genPeer(t)} },
		func(n tasks.Notice) ([]byte, error) { return MarshalNotice("m", n) },
		func(b []byte) (tasks.Notice, error) { _, n, err := UnmarshalNotice(b); return n, err })
}

func FuzzAnswer(f *testing.F) {
	fuzz(f, func(t *rapid.T) tasks.JobAnswer {
		return tasks.JobAnswer{Job: genJob(t), Origin: genPeer(t), State: tasks.Failed}
	}, func(a tasks.JobAnswer) ([]byte, error) { return MarshalAnswer("m", a) },
		func(b []byte) (tasks.JobAnswer, error) { _, a, err := UnmarshalAnswer(b); return a, err })
}

func FuzzProgress(f *testing.F) {
	fuzz(f, func(t *rapid.T) Progress { return Progress{Job: genJob(t), Origin: genPeer(t), State: tasks.Running} }, MarshalProgress, UnmarshalProgress)
}

func FuzzFollow(f *testing.F) { fuzz(f, genJob, MarshalFollow, UnmarshalFollow) }

func FuzzAnswerReply(f *testing.F) {
	fuzz(f, func(t *rapid.T) bool { return rapid.Bool().Draw(t, "accepted") }, MarshalAnswerReply, UnmarshalAnswerReply)
}

func FuzzGrant(f *testing.F) {
	fuzz(f, func(t *rapid.T) tasks.GrantRecord {
		return tasks.GrantRecord{Indexes: []uint32{rapid.Uint32().Draw(t, "index")}, Replicas: []uint32{0}}
	},
		MarshalGrant, func(b []byte) (tasks.GrantRecord, error) { return UnmarshalGrant(tasks.GrantRecord{}, b) })
}
