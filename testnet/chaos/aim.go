package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// aim chooses the points that lives end at: those died at least so far, some by
// chance, and those that seldom come, until each was died at often enough; then
// any.
type aim struct {
	points []string
	each   int
	rand   *rand.Rand
	hits   map[string]int // deaths
	missed map[string]int // lives since the last death at it that had it armed and ended otherwise
}

// armed is a point that ends a life when it is passed the Nth time.
type armed struct {
	point string
	n     int
}

const (
	atOnce = 4 // points that a life is armed with, without those that seldom come
	seldom = 2 // lives that missed a point: from then on every life is armed with it
)

func newAim(points []string, each int, r *rand.Rand) *aim {
	return &aim{points: points, each: each, rand: r, hits: map[string]int{}, missed: map[string]int{}}
}

// next arms a life with points that it may pass. A life that is armed with a
// point that comes often ends early, so those that seldom come get more lives.
func (a *aim) next(passes func(string) bool) (out []armed) {
	var want []string
	for _, p := range a.points {
		if passes(p) && a.hits[p] < a.each {
			want = append(want, p)
		}
	}
	done := len(want) == 0
	if done {
		want = slices.DeleteFunc(slices.Clone(a.points), func(p string) bool { return !passes(p) })
	}
	a.rand.Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
	if !done { // the first were died at least, the rest are drawn
		least := slices.Clone(want)
		slices.SortStableFunc(least, func(p, q string) int { return cmp.Compare(a.hits[p], a.hits[q]) })
		least = least[:min(atOnce/2, len(least))]
		want = append(least, slices.DeleteFunc(want, func(p string) bool { return slices.Contains(least, p) })...)
	}
	for _, p := range want {
		rare := !done && a.missed[p] >= seldom
		if len(out) >= atOnce && !rare {
			continue
		}
		n := 1
		if a.missed[p] == 0 {
			n += a.rand.IntN(8)
		}
		out = append(out, armed{p, n})
	}
	return out
}

// died counts how a life ended that was armed so; point is "" when at none.
func (a *aim) died(at []armed, point string) {
	for _, p := range at {
		a.missed[p.point]++
	}
	if point != "" {
		a.hits[point]++
		a.missed[point] = 0
	}
}

// missing says what was not died at often enough.
func (a *aim) missing() (out []string) {
	for _, p := range a.points {
		if n := a.each - a.hits[p]; n > 0 {
			out = append(out, fmt.Sprintf("%d at %s", n, p))
		}
	}
	return out
}

// only reports whether points of these steps are missing, and no others.
func (a *aim) only(steps []string) bool {
	some := false
	for _, p := range a.points {
		if a.hits[p] >= a.each {
			continue
		}
		if step, _, _ := strings.Cut(p, ":"); !slices.Contains(steps, step) {
			return false
		}
		some = true
	}
	return some
}

// covered reports whether the points of a step were died at often enough.
func (a *aim) covered(step string) bool {
	for _, p := range points([]string{step}) {
		if slices.Contains(a.points, p) && a.hits[p] < a.each {
			return false
		}
	}
	return true
}

// crashAt tells a process where to die.
func crashAt(at []armed) string {
	var list []string
	for _, p := range at {
		list = append(list, fmt.Sprintf("%s:%d", p.point, p.n))
	}
	return strings.Join(list, ",")
}
