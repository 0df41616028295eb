package main

import "testing"

// A node that works leaves more garbage, but a bounded amount, and one at rest
// goes back to little.
func TestCollectAt(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name    string
		percent int
		cycles  uint64
		quiet   int
		live    uint64
		want    int
	}{
		{"at rest", 100, 0, 50, 12 * mb, 100},
		{"a little to do", 100, 1, 0, 12 * mb, 100},
		{"busy", 100, 2, 0, 12 * mb, 400},
		{"busy with more", 100, 9, 0, 32 * mb, 200},
		{"busy with much", 100, 9, 0, 500 * mb, 100},
		{"still busy, with fewer collections", 400, 0, 5, 12 * mb, 400},
		{"grown since", 400, 1, 0, 32 * mb, 200},
		{"done", 400, 0, 10, 12 * mb, 100},
		{"nothing lives", 100, 9, 0, 0, 400},
	} {
		if got := collectAt(c.percent, c.cycles, c.quiet, c.live); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
