package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

func testPeer(t testing.TB, b byte) peer.ID {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{b, 3}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func testCID(text string) tasks.CID {
	sum, err := mh.Sum([]byte(text), mh.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return tasks.CID(cid.NewCidV1(cid.Raw, sum).String())
}

func testJob(c byte) tasks.JobID { return tasks.JobID(strings.Repeat(string(c), 52)) }

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func addJob(t testing.TB, s *State, id tasks.JobID) wire.JobRecord {
	t.Helper()
	r := wire.JobRecord{ID: id, Submission: []byte("signed"), Name: "n", Submitter: tasks.PeerID(testPeer(t, 1).String()), Created: start,
		Term: 1, State: tasks.Splitting, Retention: time.Hour}
	if added, err := s.AddJob(t.Context(), r); err != nil || !added {
		t.Fatalf("add: %v, %v", added, err)
	}
	return r
}

// decision is one task decided: lease, receipt, verdict and result.
func decision(t testing.TB, job tasks.JobID, i uint32) wire.Change {
	t.Helper()
	worker, lease := tasks.PeerID(testPeer(t, 2).String()), tasks.LeaseID(fmt.Sprintf("1.%d", i))
	ref := tasks.Ref{Index: i}
	out := testCID(fmt.Sprint(i))
	r := tasks.Receipt{Job: job, Ref: ref, Lease: lease, Worker: worker, Output: out, Inline: []byte("out"), Log: []byte("log")}
	sealed := fmt.Appendf(nil, "batch of %d", i)
	return wire.Change{Job: job, At: start,
		Grants:   []tasks.GrantRecord{{Lease: lease, Worker: worker, Indexes: []uint32{i}, Replicas: []uint32{0}}},
		Commits:  []tasks.Commitment{{Job: job, Ref: ref, Lease: lease, Worker: worker, Hash: sha256.Sum256(sealed)}},
		Attempts: []tasks.Attempt{{Ref: ref, Lease: lease, Worker: worker, Output: out, Size: 3}},
		Receipts: []wire.SignedReceipt{{Receipt: r, Batch: &wire.SignedBatch{Hash: sha256.Sum256(sealed), Sealed: sealed}}},
		Verdicts: []tasks.Verdict{{Job: job, Ref: ref, Lease: lease, Worker: worker, Status: tasks.Accepted, Related: i%2 == 0}},
		Results:  []tasks.Result{{Ref: ref, Output: out, Size: 3, Folder: i%2 == 0, Related: i%2 == 0, Workers: []tasks.PeerID{worker}}},
		Tallies:  map[tasks.PeerID]wire.Tally{worker: {Accepted: 1}},
	}
}

func split(n int) []tasks.Task {
	list := make([]tasks.Task, n)
	for i := range list {
		list[i] = tasks.Task{Ref: tasks.Ref{Index: uint32(i)}, Stdin: []tasks.Span{{Root: testCID("in"), Offset: int64(i), Length: 1}}, Size: 1}
	}
	return list
}

// TestJobStore is the suite of what the market asks of a JobStore.
func TestJobStore(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		ctx, id, other := t.Context(), testJob('a'), testJob('b')
		want := addJob(t, s, id)
		addJob(t, s, other)
		if added, err := s.AddJob(ctx, want); err != nil || added {
			t.Errorf("the same job again: %v, %v", added, err)
		}
		got, err := s.Job(ctx, id)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("job %+v, want %+v, %v", got, want, err)
		}
		if _, err := s.Job(ctx, testJob('z')); !errors.Is(err, ErrNotFound) {
			t.Errorf("unknown job: %v", err)
		}
		apply := func(c wire.Change) {
			t.Helper()
			if err := s.Apply(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
		list := split(3)
		apply(wire.Change{Job: id, Split: list})
		if err := s.Apply(ctx, wire.Change{Job: id, Split: list}); !errors.Is(err, ErrConflict) {
			t.Errorf("a second split: %v", err)
		}
		if err := s.Apply(ctx, wire.Change{Job: testJob('z'), Term: 2}); !errors.Is(err, ErrNotFound) {
			t.Errorf("change of an unknown job: %v", err)
		}
		apply(decision(t, id, 0))
		apply(decision(t, other, 1))

		// All of a change or nothing: a decided task undoes what came with it.
		twice := decision(t, id, 0)
		twice.Grants[0].Lease, twice.Results[0].Output = "1.new", testCID("other")
		twice.Results = append(twice.Results, tasks.Result{Ref: tasks.Ref{Index: 1}, Output: testCID("x")})
		if err := s.Apply(ctx, twice); !errors.Is(err, ErrConflict) {
			t.Errorf("a second result: %v", err)
		}
		rec, err := s.Records(ctx, id, 1)
		if err != nil {
			t.Fatal(err)
		}
		if !rec.Results[0].Folder {
			t.Error("that a result is a folder was forgotten")
		}
		d := decision(t, id, 0)
		if !reflect.DeepEqual(rec, tasks.Records{Tasks: list, Results: d.Results, Attempts: d.Attempts, Commitments: d.Commits, Grants: d.Grants}) {
			t.Errorf("records %+v", rec)
		}
		if rec, err := s.Records(ctx, id, 2); err != nil || len(rec.Grants) > 0 || len(rec.Results) != 1 {
			t.Errorf("records of another term: %+v, %v", rec, err)
		}
		key := wire.KeyOf(d.Receipts[0].Receipt)
		if v, found, err := s.VerdictOn(ctx, key); err != nil || !found || v != d.Verdicts[0] {
			t.Errorf("verdict %+v, %v, %v", v, found, err)
		}
		key.Worker = "another"
		if _, found, err := s.VerdictOn(ctx, key); err != nil || found {
			t.Errorf("verdict for a worker that had no lease: %v, %v", found, err)
		}
		logs, err := s.Logs(ctx, id, tasks.Ref{})
		if err != nil || len(logs) != 1 || string(logs[0].Receipt.Log) != "log" || logs[0].Status != tasks.Accepted || logs[0].Receipt.Inline != nil {
			t.Errorf("logs %+v, %v", logs, err)
		}
		tallies, err := s.Tallies(ctx)
		if err != nil || tallies[d.Grants[0].Worker] != (wire.Tally{Accepted: 2}) {
			t.Errorf("tallies %v, %v", tallies, err)
		}

		fin := tasks.Finish{State: tasks.Done, Output: testCID("all"), Size: 9}
		apply(wire.Change{Job: id, At: start.Add(time.Minute), Finish: &fin, Forgotten: true})
		if rec, err := s.Records(ctx, id, 1); err != nil || rec.Finish == nil || *rec.Finish != fin {
			t.Errorf("finish %+v, %v", rec.Finish, err)
		}
		if j, err := s.Job(ctx, id); err != nil || j.Finished != start.Add(time.Minute) || !j.Forgotten || j.Tasks != 3 {
			t.Errorf("finished job %+v, %v", j, err)
		}
		if err := s.RemoveJob(ctx, id); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"tasks", "leases", "attempts", "commitments", "receipts", "verdicts", "results"} {
			var n int
			if err := s.db.QueryRow(`SELECT count(*) FROM `+table+` WHERE job = ?`, id).Scan(&n); err != nil || n != 0 {
				t.Errorf("%s has %d rows of a removed job, %v", table, n, err)
			}
		}
		var batches int
		if err := s.db.QueryRow(`SELECT count(*) FROM batches`).Scan(&batches); err != nil || batches != 1 {
			t.Errorf("%d batches are left, want the other job's, %v", batches, err)
		}
		if jobs, err := s.Jobs(ctx); err != nil || len(jobs) != 1 || jobs[0].ID != other || jobs[0].Submission != nil {
			t.Errorf("jobs %+v, %v", jobs, err)
		}
	})
}

func TestWorkStore(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		ctx := t.Context()
		var all []wire.OwedReceipt
		for i := range uint32(3) {
			r := decision(t, testJob('a'), i).Receipts[0].Receipt
			all = append(all, wire.OwedReceipt{Origin: "o", Receipt: r, Until: start.Add(time.Hour)})
		}
		body, err := wire.MarshalReceipt(all[1].Receipt) // it is committed to: its bytes are kept as they are
		if err != nil {
			t.Fatal(err)
		}
		all[1].Body, all[1].Nonce = append(body, 0xa0, 0x06, 1), make([]byte, wire.NonceSize) // an unknown field
		for range 2 {                                                                         // keeping twice is keeping once
			if err := s.KeepReceipts(ctx, all, wire.Settled{}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.OwedReceipts(ctx); err != nil || !reflect.DeepEqual(got, all) {
			t.Errorf("owed %+v, %v", got, err)
		}
		if err := s.KeepReceipts(ctx, nil, wire.Settled{Keys: []wire.ReceiptKey{wire.KeyOf(all[0].Receipt), wire.KeyOf(all[2].Receipt), {}}}); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Owed(ctx); err != nil || n != 1 {
			t.Errorf("%d are owed, %v", n, err)
		}
		if got, err := s.OwedReceipts(ctx); err != nil || !reflect.DeepEqual(got, all[1:2]) {
			t.Errorf("owed after verdicts %+v, %v", got, err)
		}
	})
}

// What origins said stays as they signed it, for a while and within bounds.
func TestSaidVerdicts(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		ctx := t.Context()
		said := func(i int, jobs ...tasks.JobID) wire.SaidVerdicts {
			v := wire.SaidVerdicts{Origin: "o", Sealed: fmt.Appendf(nil, "signed %d", i), Jobs: jobs, At: start.Add(time.Duration(i) * time.Hour)}
			if err := s.KeepReceipts(ctx, nil, wire.Settled{Said: []wire.SaidVerdicts{v}}); err != nil {
				t.Fatal(err)
			}
			return v
		}
		a, b := testJob('a'), testJob('b')
		first, both, last := said(0, a), said(1, a, b), said(2, b)
		check := func(job tasks.JobID, want ...wire.SaidVerdicts) {
			t.Helper()
			for i := range want {
				want[i].Jobs = []tasks.JobID{job}
			}
			if got, err := s.SaidVerdicts(ctx, job); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("verdicts %+v, %v, want %+v", got, err, want)
			}
		}
		check(a, first, both)
		check(b, both, last)
		if err := s.TrimSaid(ctx, start.Add(time.Minute), 1<<20); err != nil {
			t.Fatal(err)
		}
		check(a, both)
		if err := s.TrimSaid(ctx, start, int64(len(last.Sealed))); err != nil {
			t.Fatal(err)
		}
		check(a)
		check(b, last)
	})
}

func TestAnswerStore(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		ctx, id := t.Context(), testJob('a')
		a := tasks.JobAnswer{Job: id, Term: 1, Origin: "o", State: tasks.Done, Output: testCID("x"), Size: 4}
		if _, err := s.AcceptAnswer(ctx, a, start); !errors.Is(err, ErrNotFound) {
			t.Errorf("answer to a job that was not published: %v", err)
		}
		rec := wire.PublishedRecord{ID: id, Submission: []byte("signed"), Name: "n", Created: start, Retention: time.Hour}
		if err := s.AddPublished(ctx, rec); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		firsts, accepted := 0, a
		for i := range 20 {
			b := a
			b.Term = uint64(i + 1)
			wg.Go(func() {
				first, err := s.AcceptAnswer(context.Background(), b, start.Add(time.Minute))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				} else if first {
					firsts++
					accepted = b
				}
			})
		}
		wg.Wait()
		if firsts != 1 {
			t.Fatalf("%d answers were accepted", firsts)
		}
		rec.Answer, rec.Answered = &accepted, start.Add(time.Minute)
		if got, err := s.Published(ctx); err != nil || !reflect.DeepEqual(got, []wire.PublishedRecord{rec}) {
			t.Errorf("published %+v, %v", got, err)
		}
		if err := s.RemovePublished(ctx, id); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Published(ctx); err != nil || len(got) > 0 {
			t.Errorf("after removal %+v, %v", got, err)
		}
	})
}

// BenchmarkDecisions tells durable task decisions a second: many jobs' changes
// of one task each, joined by the group commit.
func BenchmarkDecisions(b *testing.B) {
	s := open(b, b.TempDir()+"/state.db")
	id := testJob('a')
	if _, err := s.AddJob(b.Context(), wire.JobRecord{ID: id, Submission: []byte("x"), Term: 1, State: tasks.Running}); err != nil {
		b.Fatal(err)
	}
	next := make(chan wire.Change, 256)
	go func() {
		for i := range b.N {
			next <- decision(b, id, uint32(i))
		}
		close(next)
	}()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for c := range next {
				if err := s.Apply(context.Background(), c); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}
