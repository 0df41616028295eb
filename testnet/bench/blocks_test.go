package bench

import (
	"slices"
	"testing"
)

// The bench moves small files between real processes and leaves nothing behind.
func TestBlocks(t *testing.T) {
	o := options(t)
	var lines []Line
	err := runBlocks(t.Context(), o, blocksSizes{small: 4 * mib, large: 5*mib + 3, shaped: mib, rounds: 1, rate: 4 * mib}, func(l Line) { lines = append(lines, l) })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range lines {
		names = append(names, l.Case)
		if l.Case == "kubo/1GiB" {
			if l.Skipped == "" {
				t.Errorf("without Kubo: %+v", l)
			}
			continue
		}
		if l.Bench != "blocks" || l.Value <= 0 || l.AgainstValue <= 0 || l.Unit == "" || l.Against == "" {
			t.Errorf("a line says too little: %+v", l)
		}
	}
	for _, c := range blocks.Cases {
		if !slices.Contains(names, c) {
			t.Errorf("no line of %s", c)
		}
	}
	nothingLeft(t, o)
}

func TestSeries(t *testing.T) {
	s := series{size: 512 * mib, ms: []moved{{1, 3}, {2, 2}, {4, 1}}}
	if s.speed() != 256 || s.cost() != 4 {
		t.Errorf("speed %v, cost %v; want 256 and 4", s.speed(), s.cost())
	}
}

func TestHostPort(t *testing.T) {
	if got, err := hostPort("/ip4/127.0.0.1/tcp/4001/p2p/x"); err != nil || got != "127.0.0.1:4001" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := hostPort("/ip4/127.0.0.1"); err == nil {
		t.Error("half an address is taken")
	}
}
