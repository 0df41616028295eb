package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// GCReport says what a collection removed and kept.
type GCReport struct {
	Removed int   `json:"removed"` // blocks
	Freed   int64 `json:"freed"`   // bytes
	Kept    int   `json:"kept"`    // blocks
	Damaged int   `json:"damaged"` // blocks missing or wrong under what is kept
}

// sweepChunk is how many deletions run while puts wait.
const sweepChunk = 256

// GC removes every block that is not under a pinned root, not under a root in
// use, and not written or touched by a session that is open.
//
// It marks what is kept first, then deletes in chunks. A root that is pinned
// or used meanwhile is marked before the next chunk, so once Pin or Use
// returns, nothing under the root is removed; a block that a session wrote or
// touched is looked up there, in the same critical section as its deletion.
func (s *Store) GC(ctx context.Context) (GCReport, error) {
	s.gcMu.Lock()
	defer s.gcMu.Unlock()
	if s.closed.Load() {
		return GCReport{}, ErrClosed
	}
	g := &collection{s: s, marked: map[key]struct{}{}}

	s.mu.Lock()
	s.marking, s.late = true, nil
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.marking, s.late = false, nil
		s.mu.Unlock()
	}()

	if err := g.run(ctx); err != nil {
		return g.report, fmt.Errorf("collect garbage: %w", err)
	}
	return g.report, nil
}

type collection struct {
	s      *Store
	marked map[key]struct{}
	report GCReport
}

func (g *collection) run(ctx context.Context) error {
	if err := g.dropRoots(ctx); err != nil {
		return err
	}
	pins, err := g.s.Pins(ctx)
	if err != nil {
		return err
	}
	roots := make(map[cid.Cid]struct{})
	for _, p := range pins {
		roots[p.Root] = struct{}{}
	}
	for _, r := range g.s.used() {
		roots[r] = struct{}{}
	}
	for r := range roots {
		if err := g.mark(ctx, r); err != nil {
			return err
		}
	}
	var chunk []key
	err = g.s.blocks.each(ctx, func(k key) error {
		if _, ok := g.marked[k]; ok {
			g.report.Kept++
			return nil
		}
		if chunk = append(chunk, k); len(chunk) < sweepChunk {
			return nil
		}
		err := g.sweep(ctx, chunk)
		chunk = chunk[:0]
		return err
	})
	if err != nil {
		return err
	}
	if err := g.sweep(ctx, chunk); err != nil {
		return err
	}
	if err := g.s.around(CommitCompact, func() error { return g.s.blocks.compact(ctx) }); err != nil {
		// What was deleted is deleted; its room comes back with a later collection.
		g.s.cfg.Log.Warn("the disk's room did not all come back", "err", err)
	}
	return errors.Join(ctx.Err(), g.s.missDropped(ctx))
}

func (s *Store) used() []cid.Cid {
	s.usesMu.Lock()
	defer s.usesMu.Unlock()
	out := make([]cid.Cid, 0, len(s.uses))
	for r := range s.uses {
		out = append(out, r)
	}
	return out
}

// dropRows is how many index rows one transaction forgets.
const dropRows = 16 << 10

// dropRoots forgets expired pins, and roots that nothing keeps: their blocks
// are no longer served. It takes turns with others on the database.
func (g *collection) dropRoots(ctx context.Context) error {
	for {
		var more bool
		err := g.s.inTx(ctx, CommitForget, func(ctx context.Context, tx *sql.Tx) (err error) {
			more, err = g.dropSome(ctx, tx)
			return err
		})
		if err != nil {
			return fmt.Errorf("forget roots: %w", err)
		}
		if !more {
			return nil
		}
	}
}

// dropSome writes before it looks at uses: whoever uses a root later records
// it after this transaction, and so again.
func (g *collection) dropSome(ctx context.Context, tx *sql.Tx) (more bool, err error) {
	s := g.s
	if _, err := tx.ExecContext(ctx, `DELETE FROM storage_pins WHERE until != 0 AND until <= ?`, s.cfg.Now().UnixMilli()); err != nil {
		return false, err
	}
	used := map[string]bool{}
	for _, r := range s.used() {
		used[string(r.Bytes())] = true
	}
	ids, err := unpinned(ctx, tx, used)
	if err != nil {
		return false, err
	}
	left := int64(dropRows)
	for _, id := range ids {
		res, err := tx.ExecContext(ctx, `DELETE FROM storage_blocks WHERE root = ?1 AND block IN
			(SELECT block FROM storage_blocks WHERE root = ?1 LIMIT ?2)`, id, left)
		if err != nil {
			return false, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return false, err
		}
		if left -= n; left <= 0 {
			return true, nil
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM storage_roots WHERE id = ?`, id); err != nil {
			return false, err
		}
	}
	return len(ids) == dropBatch, nil
}

const dropBatch = 256

func unpinned(ctx context.Context, tx *sql.Tx, used map[string]bool) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, cid FROM storage_roots r
		WHERE NOT EXISTS (SELECT 1 FROM storage_pins p WHERE p.root = r.id) LIMIT ?`, dropBatch+len(used))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() && len(ids) < dropBatch {
		var id int64
		var raw []byte
		if err := rows.Scan(&id, &raw); err != nil {
			return nil, err
		}
		if !used[string(raw)] {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// mark keeps what is stored under root. Where a node is damaged or missing,
// the index still knows the blocks below it.
func (g *collection) mark(ctx context.Context, root cid.Cid) error {
	p, err := NewPlan(Whole(root))
	if err != nil {
		return err
	}
	broken := false
	err = g.s.fill(ctx, p,
		func(c cid.Cid, _ int) { g.marked[keyOf(c)] = struct{}{} },
		func(cid.Cid) bool { broken = true; g.report.Damaged++; return true })
	if err != nil && !errors.Is(err, ErrNode) {
		return fmt.Errorf("mark %s: %w", root, err)
	}
	if err == nil && !broken {
		return nil
	}
	rows, err := g.s.db.QueryContext(ctx, `SELECT b.block FROM storage_blocks b JOIN storage_roots r ON r.id = b.root WHERE r.cid = ?`, root.Bytes())
	if err != nil {
		return fmt.Errorf("mark %s: %w", root, err)
	}
	defer rows.Close()
	for rows.Next() {
		var k []byte
		if err := rows.Scan(&k); err != nil {
			return fmt.Errorf("mark %s: %w", root, err)
		}
		g.marked[key(k)] = struct{}{}
	}
	return rows.Err()
}

// sweep deletes what is still not kept among keys.
func (g *collection) sweep(ctx context.Context, keys []key) error {
	s := g.s
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		late := s.late
		s.late = nil
		if len(late) == 0 {
			break
		}
		s.mu.Unlock()
		for _, r := range late {
			if err := g.mark(ctx, r); err != nil {
				return err
			}
		}
	}
	defer s.mu.Unlock()
	for _, k := range keys {
		if g.kept(k) {
			g.report.Kept++
			continue
		}
		n, err := s.blocks.size(ctx, k)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err == nil {
			err = s.around(CommitDelete, func() error { return s.blocks.delete(ctx, k) })
		}
		if err != nil {
			return fmt.Errorf("delete a block: %w", err)
		}
		g.report.Removed++
		g.report.Freed += int64(n)
	}
	return nil
}

func (g *collection) kept(k key) bool {
	if _, ok := g.marked[k]; ok {
		return true
	}
	for w := range g.s.sessions {
		w.keysMu.Lock()
		_, ok := w.keys[k]
		w.keysMu.Unlock()
		if ok {
			return true
		}
	}
	return false
}
