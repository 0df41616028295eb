package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
)

// each runs a test on a database of each kind.
func each(t *testing.T, f func(t *testing.T, s *State)) {
	for _, kind := range []string{"memory", "file"} {
		t.Run(kind, func(t *testing.T) {
			path := Memory
			if kind == "file" {
				path = filepath.Join(t.TempDir(), "a folder", "state?#%.db")
			}
			f(t, open(t, path))
		})
	}
}

func open(t testing.TB, path string) *State {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var mode, sync string
	if err := s.db.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %q, %v", mode, err)
	}
	if err := s.db.QueryRow("PRAGMA synchronous").Scan(&sync); err != nil || sync != "2" {
		t.Errorf("synchronous %q, want 2 (FULL), %v", sync, err)
	}
	if err := s.Set(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, others may read it: %v", name, err, info.Mode())
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if err := s.Set(t.Context(), "k", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	s = open(t, path)
	if v, err := s.Get(t.Context(), "k"); err != nil || string(v) != "v" {
		t.Errorf("after reopening: %q, %v", v, err)
	}
}

// A published job whose answer was delivered, and which was not let go of when the
// node died, is let go of by the tables' next version.
func TestTakenIsForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := sql.Open("sqlite", fileDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	const before = 5 // versions, the last with the column
	for _, q := range append(slices.Clone(migrations[:before]), fmt.Sprintf("PRAGMA user_version = %d", before),
		`INSERT INTO jobs (id, submission, name, submitter, published, created, retention, state, taken) VALUES
			('delivered', x'', '', 'user', 1, 0, 0, 4, 1), ('owed', x'', '', 'user', 1, 0, 0, 4, 0)`) {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	for id, want := range map[tasks.JobID]bool{"delivered": true, "owed": false} {
		if j, err := s.Job(t.Context(), id); err != nil || j.Forgotten != want {
			t.Errorf("%s: forgotten %v, %v; want %v", id, j.Forgotten, err, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	newer := filepath.Join(dir, "newer.db")
	db, err := sql.Open("sqlite", fileDSN(newer))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(fmt.Sprintf("PRAGMA user_version = %d", Version+1)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{newer: "newer kith", garbage: "not a database", "": "empty", dir: dir} {
		if s, err := Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want an error with %q", path, err, want)
			if s != nil {
				_ = s.Close()
			}
		}
	}
}

// Writes of many goroutines share transactions; one that fails undoes itself
// alone.
func TestGroupCommit(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		bad := errors.New("bad")
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				err := s.write(t.Context(), CommitSetting, func(ctx context.Context, tx *sql.Tx) error {
					if _, err := tx.ExecContext(ctx, `INSERT INTO settings (key, value) VALUES (?, 'x')`, fmt.Sprint(i)); err != nil {
						return err
					}
					if i%7 == 0 {
						return bad
					}
					return nil
				})
				if want := i%7 == 0; errors.Is(err, bad) != want || err != nil && !want {
					t.Errorf("write %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		for i := range 200 {
			if _, err := s.Get(t.Context(), fmt.Sprint(i)); errors.Is(err, ErrNotFound) != (i%7 == 0) {
				t.Errorf("after all, %d: %v", i, err)
			}
		}
	})
}

// Close waits for writes, and writes end in virtual time.
func TestInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Memory)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			go func() {
				if err := s.Set(context.Background(), fmt.Sprint(i), []byte("x")); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			}()
		}
		time.Sleep(time.Second)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestInvites(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		ctx, now := t.Context(), time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
		inv := Invite{Hash: [32]byte{1}, Name: "classroom", Rights: auth.Submit, Uses: 2, Expires: now.Add(time.Hour), Created: now}
		for _, bad := range []Invite{{Hash: [32]byte{9}, Uses: 0, Expires: now}, {Hash: [32]byte{9}, Uses: 1}} {
			if s.AddInvite(ctx, bad) == nil {
				t.Errorf("%+v was kept", bad)
			}
		}
		if err := s.AddInvite(ctx, inv); err != nil {
			t.Fatal(err)
		}
		if err := s.AddInvite(ctx, inv); !errors.Is(err, ErrConflict) {
			t.Errorf("the same invite again: %v", err)
		}
		a, b, c := testPeer(t, 1), testPeer(t, 2), testPeer(t, 3)
		for _, step := range []struct {
			by   peer.ID
			at   time.Time
			hash [32]byte
			want error
		}{
			{a, now, inv.Hash, nil},
			{a, now, inv.Hash, nil}, // again: not counted
			{b, now.Add(time.Hour), inv.Hash, auth.ErrInviteExpired},
			{b, now, [32]byte{2}, auth.ErrInviteUnknown},
			{b, now, inv.Hash, nil},
			{c, now, inv.Hash, auth.ErrInviteSpent},
			{b, now, inv.Hash, nil},
		} {
			rights, err := s.Redeem(ctx, step.hash, step.by, step.at)
			if !errors.Is(err, step.want) || err == nil && rights != auth.Submit {
				t.Errorf("redeem by %s: %v, %v, want %v", step.by, rights, err, step.want)
			}
		}
		list, err := s.Invites(ctx)
		if err != nil || len(list) != 1 || list[0].Name != inv.Name || list[0].Left != 0 || len(list[0].Peers) != 2 {
			t.Fatalf("invites: %+v, %v", list, err)
		}
		if _, err := s.RevokeInvite(ctx, "ff"); !errors.Is(err, ErrNotFound) {
			t.Errorf("revoke of an unknown invite: %v", err)
		}
		if _, err := s.RevokeInvite(ctx, inv.ID()[:4]); err != nil {
			t.Fatal(err)
		}
		if _, err := (Redeemer{s, func() time.Time { return now }}).State.Redeem(ctx, inv.Hash, a, now); !errors.Is(err, auth.ErrInviteRevoked) {
			t.Errorf("redeem of a revoked invite: %v", err)
		}
	})
}

// However many ask at once, an invite is redeemed as often as it may be.
func TestInviteRace(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		now := time.Now()
		if err := s.AddInvite(t.Context(), Invite{Hash: [32]byte{1}, Uses: 5, Expires: now.Add(time.Hour), Created: now}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := 0
		for i := range 40 {
			by := testPeer(t, byte(i))
			wg.Go(func() {
				_, err := s.Redeem(context.Background(), [32]byte{1}, by, now)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					got++
				} else if !errors.Is(err, auth.ErrInviteSpent) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got != 5 {
			t.Errorf("redeemed %d times, want 5", got)
		}
	})
}

func TestRevocations(t *testing.T) {
	each(t, func(t *testing.T, s *State) {
		now := time.UnixMilli(1e12).UTC()
		for range 2 {
			if err := s.Revoke(t.Context(), Revocation{Peer: testPeer(t, 1), At: now, Why: "lied"}); err != nil {
				t.Fatal(err)
			}
		}
		list, err := s.Revocations(t.Context())
		if err != nil || len(list) != 1 || list[0] != (Revocation{testPeer(t, 1), now, "lied"}) {
			t.Errorf("%+v, %v", list, err)
		}
	})
}
