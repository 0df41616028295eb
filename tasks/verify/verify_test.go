package verify_test

import (
	"fmt"
	"testing"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/verify"
	"pgregory.net/rapid"
)

func answers(list ...string) (out []tasks.Answered) {
	for i := 0; i+1 < len(list); i += 2 {
		out = append(out, tasks.Answered{Worker: tasks.PeerID(list[i]), Output: tasks.CID(list[i+1])})
	}
	return out
}

func TestDecide(t *testing.T) {
	none := tasks.Verify{Mode: tasks.VerifyNone, Replicas: 1}
	quorum := func(n uint32) tasks.Verify { return tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: n} }
	for _, c := range []struct {
		name    string
		verify  tasks.Verify
		retry   uint32
		answers []tasks.Answered
		want    tasks.Judgement
	}{
		{"none, no answer", none, 5, nil, tasks.Judgement{More: 1}},
		{"none, one", none, 5, answers("a", "x"), tasks.Judgement{Decided: true, Output: "x"}},
		{"one of two", quorum(2), 5, answers("a", "x"), tasks.Judgement{More: 1}},
		{"two agree", quorum(2), 5, answers("a", "x", "b", "x"), tasks.Judgement{Decided: true, Output: "x"}},
		{"two differ", quorum(2), 5, answers("a", "x", "b", "y"), tasks.Judgement{More: 1}},
		{"a tie broken", quorum(2), 5, answers("a", "x", "b", "y", "c", "y"), tasks.Judgement{Decided: true, Output: "y"}},
		{"one peer twice", quorum(2), 5, answers("a", "x", "a", "x"), tasks.Judgement{More: 1}},
		{"one peer, two outputs", quorum(2), 5, answers("a", "x", "a", "y", "b", "y"), tasks.Judgement{More: 1}},
		{"three of which two agree", quorum(3), 5, answers("a", "x", "b", "y", "c", "x"), tasks.Judgement{More: 1}},
		{"nobody agrees", quorum(2), 1, answers("a", "x", "b", "y", "c", "z"), tasks.Judgement{NoQuorum: true, Detail: "x from a; y from b; z from c"}},
		{"not within the bound", quorum(3), 1, answers("a", "x", "b", "y", "c", "z"), tasks.Judgement{NoQuorum: true, Detail: "x from a; y from b; z from c"}},
		{"the last chance", quorum(2), 1, answers("a", "x", "b", "y"), tasks.Judgement{More: 1}},
	} {
		if got := verify.Decide(c.verify, tasks.Retry{Max: c.retry}, c.answers); got != c.want {
			t.Errorf("%s: %+v, not %+v", c.name, got, c.want)
		}
	}
}

// Whatever liars say in whatever order: what is accepted has a quorum of
// different peers, and honest peers in sufficient number always win.
func TestQuorumProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.Uint32Range(2, 5).Draw(r, "replicas")
		liars := rapid.IntRange(0, int(n)-1).Draw(r, "liars")
		v, retry := tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: n}, tasks.Retry{Max: 16}
		var list []tasks.Answered
		for i := 0; ; i++ {
			j := verify.Decide(v, retry, list)
			if j.NoQuorum || i > 40 {
				r.Fatalf("no end: %+v", j)
			}
			if j.Decided {
				if j.Output != "truth" {
					r.Fatalf("%d liars of a quorum of %d won with %s", liars, n, j.Output)
				}
				break
			}
			if j.More < 1 || j.More > n {
				r.Fatalf("asks for %d more", j.More)
			}
			out := tasks.CID("truth")
			if liars > 0 && rapid.Bool().Draw(r, "lies") {
				liars--
				out = "lie"
			}
			list = append(list, tasks.Answered{Worker: tasks.PeerID(fmt.Sprint(i)), Output: out})
		}
	})
}

func ExampleDecide() {
	v, r := tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}, tasks.Retry{Max: 5}
	said := []tasks.Answered{{Worker: "ann", Output: "bafyx"}, {Worker: "bob", Output: "bafyy"}}
	fmt.Println("more answers needed:", verify.Decide(v, r, said).More)
	said = append(said, tasks.Answered{Worker: "cy", Output: "bafyx"})
	fmt.Println("accepted:", verify.Decide(v, r, said).Output)
	// Output:
	// more answers needed: 1
	// accepted: bafyx
}
