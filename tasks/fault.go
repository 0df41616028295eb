package tasks

import (
	"fmt"
	"strings"
)

// Fault is one thing that is wrong with a spec.
type Fault struct {
	Line int    // in the YAML; 0: not known
	Path string // such as inputs[0].split.size
	Text string // what is wrong and what to write instead
}

func (f Fault) String() string {
	t := f.Text
	if f.Path != "" {
		t = f.Path + ": " + t
	}
	if f.Line > 0 {
		t = fmt.Sprintf("line %d: %s", f.Line, t)
	}
	return t
}

// SpecError holds every fault of a spec.
type SpecError struct{ Faults []Fault }

func (e *SpecError) Error() string {
	if len(e.Faults) == 1 {
		return "job spec: " + e.Faults[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "job spec: %d faults:", len(e.Faults))
	for _, f := range e.Faults {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// faults gathers; err is nil while there are none. A spec can't have more than
// it has keys, which MaxSpecBytes bounds.
type faults []Fault

func (f *faults) add(line int, path, format string, args ...any) {
	*f = append(*f, Fault{line, path, fmt.Sprintf(format, args...)})
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return &SpecError{f}
}

// nearest gives the known key with the fewest edits from key, or "" when none
// is near enough to be what was meant.
func nearest(key string, known []string) string {
	best, least := "", 3
	if len(key) > 64 {
		return ""
	}
	for _, k := range known {
		if strings.EqualFold(k, key) {
			return k
		}
		if d := edits(strings.ToLower(key), strings.ToLower(k)); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
