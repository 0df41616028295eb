package storage

import (
	"database/sql"
	"io"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"
)

// A folder of stored members holds their bytes, and refuses a name twice, a
// name that leaves it, and a member that is not here.
func TestAddFolder(t *testing.T) {
	ctx := t.Context()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var members []Member
	for _, text := range []string{"one\n", "two\n"} {
		r, err := s.AddBytes(ctx, []byte(text), AddOptions{Owner: "job:x", Audience: Job})
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, Member{Name: strings.TrimSpace(text), CID: r.CID})
	}
	root, err := s.AddFolder(ctx, members, AddOptions{Owner: "job:x", Audience: Job})
	if err != nil {
		t.Fatal(err)
	}
	if root.Size != 8 || root.Files != 2 || !s.Complete(ctx, root.CID) {
		t.Fatalf("root %+v, complete %v: want 8 bytes, 2 files, complete", root, s.Complete(ctx, root.CID))
	}
	r, err := s.Open(ctx, root.CID, "two", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || string(b) != "two\n" {
		t.Fatalf("read %q, %v", b, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	absent, err := SumBytes([]byte("absent"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]Member{
		{members[0], members[0]},
		{{Name: "../x", CID: members[0].CID}},
		{{Name: "x", CID: absent}},
	} {
		if _, err := s.AddFolder(ctx, bad, AddOptions{}); err == nil {
			t.Errorf("folder of %v was made", bad)
		}
	}
}
