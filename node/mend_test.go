package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
)

// Who reads a file with a damaged block that nobody else has gets no wrong byte; once
// the block is known to be damaged, no byte, and is told which. Added again, the file
// is whole.
func TestDamagedFileIsToldAtOnce(t *testing.T) {
	t.Parallel()
	n := start(t, founder(t))
	c := dial(t, n)
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	add := func() tasks.CID {
		t.Helper()
		root, err := c.AddFile(t.Context(), bytes.NewReader(data), int64(len(data)), api.AddOptions{Audience: api.AudienceMesh})
		if err != nil {
			t.Fatal(err)
		}
		return tasks.CID(root.CID)
	}
	read := func(root tasks.CID) ([]byte, error) {
		r, err := c.Cat(t.Context(), root, "", 0, -1)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	root := add()
	packs, err := filepath.Glob(filepath.Join(n.cfg.Home.Blocks(), "packs", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("no packs: %v", err)
	}
	for _, path := range packs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, data[2<<20+100:][:64]); at >= 0 {
			b[at] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := read(root); err == nil || !bytes.HasPrefix(data, got) {
		t.Fatalf("the first read gives %d bytes, %v", len(got), err)
	}
	got, err := read(root)
	var e *api.Error
	if len(got) > 0 || !errors.As(err, &e) || !strings.Contains(e.Error(), "damaged on this node's disk") || !strings.Contains(e.Hint, "kith add") {
		t.Errorf("the next read gives %d bytes, %v; want none, and what to do", len(got), err)
	}
	add()
	if got, err := read(root); err != nil || !bytes.Equal(got, data) {
		t.Errorf("added again, it reads %d bytes, %v", len(got), err)
	}
}

// A block that could not be read for a moment is read once more before anybody is
// asked for it: nobody else may have it.
func TestMendReadsOnceMore(t *testing.T) {
	db, err := state.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	dir := t.TempDir()
	store, err := storage.Open(storage.Config{Dir: dir, DB: db.DB(), MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	data := bytes.Repeat([]byte("the only copy "), 5000)
	root, err := store.AddBytes(t.Context(), data, storage.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "packs", "00000000.pack")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(whole)
	bad[bytes.Index(bad, data)] ^= 1
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(t.Context(), root.CID); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("the spoiled block: %v", err)
	}
	damage, err := store.Damaged(t.Context())
	if err != nil || len(damage) != 1 {
		t.Fatalf("damaged is %+v, %v; want one block", damage, err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	n := &Node{store: store, mender: newMender(), log: slog.New(slog.DiscardHandler)}
	n.mendBlock(t.Context(), damage[0], map[cid.Cid]error{root.CID: transfer.ErrUnavailable})
	if left, err := store.Damaged(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("damaged is %+v, %v; want none", left, err)
	}
}

// A block that stays lost is warned of once, and again when the cause is another, or
// when it was whole in between.
func TestLostBlockIsWarnedOfOnce(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	m := newMender()
	one, err := storage.SumBytes([]byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := storage.SumBytes([]byte("two"))
	if err != nil {
		t.Fatal(err)
	}
	lost := []storage.Damage{{Block: one}, {Block: two}}
	warned := func(want int, damage []storage.Damage, err error) {
		t.Helper()
		out.Reset()
		m.only(damage)
		for _, d := range damage {
			m.failed(log, d.Block, err)
		}
		if got := strings.Count(out.String(), "WARN"); got != want {
			t.Errorf("%d warnings, want %d: %s", got, want, &out)
		}
	}
	nobody := func(asked string) error { return fmt.Errorf("%w: [%s]", transfer.ErrUnavailable, asked) }
	warned(2, lost, nobody("a, b"))
	warned(0, lost, nobody("b, a"))
	warned(2, lost, storage.ErrFull)
	warned(0, lost, storage.ErrFull)
	warned(2, lost, nobody("c"))
	warned(0, lost[:1], nobody("c"))
	warned(1, lost, nobody("c"))
}
