package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
)

// Root is what was added, fetched or imported as one thing.
type Root struct {
	CID      cid.Cid
	Name     string
	Size     int64 // bytes of its files
	Files    int
	Audience Audience
	Added    time.Time
}

// indexRows is how many rows one transaction writes: others share the database.
const indexRows = 4096

const (
	upsertRoot = `INSERT INTO storage_roots (cid, audience, size, files, name, added)
		VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (cid) DO UPDATE SET
			audience = MAX(audience, excluded.audience),
			size = MAX(size, excluded.size), files = MAX(files, excluded.files),
			name = CASE excluded.name WHEN '' THEN name ELSE excluded.name END
		RETURNING id`
	insertBlock = `INSERT OR IGNORE INTO storage_blocks (root, block) VALUES (?, ?)`
	upsertPin   = `INSERT INTO storage_pins (root, owner, until) VALUES (?, ?, ?)
		ON CONFLICT (root, owner) DO UPDATE SET until = excluded.until`
	deletePin = `DELETE FROM storage_pins WHERE owner = ? AND root IN (SELECT id FROM storage_roots WHERE cid = ?)`
)

// ensureRoot makes or widens a root's row. A root that nothing pins or uses is
// the collector's, so the caller holds Use.
func (s *Store) ensureRoot(ctx context.Context, r Root) (id int64, err error) {
	err = s.inTx(ctx, CommitRoot, func(ctx context.Context, tx *sql.Tx) error {
		id, err = s.ensureRootTx(ctx, tx, r)
		return err
	})
	return id, err
}

func (s *Store) ensureRootTx(ctx context.Context, tx *sql.Tx, r Root) (id int64, err error) {
	if r.Audience < Nobody || r.Audience > Public {
		return 0, fmt.Errorf("root %s: %v: want job, mesh or public", r.CID, r.Audience)
	}
	err = tx.QueryRowContext(ctx, upsertRoot,
		r.CID.Bytes(), int(r.Audience), r.Size, r.Files, r.Name, s.cfg.Now().UnixMilli()).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("record root %s: %w", r.CID, err)
	}
	return id, nil
}

// indexBlocks records that the root holds the blocks.
func (s *Store) indexBlocks(ctx context.Context, id int64, keys []key) error {
	for len(keys) > 0 {
		n := min(len(keys), indexRows)
		err := s.inTx(ctx, CommitIndex, func(ctx context.Context, tx *sql.Tx) error { return indexTx(ctx, tx, id, keys[:n]) })
		if err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func indexTx(ctx context.Context, tx *sql.Tx, id int64, keys []key) error {
	st, err := tx.PrepareContext(ctx, insertBlock)
	if err != nil {
		return fmt.Errorf("index blocks: %w", err)
	}
	defer st.Close()
	for _, k := range keys {
		if _, err := st.ExecContext(ctx, id, []byte(k)); err != nil {
			return fmt.Errorf("index blocks: %w", err)
		}
	}
	return nil
}

// indexDAG records the blocks of a root but the last few, which it returns to
// be recorded; it fails if one is missing.
func (s *Store) indexDAG(ctx context.Context, r Root) (rest []key, err error) {
	p, err := NewPlan(Whole(r.CID))
	if err != nil {
		return nil, err
	}
	var id int64
	var lost cid.Cid
	var indexErr error
	err = s.fill(ctx, p, func(c cid.Cid, _ int) {
		if rest = append(rest, keyOf(c)); len(rest) < indexRows || indexErr != nil {
			return
		}
		if id == 0 {
			id, indexErr = s.ensureRoot(ctx, r)
		}
		if indexErr == nil {
			indexErr = s.indexBlocks(ctx, id, rest)
		}
		rest = rest[:0]
	}, func(c cid.Cid) bool { lost = c; return false })
	if err := errors.Join(err, indexErr); err != nil {
		return nil, err
	}
	if lost.Defined() {
		return nil, fmt.Errorf("root %s lacks block %s: %w", r.CID, lost, ErrIncomplete)
	}
	return rest, nil
}

// Audience returns the widest audience of the roots that hold the block, and
// false when no root does.
func (s *Store) Audience(ctx context.Context, c cid.Cid) (Audience, bool, error) {
	var a sql.NullInt64
	err := s.db.QueryRowContext(ctx, `SELECT MAX(r.audience) FROM storage_blocks b JOIN storage_roots r ON r.id = b.root WHERE b.block = ?`,
		[]byte(keyOf(c))).Scan(&a)
	if err != nil {
		return 0, false, fmt.Errorf("find audience of %s: %w", c, err)
	}
	return Audience(a.Int64), a.Valid, nil
}

// Belong reports which of the blocks root holds.
func (s *Store) Belong(ctx context.Context, root cid.Cid, blocks []cid.Cid) ([]bool, error) {
	out := make([]bool, len(blocks))
	if len(blocks) == 0 {
		return out, nil
	}
	args := []any{root.Bytes()}
	for _, c := range blocks {
		args = append(args, []byte(keyOf(c)))
	}
	rows, err := s.db.QueryContext(ctx, `SELECT block FROM storage_blocks WHERE root = (SELECT id FROM storage_roots WHERE cid = ?)
		AND block IN (?`+strings.Repeat(",?", len(blocks)-1)+`)`, args...)
	if err != nil {
		return nil, fmt.Errorf("find blocks of root %s: %w", root, err)
	}
	defer rows.Close()
	held := make(map[key]bool, len(blocks))
	for rows.Next() {
		var k []byte
		if err := rows.Scan(&k); err != nil {
			return nil, fmt.Errorf("find blocks of root %s: %w", root, err)
		}
		held[key(k)] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find blocks of root %s: %w", root, err)
	}
	for i, c := range blocks {
		out[i] = held[keyOf(c)]
	}
	return out, nil
}

// Root returns what is recorded of a root, or ErrNotFound.
func (s *Store) Root(ctx context.Context, c cid.Cid) (Root, error) {
	rs, err := s.queryRoots(ctx, `WHERE cid = ?`, c.Bytes())
	if err != nil {
		return Root{}, err
	}
	if len(rs) == 0 {
		return Root{}, fmt.Errorf("root %s: %w", c, ErrNotFound)
	}
	return rs[0], nil
}

// Roots lists all roots, newest first, at most limit (0: all).
func (s *Store) Roots(ctx context.Context, limit int) ([]Root, error) {
	if limit <= 0 {
		limit = -1
	}
	return s.queryRoots(ctx, `ORDER BY added DESC, id DESC LIMIT ?`, limit)
}

// Unprovided lists roots of an audience of Mesh or wider that are pinned and
// were last provided before t, oldest first.
func (s *Store) Unprovided(ctx context.Context, t time.Time, limit int) ([]Root, error) {
	return s.queryRoots(ctx, `WHERE audience >= ? AND provided < ? AND EXISTS (SELECT 1 FROM storage_pins p WHERE p.root = storage_roots.id)
		ORDER BY provided LIMIT ?`, int(Mesh), t.UnixMilli(), limit)
}

// Provided records that the root's provider record was published at t.
func (s *Store) Provided(ctx context.Context, root cid.Cid, t time.Time) error {
	if _, err := s.db.ExecContext(ctx, `UPDATE storage_roots SET provided = ? WHERE cid = ?`, t.UnixMilli(), root.Bytes()); err != nil {
		return fmt.Errorf("record provided root %s: %w", root, err)
	}
	return nil
}

func (s *Store) queryRoots(ctx context.Context, where string, args ...any) ([]Root, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT cid, name, size, files, audience, added FROM storage_roots `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list roots: %w", err)
	}
	defer rows.Close()
	var out []Root
	for rows.Next() {
		var r Root
		var raw []byte
		var added int64
		if err := rows.Scan(&raw, &r.Name, &r.Size, &r.Files, &r.Audience, &added); err != nil {
			return nil, fmt.Errorf("list roots: %w", err)
		}
		if r.CID, err = cid.Cast(raw); err != nil {
			return nil, fmt.Errorf("list roots: %w", err)
		}
		r.Added = time.UnixMilli(added)
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list roots: %w", err)
	}
	return out, nil
}
