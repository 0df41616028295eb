package bench

import (
	"io"
	"strings"
	"testing"
)

// Each case says its ratio, or why it did not run.
func TestKernels(t *testing.T) {
	for _, path := range []string{"", t.TempDir()} { // the second has no compiler
		if path != "" {
			t.Setenv("PATH", path)
		}
		var lines []Line
		shapes := [][3]int{{8, 64, 32}, {1, 1, 1}}
		if err := runKernels(t.Context(), Options{Log: io.Discard, Dir: t.TempDir()}, shapes, 1, 0, func(l Line) { lines = append(lines, l) }); err != nil {
			t.Fatal(err)
		}
		if len(lines) != 2*(1+len(shapes)+1) {
			t.Fatalf("%d lines", len(lines))
		}
		for _, l := range lines {
			switch {
			case strings.HasPrefix(l.Case, "peak/"):
				if l.Value <= 0 || l.OK != nil {
					t.Errorf("%+v", l)
				}
			case l.Skipped != "":
				if !strings.Contains(l.Skipped, "apt install") || l.OK != nil {
					t.Errorf("%+v", l)
				}
			case path != "":
				t.Errorf("measured without a peer: %+v", l)
			case l.OK == nil || l.Ratio <= 0 || l.Against == "" || l.Value <= 0:
				t.Errorf("%+v", l)
			}
		}
	}
}
