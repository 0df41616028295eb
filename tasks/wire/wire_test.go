package wire

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/kith-mesh/kith/tasks"
)

// Generators of what domain types may hold.
func genCID(t *rapid.T) tasks.CID {
	sum, err := mh.Sum([]byte{rapid.Byte().Draw(t, "cid")}, mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return tasks.CID(cid.NewCidV1(cid.Raw, sum).String())
}

func genPeer(t *rapid.T) tasks.PeerID {
	sum, err := mh.Sum([]byte{rapid.Byte().Draw(t, "peer")}, mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return tasks.PeerID(peer.ID(sum).String())
}

func genJob(t *rapid.T) tasks.JobID {
	return tasks.JobID(rapid.StringMatching(`[a-z2-7]{52}`).Draw(t, "job"))
}

func genLeaseID(t *rapid.T) tasks.LeaseID {
	return tasks.LeaseID(rapid.StringMatching(`[a-z0-9.:-]{1,64}`).Draw(t, "lease"))
}

func genSpanTime(t *rapid.T) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(maxSpan)).Draw(t, "duration"))
}

func genSize(t *rapid.T) int64 { return rapid.Int64Range(0, 1<<50).Draw(t, "size") }

func genBytes(t *rapid.T, most int) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 0, min(most, 64)).Draw(t, "bytes")
	if len(b) == 0 {
		return nil
	}
	return b
}

func genTexts(t *rapid.T) []string {
	s := rapid.SliceOfN(rapid.StringMatching(`[a-zA-Z0-9 ./-]{0,20}`), 0, 4).Draw(t, "texts")
	if len(s) == 0 {
		return nil
	}
	return s
}

func genEnv(t *rapid.T) map[string]string {
	m := rapid.MapOfN(rapid.StringMatching(`[A-Z_]{1,8}`), rapid.StringMatching(`[ -~]{0,20}`), 0, 3).Draw(t, "env")
	if len(m) == 0 {
		return nil
	}
	return m
}

func genResources(t *rapid.T) tasks.Resources {
	return tasks.Resources{CPU: rapid.Float64Range(0, 4096).Draw(t, "cpu"), Memory: genSize(t), Timeout: genSpanTime(t), CPUTime: genSpanTime(t), Output: genSize(t)}
}

func genRef(t *rapid.T) tasks.Ref {
	return tasks.Ref{Stage: tasks.Stage(rapid.IntRange(0, 1).Draw(t, "stage")), Index: rapid.Uint32Max(1<<30).Draw(t, "index")}
}

func genDataSpan(t *rapid.T) tasks.Span {
	return tasks.Span{Root: genCID(t), Path: rapid.StringMatching(`[a-z/]{0,12}`).Draw(t, "path"), Offset: genSize(t), Length: rapid.Int64Range(-1, 1<<50).Draw(t, "length")}
}

func genTask(t *rapid.T) tasks.Task {
	task := tasks.Task{Ref: genRef(t), Size: genSize(t)}
	for range rapid.IntRange(0, 4).Draw(t, "spans") {
		task.Stdin = append(task.Stdin, genDataSpan(t))
	}
	if rapid.Bool().Draw(t, "reduce") && len(task.Stdin) > 0 {
		task.Inputs = map[string]tasks.Span{}
		for i, s := range task.Stdin {
			task.Inputs[placeName(i)] = s
		}
	} else if n := rapid.IntRange(0, 2).Draw(t, "inputs"); n > 0 {
		task.Inputs = map[string]tasks.Span{}
		for range n {
			task.Inputs[rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "name")] = genDataSpan(t)
		}
	}
	return task
}

func genLease(t *rapid.T) tasks.Lease {
	l := tasks.Lease{ID: genLeaseID(t), Job: genJob(t), Term: rapid.Uint64Max(1<<32).Draw(t, "term"), Origin: genPeer(t), Worker: genPeer(t), Program: genCID(t), Args: genTexts(t),
		Env: genEnv(t), Kind: tasks.KindWasm, Needs: genResources(t), Tasks: rapid.Uint32Max(1<<30).Draw(t, "tasks"), Nondeterministic: rapid.Bool().Draw(t, "nd"),
		Commit: rapid.Bool().Draw(t, "commit"), Duration: genSpanTime(t), Grace: genSpanTime(t)}
	for range rapid.IntRange(1, 4).Draw(t, "assignments") {
		l.Assignments = append(l.Assignments, tasks.Assignment{Task: genTask(t), Replica: rapid.Uint32Max(16).Draw(t, "replica")})
	}
	return l
}

func genReceipt(t *rapid.T) tasks.Receipt {
	r := tasks.Receipt{Job: genJob(t), Ref: genRef(t), Replica: rapid.Uint32Max(16).Draw(t, "replica"), Lease: genLeaseID(t), Worker: genPeer(t),
		Detail: rapid.StringMatching(`[ -~]{0,40}`).Draw(t, "detail"), Log: genBytes(t, MaxLog), Runner: "wasm/1",
		Usage: tasks.Usage{Wall: genSpanTime(t), CPU: genSpanTime(t), Memory: genSize(t), Input: genSize(t), Output: genSize(t)}}
	if rapid.Bool().Draw(t, "ok") {
		r.Output, r.Inline = genCID(t), genBytes(t, MaxInline)
	} else {
		r.Reason = tasks.Reason(rapid.Uint32Range(1, 400).Draw(t, "reason"))
	}
	return r
}

func genHash(t *rapid.T) (h tasks.Hash) {
	copy(h[:], rapid.SliceOfN(rapid.Byte(), len(h), len(h)).Draw(t, "hash"))
	return h
}

func genCommitment(t *rapid.T) tasks.Commitment {
	return tasks.Commitment{Job: genJob(t), Ref: genRef(t), Replica: rapid.Uint32Max(16).Draw(t, "replica"), Lease: genLeaseID(t), Hash: genHash(t)}
}

func genReveal(t *rapid.T) Reveal {
	r := genReceipt(t)
	b, err := MarshalReceipt(r)
	if err != nil {
		t.Fatal(err)
	}
	h := genHash(t)
	return Reveal{Receipt: r, Body: b, Nonce: h[:]}
}

func genSpec(t *rapid.T) tasks.Spec {
	s := tasks.Spec{Name: rapid.StringMatching(`[a-z ]{0,12}`).Draw(t, "name"), Kind: tasks.KindWasm, Program: genCID(t), Args: genTexts(t), Env: genEnv(t),
		Tasks: rapid.Uint32().Draw(t, "tasks"), Resources: genResources(t), Locality: tasks.Locality{MaxRTT: genSpanTime(t)},
		Verify: tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: rapid.Uint32Max(64).Draw(t, "replicas")}, Retry: tasks.Retry{Max: rapid.Uint32Max(1000).Draw(t, "retry")},
		Retention: genSpanTime(t), Nondeterministic: rapid.Bool().Draw(t, "nd")}
	for range rapid.IntRange(0, 3).Draw(t, "inputs") {
		s.Inputs = append(s.Inputs, tasks.Input{Name: "in", Source: genCID(t), Split: tasks.Split{By: tasks.SplitLines, Size: genSize(t)}})
	}
	if rapid.Bool().Draw(t, "reduce") {
		s.Reduce = &tasks.Reduce{Program: genCID(t), Args: genTexts(t)}
	}
	return s
}

func genOffer(t *rapid.T) tasks.Offer {
	o := tasks.Offer{Job: genJob(t), Term: rapid.Uint64Max(1<<32).Draw(t, "term"), Origin: genPeer(t), Kind: tasks.KindWasm, Program: genCID(t), Needs: genResources(t),
		Waiting: rapid.Uint32Max(1<<30).Draw(t, "waiting"), Replicas: 2, Round: 3, MaxRTT: genSpanTime(t), Radius: genSpanTime(t), Window: genSpanTime(t), Addresses: genBytes(t, maxRecord)}
	for range rapid.IntRange(0, 3).Draw(t, "inputs") {
		o.Inputs = append(o.Inputs, genCID(t))
	}
	if rapid.Bool().Draw(t, "placed") {
		o.Coord.Vec[0], o.Coord.Height, o.Coord.Error = 0.25, 0.01, 1
	}
	return o
}

// trip checks that decoding what was encoded gives the same, for values drawn
// by gen, and that every cut of the bytes is refused or decodes without panic.
func trip[T any](t *testing.T, gen func(*rapid.T) T, enc func(T) ([]byte, error), dec func([]byte) (T, error)) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		in := gen(t)
		b, err := enc(in)
		if err != nil {
			t.Fatalf("encode %+v: %v", in, err)
		}
		out, err := dec(b)
		if err != nil {
			t.Fatalf("decode %+v: %v", in, err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("in  %+v\nout %+v", in, out)
		}
		again, err := enc(out)
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("a second encoding differs, %v", err)
		}
		if len(b) > 0 {
			cut := b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]
			if _, err := dec(cut); err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatalf("cut: %v is not ErrMalformed", err)
			}
		}
	})
}

func TestRoundTrips(t *testing.T) {
	t.Run("submission", func(t *testing.T) {
		trip(t, func(t *rapid.T) Submission {
			s := Submission{Mesh: "m", Spec: genSpec(t), Nonce: rapid.SliceOfN(rapid.Byte(), 16, 32).Draw(t, "nonce"),
				Created: time.UnixMilli(rapid.Int64Range(0, 1<<41).Draw(t, "created")).UTC(), Record: genBytes(t, maxRecord)}
			for range rapid.IntRange(0, 2).Draw(t, "blobs") {
				s.Blobs = append(s.Blobs, Blob{CID: genCID(t), Data: genBytes(t, 64)})
				s.Providers = append(s.Providers, genPeer(t))
			}
			return s
		}, MarshalSubmission, UnmarshalSubmission)
	})
	t.Run("offer", func(t *testing.T) { trip(t, genOffer, MarshalOffer, UnmarshalOffer) })
	t.Run("bid", func(t *testing.T) {
		trip(t, func(t *rapid.T) tasks.Bid {
			return tasks.Bid{Job: genJob(t), Worker: genPeer(t), Slots: rapid.Uint32Max(1<<16).Draw(t, "slots"), Queue: genSpanTime(t),
				Speed: rapid.Float64Range(0, 1e9).Draw(t, "speed"), Cached: rapid.Bool().Draw(t, "cached")}
		}, MarshalBid, UnmarshalBid)
	})
	t.Run("lease", func(t *testing.T) { trip(t, genLease, MarshalLease, UnmarshalLease) })
	t.Run("task", func(t *testing.T) { trip(t, genTask, MarshalTask, UnmarshalTask) })
	t.Run("receipt", func(t *testing.T) { trip(t, genReceipt, MarshalReceipt, UnmarshalReceipt) })
	t.Run("receipts", func(t *testing.T) {
		trip(t, func(t *rapid.T) []tasks.Receipt { return []tasks.Receipt{genReceipt(t), genReceipt(t)} },
			func(rs []tasks.Receipt) ([]byte, error) { return MarshalReceipts("m", rs) },
			func(b []byte) ([]tasks.Receipt, error) { _, rs, err := UnmarshalReceipts(b); return rs, err })
	})
	t.Run("reveals", func(t *testing.T) {
		trip(t, func(t *rapid.T) []Reveal { return []Reveal{genReveal(t), genReveal(t)} },
			func(rs []Reveal) ([]byte, error) { return MarshalReveals("m", rs) },
			func(b []byte) ([]Reveal, error) { _, rs, err := UnmarshalReveals(b); return rs, err })
	})
	t.Run("verdicts", func(t *testing.T) {
		trip(t, func(t *rapid.T) []tasks.Verdict {
			return []tasks.Verdict{{Job: genJob(t), Ref: genRef(t), Lease: genLeaseID(t), Worker: genPeer(t),
				Status: tasks.VerdictStatus(rapid.IntRange(1, 3).Draw(t, "status")), Reason: tasks.Reason(rapid.Uint32().Draw(t, "reason")),
				Related: rapid.Bool().Draw(t, "related")}}
		}, func(vs []tasks.Verdict) ([]byte, error) { return MarshalVerdicts("m", vs) },
			func(b []byte) ([]tasks.Verdict, error) { _, vs, err := UnmarshalVerdicts(b); return vs, err })
	})
	t.Run("report", func(t *testing.T) {
		worker := tasks.PeerID("w")
		trip(t, func(t *rapid.T) WorkReport {
			k := genCommitment(t)
			k.Worker = worker
			return WorkReport{Receipts: genBytes(t, 64), Reveals: genBytes(t, 64), Commits: []tasks.Commitment{k}, Jobs: []tasks.Report{{Job: genJob(t), Worker: worker, Held: []tasks.LeaseID{genLeaseID(t)},
				Running: []tasks.Ref{genRef(t)}, Want: 3, Slots: 2, Queue: genSpanTime(t)}}}
		}, MarshalReport, func(b []byte) (WorkReport, error) { return UnmarshalReport(b, worker) })
	})
	t.Run("orders", func(t *testing.T) {
		trip(t, func(t *rapid.T) Orders {
			return Orders{Leases: [][]byte{{1}}, Verdicts: [][]byte{{2}}, Asks: []Ask{{Job: genJob(t), Ref: genRef(t), Replica: 3, Lease: genLeaseID(t)}},
				Renewals: []Renewal{{Job: genJob(t), Leases: []tasks.LeaseID{genLeaseID(t)}}},
				Revokes:  []Revocation{{Job: genJob(t), Lease: genLeaseID(t), Refs: []tasks.Ref{genRef(t)}}, {Job: genJob(t), Lease: genLeaseID(t)}}}
		}, MarshalOrders, UnmarshalOrders)
	})
	t.Run("orders reply", func(t *testing.T) {
		trip(t, func(t *rapid.T) []RefusedLease {
			return []RefusedLease{{Job: genJob(t), Lease: genLeaseID(t), Reason: tasks.WorkerBusy, RetryAfter: genSpanTime(t)}, {Job: genJob(t), Lease: genLeaseID(t), Reason: tasks.UnknownLease}}
		}, MarshalOrdersReply, UnmarshalOrdersReply)
	})
	t.Run("taken", func(t *testing.T) {
		trip(t, func(t *rapid.T) []tasks.JobID { return []tasks.JobID{genJob(t)} }, MarshalTaken, UnmarshalTaken)
	})
	t.Run("ticket", func(t *testing.T) {
		trip(t, func(t *rapid.T) Ticket { return Ticket{Job: genJob(t), Lease: genLeaseID(t)} }, MarshalTicket, UnmarshalTicket)
	})
	t.Run("notice", func(t *testing.T) {
		trip(t, func(t *rapid.T) tasks.Notice {
			return tasks.Notice{Job: genJob(t), Term: rapid.Uint64Max(1<<32).Draw(t, "term"), Kind: tasks.NoticeKind(rapid.IntRange(1, 3).Draw(t, "kind")), From: genPeer(t), Addresses: genBytes(t, 64)}
		}, func(n tasks.Notice) ([]byte, error) { return MarshalNotice("m", n) },
			func(b []byte) (tasks.Notice, error) { _, n, err := UnmarshalNotice(b); return n, err })
	})
	t.Run("answer", func(t *testing.T) {
		trip(t, func(t *rapid.T) tasks.JobAnswer {
			a := tasks.JobAnswer{Job: genJob(t), Term: 3, Origin: genPeer(t), State: tasks.Done, Output: genCID(t), Size: genSize(t)}
			if rapid.Bool().Draw(t, "failed") {
				a.State, a.Reason, a.Detail, a.Output = tasks.Failed, tasks.NoQuorum, "x", ""
			}
			return a
		}, func(a tasks.JobAnswer) ([]byte, error) { return MarshalAnswer("m", a) },
			func(b []byte) (tasks.JobAnswer, error) { _, a, err := UnmarshalAnswer(b); return a, err })
	})
	t.Run("progress", func(t *testing.T) {
		trip(t, func(t *rapid.T) Progress {
			return Progress{Job: genJob(t), Term: 1, Origin: genPeer(t), State: tasks.Running, Tasks: 9, Decided: 3, WaitsFor: "bids"}
		}, MarshalProgress, UnmarshalProgress)
	})
	t.Run("follow", func(t *testing.T) { trip(t, genJob, MarshalFollow, UnmarshalFollow) })
	t.Run("grant", func(t *testing.T) {
		trip(t, func(t *rapid.T) tasks.GrantRecord {
			n := rapid.IntRange(1, 1024).Draw(t, "n")
			return tasks.GrantRecord{Indexes: rapid.SliceOfN(rapid.Uint32(), n, n).Draw(t, "indexes"), Replicas: rapid.SliceOfN(rapid.Uint32Max(16), n, n).Draw(t, "replicas")}
		}, MarshalGrant, func(b []byte) (tasks.GrantRecord, error) { return UnmarshalGrant(tasks.GrantRecord{}, b) })
	})
}

// Each fault makes a good message a refused one, and is named.
func TestRefused(t *testing.T) {
	id := tasks.JobID(strings.Repeat("a", 52))
	var lease tasks.Lease
	var receipt tasks.Receipt
	var offer tasks.Offer
	rapid.Check(t, func(t *rapid.T) { lease, receipt, offer = genLease(t), genReceipt(t), genOffer(t) })
	receipt.Reason, receipt.Output = tasks.ExitCode, ""
	receipt.Inline = nil
	change := func(f func(*tasks.Lease)) tasks.Lease {
		l := lease
		l.Assignments = append([]tasks.Assignment(nil), lease.Assignments...)
		f(&l)
		return l
	}
	for _, c := range []struct {
		fault string
		lease tasks.Lease
	}{
		{"job", change(func(l *tasks.Lease) { l.Job = "short" })},
		{"lease", change(func(l *tasks.Lease) { l.ID = "" })},
		{"lease", change(func(l *tasks.Lease) { l.ID = tasks.LeaseID(strings.Repeat("x", 65)) })},
		{"origin", change(func(l *tasks.Lease) { l.Origin = "nobody" })},
		{"program", change(func(l *tasks.Lease) { l.Program = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG" })},
		{"duration", change(func(l *tasks.Lease) { l.Duration = -1 })},
		{"cpu", change(func(l *tasks.Lease) { l.Needs.CPU = math.NaN() })},
		{"assignments", change(func(l *tasks.Lease) { l.Assignments = nil })},
		{"assignments", change(func(l *tasks.Lease) { l.Assignments = make([]tasks.Assignment, MaxAssignments+1) })},
		{"stage", change(func(l *tasks.Lease) { l.Assignments[0].Task.Ref.Stage = 2 })},
		{"length", change(func(l *tasks.Lease) { l.Assignments[0].Task.Stdin = []tasks.Span{{Root: lease.Program, Length: -2}} })},
		{"name", change(func(l *tasks.Lease) {
			l.Assignments[0].Task.Inputs = map[string]tasks.Span{"../etc": {Root: lease.Program}}
		})},
		{"args", change(func(l *tasks.Lease) { l.Args = []string{strings.Repeat("a", maxArgsBytes+1)} })},
		{"kind", change(func(l *tasks.Lease) { l.Kind = "a\nb" })},
	} {
		b, err := MarshalLease(c.lease)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UnmarshalLease(b); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("fault in %s: %v", c.fault, err)
		}
	}
	receipt.Output = lease.Program // a failure with an output
	if b, err := MarshalReceipt(receipt); err != nil {
		t.Fatal(err)
	} else if _, err := UnmarshalReceipt(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("a failed receipt with an output: %v", err)
	}
	offer.Coord.Vec[3] = math.Inf(1)
	if b, err := MarshalOffer(offer); err != nil {
		t.Fatal(err)
	} else if _, err := UnmarshalOffer(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("an offer from nowhere: %v", err)
	}
	if b, err := MarshalVerdicts("m", []tasks.Verdict{{Job: id, Lease: "l", Worker: lease.Worker, Status: 4}}); err != nil {
		t.Fatal(err)
	} else if _, _, err := UnmarshalVerdicts(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("a verdict of unknown status: %v", err)
	}
	// What a database can't keep must not come in: it would end the node.
	if b, err := MarshalAnswer("m", tasks.JobAnswer{Job: id, Term: 1 << 63, Origin: lease.Worker, State: tasks.Failed}); err != nil {
		t.Fatal(err)
	} else if _, _, err := UnmarshalAnswer(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("an answer at term 2^63: %v", err)
	}
	if b, err := MarshalNotice("m", tasks.Notice{Job: id, Term: 1 << 63, From: lease.Worker, Kind: tasks.NoticeOrigin}); err != nil {
		t.Fatal(err)
	} else if _, _, err := UnmarshalNotice(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("a notice at term 2^63: %v", err)
	}
	heavy := make([]tasks.Receipt, 40)
	for i := range heavy {
		heavy[i].Inline = make([]byte, MaxInline)
	}
	if _, err := MarshalReceipts("m", heavy); err == nil {
		t.Error("an oversize batch was encoded")
	}
}

// A small message that would unfold into much memory is refused before it does.
func TestUnfoldingRefused(t *testing.T) {
	var tasksOf []byte
	for range MaxLease / 2 {
		tasksOf = protowire.AppendTag(tasksOf, 13, protowire.BytesType)
		tasksOf = protowire.AppendVarint(tasksOf, 0)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := UnmarshalLease(tasksOf)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrMalformed) {
		t.Fatal(err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("refusing %d bytes of empty assignments took %d bytes", len(tasksOf), took)
	}
}
