//go:build unix

package testnet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
)

// A node is killed, and its database or the log of it is cut or garbled before it
// starts again. Either it starts, and all that it said is there or was torn off
// with the log's end; or it does not, and says which file is damaged and what to do.
func TestDatabaseDies(t *testing.T) {
	exe := crashBinary(t)
	p := newNodes(t, 1)[0]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(errors.Join(p.Start(exe, "--init"), p.Ready(ctx)))
	var said []string // in order
	for _, text := range []string{"one", "two", "three", "four", "five"} {
		root, err := p.Client.AddFile(ctx, strings.NewReader(text), int64(len(text)), api.AddOptions{Pin: true})
		must(err)
		said = append(said, root.CID)
	}
	must(p.Kill())
	db := filepath.Join(p.Home, "kith.db")
	files := map[string][]byte{}
	for _, name := range []string{db, db + "-wal"} {
		b, err := os.ReadFile(name)
		must(err)
		if len(b) == 0 {
			t.Fatalf("%s is empty: the kill came too late", name)
		}
		files[name] = b
	}
	opened, refused := 0, 0
	for _, c := range []struct {
		what, file string
		harm       func(b []byte) []byte
	}{
		{"nothing", db, func(b []byte) []byte { return b }},
		{"the log cut in half", db + "-wal", func(b []byte) []byte { return b[:len(b)/2] }},
		{"the log's last 100 bytes gone", db + "-wal", func(b []byte) []byte { return b[:len(b)-100] }},
		{"the log's middle garbled", db + "-wal", func(b []byte) []byte { copy(b[len(b)/2:], "0123456789abcdef"); return b }},
		{"the log's first frame garbled", db + "-wal", func(b []byte) []byte { copy(b[100:], "0123456789abcdef"); return b }},
		{"the database cut in half", db, func(b []byte) []byte { return b[:len(b)/2] }},
		{"the database's head garbled", db, func(b []byte) []byte { copy(b, "0123456789abcdef"); return b }},
	} {
		for name, b := range files {
			must(os.WriteFile(name, b, 0o600))
		}
		must(os.Remove(db + "-shm"))
		must(os.WriteFile(c.file, c.harm(append([]byte(nil), files[c.file]...)), 0o600))
		must(p.Start(exe))
		if err := p.Ready(ctx); err != nil {
			if ctx.Err() != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			refused++
			if says := p.Tail(); !strings.Contains(says, "kith.db") || c.what == "nothing" {
				t.Errorf("%s: it ended and names no file: %s", c.what, says)
			}
			t.Logf("%s: refused: %s", c.what, lastLine(p.Tail()))
			must(p.Kill())
		} else {
			opened++
			pins, err := p.Client.Pins(ctx)
			must(err)
			there := map[string]bool{}
			for _, pin := range pins {
				there[pin.CID] = true
			}
			kept := 0
			for kept < len(said) && there[said[kept]] {
				kept++
			}
			if len(there) != kept {
				t.Errorf("%s: of %v it has %v: not a beginning of what it said", c.what, said, there)
			}
			if c.what == "nothing" && kept != len(said) {
				t.Errorf("nothing was harmed, and it has %d of %d", kept, len(said))
			}
			t.Logf("%s: opened, with %d of %d", c.what, kept, len(said))
			must(p.Kill())
		}
		if _, err := os.Stat(db + "-shm"); err != nil {
			must(os.WriteFile(db+"-shm", nil, 0o600))
		}
	}
	if opened < 2 || refused < 2 {
		t.Errorf("%d opened and %d refused: the harms were not what they are meant to be", opened, refused)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
