package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func ops(entries []Entry) (out []Op) {
	for _, e := range entries {
		out = append(out, e.Op)
	}
	return out
}

// What a client wrote before it was killed is there in its next life; the line
// that the kill cut is no word.
func TestLogGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for life, cut := range []string{"", `{"op":"acked","jo`, `{`, "\n", ""} {
		l, _, err := OpenLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(Entry{Op: Intent, Key: "k"}, Entry{Op: Failed, Key: "k"}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.f.WriteString(cut); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := ReadLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := slices.Repeat([]Op{Begun, Intent, Failed}, life+1); !slices.Equal(ops(got), want) {
			t.Errorf("life %d: %v, want %v", life, ops(got), want)
		}
	}
}

func TestReadLog(t *testing.T) {
	const begun, intent = `{"op":"begun"}` + "\n", `{"op":"intent","key":"k"}` + "\n"
	for name, c := range map[string]struct {
		text string
		want []Op
		err  string
	}{
		"empty":                         {"", nil, ""},
		"cut at once":                   {`{"op`, nil, ""},
		"torn last line":                {begun + intent + `{"op":"acked","key":"k","job":"j`, []Op{Begun, Intent}, ""},
		"torn before the next life":     {begun + `{"op":"ack` + "\n" + begun + intent, []Op{Begun, Begun, Intent}, ""},
		"whole last line without end":   {begun + strings.TrimSpace(intent), []Op{Begun, Intent}, ""},
		"garbage that was gone on from": {begun + "garbage\n" + intent, nil, "line 2 is not an entry, and the client went on writing"},
		"garbage with an end":           {begun + intent + "garbage\n", nil, "line 3 is not an entry, though it was written to its end"},
		"two lines of garbage":          {begun + "one\ntwo\n" + begun, nil, "line 3 is not an entry"},
		"bytes of zero":                 {begun + "\x00\x00\x00\n" + intent, nil, "line 2 is not an entry"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadLog(path)
			switch {
			case c.err == "" && (err != nil || !slices.Equal(ops(got), c.want)):
				t.Errorf("read %v, %v; want %v", ops(got), err, c.want)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("error %v, want one with %q", err, c.err)
			}
		})
	}
	if _, err := ReadLog(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a log that is not there was read")
	}
}
