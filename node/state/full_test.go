package state

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync"
	"testing"
)

// A database that has no room says so, to every caller whose write shared the
// transaction; nothing of it is there, and the same writes work when there is room.
func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	s.db.SetMaxOpenConns(1) // the limit is a connection's
	limit := func(pages string) {
		t.Helper()
		if _, err := s.db.Exec("PRAGMA max_page_count = " + pages); err != nil {
			t.Fatal(err)
		}
	}
	limit("1") // what is there is the least that it takes
	big := bytes.Repeat([]byte("x"), 64<<10)
	if err := s.Set(t.Context(), "one", big); !errors.Is(err, ErrFull) {
		t.Fatalf("without room: %v, want ErrFull", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = s.Set(t.Context(), "many", big) })
	}
	wg.Wait()
	for _, err := range errs {
		if !errors.Is(err, ErrFull) {
			t.Errorf("one of many: %v, want ErrFull", err)
		}
	}
	for _, key := range []string{"one", "many"} {
		if v, err := s.Get(t.Context(), key); err == nil {
			t.Errorf("%s: %d bytes are there after all", key, len(v))
		}
	}
	limit("1000000")
	if err := s.Set(t.Context(), "one", big); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(t.Context(), "one"); err != nil || !bytes.Equal(v, big) {
		t.Errorf("%d bytes, %v", len(v), err)
	}
}
