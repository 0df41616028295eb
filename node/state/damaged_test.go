package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// left is what a killed process leaves of a database: its files while it is open.
type left struct {
	db, wal []byte
	writes  int // settings 0, 1, ..., each acknowledged
}

func key(i int) string { return fmt.Sprintf("key-%03d", i) }

func value(i int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, 300+i) }

// leave writes settings one after the other, the first few checkpointed.
func leave(t *testing.T, writes, checkpoint int) left {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kith.db")
	s := open(t, path)
	for i := range writes {
		if err := s.Set(t.Context(), key(i), value(i)); err != nil {
			t.Fatal(err)
		}
		if i == checkpoint {
			if _, err := s.db.Exec("PRAGMA wal_checkpoint(RESTART)"); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := left{writes: writes}
	var err error
	if l.db, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if l.wal, err = os.ReadFile(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	return l
}

// found opens the files and counts the settings that are there: those from the
// first on, or an ErrDamaged that names the file and what to do.
func (l left) found(t *testing.T, db, wal []byte) (n int, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kith.db")
	if err := errors.Join(os.WriteFile(path, db, 0o600), os.WriteFile(path+"-wal", wal, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "put a copy") {
			t.Errorf("refused with %v: want ErrDamaged, the file and what to do", err)
		}
		return 0, err
	}
	defer s.Close()
	gap := false
	for i := range l.writes {
		v, err := s.Get(t.Context(), key(i))
		switch {
		case errors.Is(err, ErrNotFound):
			gap = true
		case err != nil:
			t.Fatalf("%s: %v", key(i), err)
		case gap || !bytes.Equal(v, value(i)):
			t.Fatalf("%s is there and wrong, or one before it is not", key(i))
		default:
			n++
		}
	}
	return n, nil
}

// A log that ends anywhere gives the writes up to there, in order and whole.
func TestLogCut(t *testing.T) {
	l := leave(t, 40, 10)
	last := -1
	for cut := 0; cut <= len(l.wal); cut += 1 + len(l.wal)/97 {
		n, err := l.found(t, l.db, l.wal[:cut])
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if n < last {
			t.Errorf("cut at %d: %d writes, fewer than before a shorter cut", cut, n)
		}
		last = n
	}
	if n, err := l.found(t, l.db, l.wal); err != nil || n != l.writes {
		t.Errorf("uncut: %d of %d writes, %v", n, l.writes, err)
	}
}

// Wrong bytes in the log are refused where they would lose what was committed; in
// the last commit they are as a torn write, which was not acknowledged; or in the
// last two, where they hit what tells which frame follows which.
func TestLogGarbled(t *testing.T) {
	l := leave(t, 40, 10)
	refused := 0
	garble := func(at, last int) {
		t.Helper()
		wal := bytes.Clone(l.wal)
		for i := at; i < min(at+16, len(wal)); i++ {
			wal[i] ^= 0x5a
		}
		n, err := l.found(t, l.db, wal)
		switch {
		case err != nil:
			refused++
		case n < l.writes-last:
			t.Errorf("wrong bytes at %d of %d: %d of %d writes, and nothing is said", at, len(wal), n, l.writes)
		}
	}
	for at := 0; at < len(l.wal); at += 1 + len(l.wal)/97 {
		garble(at, 1)
	}
	const frame = walFrame + 4096
	for at := walHeader + 8; at < len(l.wal); at += 7 * frame { // what tells the log's uses apart, and frames' order
		garble(at, 2)
	}
	if refused == 0 {
		t.Error("never refused")
	}
}

// A page of the database itself that is not what it was is refused, or holds
// nothing that counts.
func TestPageGarbled(t *testing.T) {
	l := leave(t, 40, 39)
	const page = 4096
	refused := 0
	for at := 0; at < len(l.db); at += page {
		db := bytes.Clone(l.db)
		copy(db[at:], bytes.Repeat([]byte{0xa5}, 64))
		n, err := l.found(t, db, nil)
		switch {
		case err != nil:
			refused++
		case n < l.writes:
			t.Errorf("page %d: %d of %d writes, and nothing is said", at/page, n, l.writes)
		}
	}
	if pages := len(l.db) / page; refused < pages/2 {
		t.Errorf("%d of %d pages refused", refused, pages)
	}
	for _, cut := range []int{1, 100, page, len(l.db) - page, len(l.db) - 1} {
		if n, err := l.found(t, l.db[:cut], nil); err == nil && n < l.writes {
			t.Errorf("cut to %d of %d bytes: %d of %d writes, and nothing is said", cut, len(l.db), n, l.writes)
		}
	}
}
