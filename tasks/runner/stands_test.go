package runner

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// What programs are walled off by is logged once, and not for every child.
func TestWallsAreLoggedOnce(t *testing.T) {
	var b bytes.Buffer
	r, err := New(Config{Scratch: t.TempDir(), Log: slog.New(slog.NewTextHandler(&b, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.stands("process")
		r.stands("process, landlock")
	}
	if n := strings.Count(b.String(), "walled off"); n != 2 || r.Isolation() != "process, landlock" {
		t.Errorf("%d lines, %q:\n%s", n, r.Isolation(), &b)
	}
}
