package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// What alone is missing is told; nothing is, when all were died at.
func TestAimOnly(t *testing.T) {
	a := newAim(points([]string{"a", "b"}), 1, rand.New(rand.NewPCG(1, 2)))
	for _, c := range []struct {
		died string
		only bool
	}{{"b:before", false}, {"a:after", false}, {"a:before", true}, {"b:after", false}} {
		if a.died(nil, c.died); a.only([]string{"b"}) != c.only {
			t.Errorf("after %s: only b is missing: %v", c.died, !c.only)
		}
	}
}

// Points that come a hundred times a life, once a life, and in one life of ten
// are all died at often enough, and in few lives more than that takes.
func TestAimReachesEveryPoint(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var steps []string
	often := map[string]float64{} // passages in a life
	for i := range 30 {
		step := fmt.Sprintf("step%d", i)
		steps = append(steps, step)
		for _, p := range points([]string{step}) {
			often[p] = []float64{100, 10, 1, 0.1}[i%4]
		}
	}
	a := newAim(points(steps), 5, r)
	lives := 0
	for ; len(a.missing()) > 0 && lives < 2000; lives++ {
		at := a.next(func(p string) bool { return p != "step3:after" || lives%5 == 0 })
		end, point := 1.0, "" // when, of a life of 1
		for _, p := range at {
			when := 0.0
			for range p.n {
				when += r.ExpFloat64() / often[p.point]
			}
			if when < end {
				end, point = when, p.point
			}
		}
		a.died(at, point)
	}
	if lives > 600 {
		t.Errorf("%d lives for 60 points five times each; missing: %v", lives, a.missing())
	}
	if !a.covered("step3") {
		t.Error("step3 is not covered")
	}
	var seen []string
	for range 200 {
		for _, p := range a.next(func(string) bool { return true }) {
			seen = append(seen, p.point)
		}
	}
	slices.Sort(seen)
	if n := len(slices.Compact(seen)); n != len(often) {
		t.Errorf("once all are covered, lives end at %d points, want all %d", n, len(often))
	}
}

func TestAimSaysWhatIsMissing(t *testing.T) {
	a := newAim(points([]string{"one", "two"}), 2, rand.New(rand.NewPCG(1, 1)))
	a.died([]armed{{"one:before", 1}, {"two:after", 1}}, "one:before")
	a.died(nil, "one:before")
	a.died(nil, "")
	if got, want := fmt.Sprint(a.missing()), "[2 at one:after 2 at two:before 2 at two:after]"; got != want {
		t.Errorf("missing %s, want %s", got, want)
	}
	if a.covered("one") || a.missed["two:after"] != 1 || a.missed["one:before"] != 0 {
		t.Errorf("covered or missed lives are wrong: %v", a.missed)
	}
	if got, want := crashAt([]armed{{"one:before", 3}, {"two:after", 1}}), "one:before:3,two:after:1"; got != want {
		t.Errorf("crash at %s, want %s", got, want)
	}
}
