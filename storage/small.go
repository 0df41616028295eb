package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ipfs/go-cid"
)

// AddSmall adds files of one block each, all pinned in one commit: what many
// small tasks leave costs one sync, not one each. Roots come in the order of
// files. When it returns they survive a crash; an error means that none may be
// relied on.
func (s *Store) AddSmall(ctx context.Context, files [][]byte, o AddOptions) (roots []Root, err error) {
	if o, err = o.filled(); err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	roots = make([]Root, len(files))
	cids := make([]cid.Cid, len(files))
	for i, data := range files {
		if int64(len(data)) > o.ChunkSize {
			return nil, fmt.Errorf("add: file %d has %d bytes: at most %d are one block", i, len(data), o.ChunkSize)
		}
		if cids[i], err = SumBytes(data); err != nil {
			return nil, fmt.Errorf("add: %w", err)
		}
		roots[i] = Root{CID: cids[i], Name: o.Name, Size: int64(len(data)), Files: 1, Audience: o.Audience, Added: s.cfg.Now()}
	}
	w := s.begin()
	defer func() { err = s.ended(ctx, w, err) }()
	for i, data := range files {
		if err := w.put(ctx, cids[i], data); err != nil {
			return nil, fmt.Errorf("add: %w", err)
		}
	}
	if err := w.Flush(ctx); err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	defer s.Use(cids...)()
	if err := s.inTx(ctx, CommitPin, func(ctx context.Context, tx *sql.Tx) error { return s.pinSmallTx(ctx, tx, roots, o) }); err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	return roots, nil
}

// pinSmallTx records, indexes and pins roots that are one block each.
func (s *Store) pinSmallTx(ctx context.Context, tx *sql.Tx, roots []Root, o AddOptions) error {
	var root, block, pin *sql.Stmt
	for _, p := range []struct {
		to **sql.Stmt
		q  string
	}{{&root, upsertRoot}, {&block, insertBlock}, {&pin, upsertPin}} {
		st, err := tx.PrepareContext(ctx, p.q)
		if err != nil {
			return err
		}
		defer st.Close()
		*p.to = st
	}
	seen := make(map[cid.Cid]bool, len(roots))
	for _, r := range roots {
		if seen[r.CID] {
			continue
		}
		seen[r.CID] = true
		var id int64
		if err := root.QueryRowContext(ctx, r.CID.Bytes(), int(r.Audience), r.Size, r.Files, r.Name, r.Added.UnixMilli()).Scan(&id); err != nil {
			return fmt.Errorf("record root %s: %w", r.CID, err)
		}
		if _, err := block.ExecContext(ctx, id, []byte(keyOf(r.CID))); err != nil {
			return fmt.Errorf("index %s: %w", r.CID, err)
		}
		if _, err := pin.ExecContext(ctx, id, string(o.Owner), millis(o.Until)); err != nil {
			return fmt.Errorf("pin %s: %w", r.CID, err)
		}
	}
	return nil
}

// UnpinAll ends an owner's pins of roots, in one commit. What it does not pin is
// no error.
func (s *Store) UnpinAll(ctx context.Context, roots []cid.Cid, owner Owner) error {
	return s.inTx(ctx, CommitUnpin, func(ctx context.Context, tx *sql.Tx) error {
		st, err := tx.PrepareContext(ctx, deletePin)
		if err != nil {
			return fmt.Errorf("unpin: %w", err)
		}
		defer st.Close()
		for _, r := range roots {
			if _, err := st.ExecContext(ctx, string(owner), r.Bytes()); err != nil {
				return fmt.Errorf("unpin %s: %w", r, err)
			}
		}
		return nil
	})
}
