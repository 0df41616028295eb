// Package bench is what `kith bench` runs: each measure beside its peer or its
// limit, in the same run and interleaved with it, so that ratios hold on a noisy
// machine.
//
// It measures real processes of the binary that it is given. What needs virtual
// time is a test of testnet/sim, which prints the same lines.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Line is one measured case. Exactly one of OK and Skipped is set on a case that
// has a goal; a case without a goal, there to be read beside others, has neither.
type Line struct {
	Bench        string  `json:"bench"`
	Case         string  `json:"case"`
	Value        float64 `json:"value"`
	Unit         string  `json:"unit"` // of value and againstValue
	Against      string  `json:"against,omitempty"`
	AgainstValue float64 `json:"againstValue,omitempty"`
	Ratio        float64 `json:"ratio,omitempty"` // value / againstValue
	Goal         string  `json:"goal,omitempty"`  // what is asked, such as "ratio >= 0.6"
	OK           *bool   `json:"ok,omitempty"`
	Skipped      string  `json:"skipped,omitempty"` // why the case did not run
	Note         string  `json:"note,omitempty"`
}

// Missed reports whether the case ran and missed its goal.
func (l Line) Missed() bool { return l.OK != nil && !*l.OK }

// With adds the peer or limit that value stands beside.
func (l Line) With(against string, value float64) Line {
	l.Against, l.AgainstValue = against, value
	if value != 0 {
		l.Ratio = l.Value / value
	}
	return l
}

// Goals: what a case is held to. Each sets Goal and OK.

// ValueAtMost asks for value <= limit.
func (l Line) ValueAtMost(limit float64) Line {
	return l.judge(fmt.Sprintf("value <= %g", limit), l.Value <= limit)
}

// ValueAtLeast asks for value >= limit.
func (l Line) ValueAtLeast(limit float64) Line {
	return l.judge(fmt.Sprintf("value >= %g", limit), l.Value >= limit)
}

// RatioAtLeast asks for value/againstValue >= limit.
func (l Line) RatioAtLeast(limit float64) Line {
	return l.judge(fmt.Sprintf("ratio >= %g", limit), l.AgainstValue > 0 && l.Ratio >= limit)
}

// RatioAtMost asks for value/againstValue <= limit.
func (l Line) RatioAtMost(limit float64) Line {
	return l.judge(fmt.Sprintf("ratio <= %g", limit), l.AgainstValue > 0 && l.Ratio <= limit)
}

// RatioWithin asks for value/againstValue from 1-part to 1+part.
func (l Line) RatioWithin(part float64) Line {
	return l.judge(fmt.Sprintf("ratio within %g of 1", part), l.AgainstValue > 0 && math.Abs(l.Ratio-1) <= part)
}

func (l Line) judge(goal string, ok bool) Line {
	if math.IsNaN(l.Value) || math.IsInf(l.Value, 0) {
		ok = false
	}
	l.Goal, l.OK = goal, &ok
	return l
}

// WriteJSON writes the line as one JSON object and a line feed.
func (l Line) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // a goal reads ">=", not "\u003e="
	return e.Encode(l)
}

// Options are what the command line gives a bench.
type Options struct {
	Exe   string        // the kith binary
	Dir   string        // parent of temporary folders; "": the system's
	Log   io.Writer     // what is being done, plain lines
	Kubo  string        // a stock ipfs binary; "": none
	Cases []string      // run only these; empty: all
	For   time.Duration // of benches that last: how long; 0: as long as their goal is meant
}

// Wants reports whether a case is to run.
func (o Options) Wants(name string) bool { return len(o.Cases) == 0 || slices.Contains(o.Cases, name) }

// say tells what is being done.
func (o Options) say(format string, args ...any) { fmt.Fprintf(o.Log, format+"\n", args...) }

// Bench is one named set of cases.
type Bench struct {
	Name  string
	Short string   // one line
	Cases []string // in the order in which they run
	// Run measures the cases that o wants and emits a line for each as it is
	// known. It leaves no process and no file behind, also when ctx ends.
	Run func(ctx context.Context, o Options, emit func(Line)) error
}

// All are the benches that there are.
func All() []Bench { return []Bench{blocks, dispatch, idle, kernels} }

// ErrUnknown names a bench or a case that does not exist.
var ErrUnknown = errors.New("unknown bench")

// Find returns the bench of a name.
func Find(name string) (Bench, error) {
	var names []string
	for _, b := range All() {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return Bench{}, fmt.Errorf("%w %q: there are %q", ErrUnknown, name, names)
}

// Check reports a case that the bench does not have.
func (b Bench) Check(cases []string) error {
	for _, c := range cases {
		if !slices.Contains(b.Cases, c) {
			return fmt.Errorf("%w case %q of %s: there are %q", ErrUnknown, c, b.Name, b.Cases)
		}
	}
	return nil
}

// Median returns the middle of the values, of an even number the mean of the two
// in the middle; NaN of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}
