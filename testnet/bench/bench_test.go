package bench

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/testnet/internal/built"
)

var kith = built.Once()

func TestMain(m *testing.M) { built.Main(m) }

// options are what a smoke test runs a bench with, on the real binary.
func options(t *testing.T) Options {
	t.Helper()
	return Options{Exe: kith(t), Dir: t.TempDir(), Log: io.Discard}
}

// nothingLeft fails when a bench left a file.
func nothingLeft(t *testing.T, o Options) {
	t.Helper()
	left, err := os.ReadDir(o.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("the bench left %v (%v)", left, err)
	}
}

func TestGoals(t *testing.T) {
	line := func(value float64) Line { return Line{Value: value}.With("limit", 10) }
	for _, c := range []struct {
		name   string
		l      Line
		missed bool
	}{
		{"no goal", line(1), false},
		{"at most, under", line(5).ValueAtMost(5), false},
		{"at most, over", line(5.1).ValueAtMost(5), true},
		{"at least, over", line(5).ValueAtLeast(5), false},
		{"at least, under", line(4.9).ValueAtLeast(5), true},
		{"ratio, over", line(6).RatioAtLeast(0.6), false},
		{"ratio, under", line(5.9).RatioAtLeast(0.6), true},
		{"ratio at most, under", line(14).RatioAtMost(1.4), false},
		{"ratio at most, over", line(14.1).RatioAtMost(1.4), true},
		{"within, below", line(8).RatioWithin(0.2), false},
		{"within, far below", line(7.9).RatioWithin(0.2), true},
		{"within, far above", line(12.1).RatioWithin(0.2), true},
		{"not a number", line(math.NaN()).ValueAtMost(5), true},
		{"ratio of nothing", Line{Value: 1}.RatioAtMost(1.4), true},
		{"ratio of none measured", Line{Value: 1}.With("peer", 0).RatioAtLeast(0.5), true},
	} {
		if got := c.l.Missed(); got != c.missed {
			t.Errorf("%s: missed %v, want %v: %+v", c.name, got, c.missed, c.l)
		}
	}
}

// A line holds what is promised to those who read it, and nothing that is unset.
func TestLineJSON(t *testing.T) {
	for _, c := range []struct {
		line Line
		want string
	}{
		{Line{Bench: "b", Case: "c", Value: 3, Unit: "s"}.With("peer", 2).RatioAtLeast(1),
			`{"bench":"b","case":"c","value":3,"unit":"s","against":"peer","againstValue":2,"ratio":1.5,"goal":"ratio >= 1","ok":true}`},
		{Line{Bench: "b", Case: "c", Unit: "s", Skipped: "no peer"}, `{"bench":"b","case":"c","value":0,"unit":"s","skipped":"no peer"}`},
	} {
		var got strings.Builder
		if err := c.line.WriteJSON(&got); err != nil || got.String() != c.want+"\n" {
			t.Errorf("got  %s (%v)\nwant %s", got.String(), err, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := Median(c.values); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestFind(t *testing.T) {
	for _, b := range All() {
		got, err := Find(b.Name)
		if err != nil || got.Name != b.Name || b.Short == "" || len(b.Cases) == 0 {
			t.Errorf("%s: %+v, %v", b.Name, got, err)
		}
		if err := b.Check(b.Cases); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
		if err := b.Check([]string{"nosuch"}); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: a case that does not exist: %v", b.Name, err)
		}
	}
	if _, err := Find("nosuch"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "idle") {
		t.Errorf("a bench that does not exist: %v", err)
	}
}

// With few nodes and for a moment, idle measures each of its cases, says that it
// was shorter than meant, and leaves nothing.
func TestIdle(t *testing.T) {
	o := options(t)
	o.For = time.Second
	var got []string
	err := runIdle(t.Context(), o, 2, func(l Line) {
		got = append(got, l.Case)
		if l.Value <= 0 || l.Bench != "idle" || !strings.Contains(l.Note, "over 1s") {
			t.Errorf("line %+v", l)
		}
	})
	if err != nil || !slices.Equal(got, idle.Cases) {
		t.Errorf("cases %q, %v", got, err)
	}
	nothingLeft(t, o)
}

// Interrupted, it ends at once and leaves nothing either.
func TestIdleInterrupted(t *testing.T) {
	o := options(t)
	ctx, cancel := context.WithCancel(t.Context())
	log := lineFunc(func(line string) {
		if strings.Contains(line, "it knows all others") {
			cancel()
		}
	})
	o.Log = log
	if err := runIdle(ctx, o, 1, func(l Line) { t.Errorf("a line of a bench that did not end: %+v", l) }); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	nothingLeft(t, o)
}

// lineFunc is a writer of whole lines.
type lineFunc func(string)

func (f lineFunc) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}
