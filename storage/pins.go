package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
)

// Owner says for whom something is kept: "user", "upload", "job:<id>". Those of
// jobs have a colon.
type Owner string

// User is who added or pinned by hand.
const User Owner = "user"

// Pin keeps a root from the collector for its owner.
type Pin struct {
	Root  cid.Cid
	Owner Owner
	Until time.Time // zero: forever
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMilli(), 1)
}

// Pin keeps root, which must be complete, until the given time or, if it is
// zero, until it is unpinned. A second pin of one owner replaces the first.
//
// A root that is new here gets the audience that its first block has through
// other roots; if it has none, Mesh when the owner is User, and else Job.
func (s *Store) Pin(ctx context.Context, root cid.Cid, owner Owner, until time.Time) error {
	if err := CheckCID(root); err != nil {
		return err
	}
	if owner == "" {
		return fmt.Errorf("pin %s: no owner", root)
	}
	defer s.Use(root)()
	r, err := s.Root(ctx, root)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("pin %s: %w", root, err)
	}
	if r.Audience == Nobody {
		r = Root{CID: root}
		if r.Audience, err = s.inherit(ctx, root, owner); err != nil {
			return fmt.Errorf("pin %s: %w", root, err)
		}
		e, err := s.Stat(ctx, root, "")
		if err != nil {
			return fmt.Errorf("pin %s: %w", root, err)
		}
		r.Size = e.Size
	}
	return s.pin(ctx, r, owner, until)
}

func (s *Store) inherit(ctx context.Context, root cid.Cid, owner Owner) (Audience, error) {
	a, _, err := s.Audience(ctx, root)
	if err != nil || a != Nobody {
		return a, err
	}
	if owner == User {
		return Mesh, nil
	}
	return Job, nil
}

// pin indexes and pins, for all but huge roots in one commit; the caller holds
// Use. The index comes first: a pinned root is always indexed whole.
func (s *Store) pin(ctx context.Context, r Root, owner Owner, until time.Time) error {
	fail := func(err error) error { return fmt.Errorf("pin %s: %w", r.CID, err) }
	keys, err := s.indexDAG(ctx, r)
	if err != nil {
		return fail(err)
	}
	err = s.inTx(ctx, CommitPin, func(ctx context.Context, tx *sql.Tx) error {
		id, err := s.ensureRootTx(ctx, tx, r)
		if err != nil {
			return err
		}
		if err := indexTx(ctx, tx, id, keys); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, upsertPin, id, string(owner), millis(until))
		return err
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// Share widens a root's audience; it never narrows one. A root that is not recorded yet must have its first
// block here; what else is here of it is shared once it is pinned.
func (s *Store) Share(ctx context.Context, root cid.Cid, a Audience) error {
	if a < Job {
		return fmt.Errorf("share %s with %v: want job, mesh or public", root, a)
	}
	defer s.Use(root)()
	if _, err := s.Root(ctx, root); err != nil {
		if _, here := s.Size(ctx, root); here != nil {
			return errors.Join(err, here)
		}
	}
	_, err := s.ensureRoot(ctx, Root{CID: root, Audience: a})
	return err
}

// Unpin ends an owner's pin, or fails with ErrNotFound. A public root that
// nobody but jobs pins any more is served to members alone from then on.
func (s *Store) Unpin(ctx context.Context, root cid.Cid, owner Owner) error {
	err := s.inTx(ctx, CommitUnpin, func(ctx context.Context, tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, deletePin, string(owner), root.Bytes())
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("pin by %q: %w", owner, ErrNotFound)
		}
		_, err = tx.ExecContext(ctx, `UPDATE storage_roots SET audience = ? WHERE cid = ? AND audience > ?
			AND NOT EXISTS (SELECT 1 FROM storage_pins p WHERE p.root = storage_roots.id AND p.owner NOT LIKE '%:%')`, int(Mesh), root.Bytes(), int(Mesh))
		return err
	})
	if err != nil {
		return fmt.Errorf("unpin %s: %w", root, err)
	}
	return nil
}

// ReleaseOwner ends all pins of an owner.
func (s *Store) ReleaseOwner(ctx context.Context, owner Owner) error {
	err := s.inTx(ctx, CommitUnpin, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM storage_pins WHERE owner = ?`, string(owner))
		return err
	})
	if err != nil {
		return fmt.Errorf("release pins of %q: %w", owner, err)
	}
	return nil
}

// Pins lists the pins that have not expired.
func (s *Store) Pins(ctx context.Context) ([]Pin, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT r.cid, p.owner, p.until FROM storage_pins p JOIN storage_roots r ON r.id = p.root
		WHERE p.until = 0 OR p.until > ? ORDER BY r.added, r.id, p.owner`, s.cfg.Now().UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	defer rows.Close()
	var out []Pin
	for rows.Next() {
		var p Pin
		var raw []byte
		var until sql.NullInt64
		if err := rows.Scan(&raw, &p.Owner, &until); err != nil {
			return nil, fmt.Errorf("list pins: %w", err)
		}
		if p.Root, err = cid.Cast(raw); err != nil {
			return nil, fmt.Errorf("list pins: %w", err)
		}
		if until.Int64 != 0 {
			p.Until = time.UnixMilli(until.Int64)
		}
		out = append(out, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	return out, nil
}
