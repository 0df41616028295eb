package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Revocation is a peer that this node no longer takes for a member.
type Revocation struct {
	Peer peer.ID
	At   time.Time
	Why  string
}

// Revoke keeps that a peer is no member any more. Doing it twice keeps the first.
func (s *State) Revoke(ctx context.Context, r Revocation) error {
	return s.write(ctx, CommitRevoke, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO revocations (peer, at, why) VALUES (?,?,?)`, r.Peer.String(), millis(r.At), r.Why); err != nil {
			return fmt.Errorf("state: revoke: %w", err)
		}
		return nil
	})
}

// Revocations lists the revoked peers, oldest first.
func (s *State) Revocations(ctx context.Context) ([]Revocation, error) {
	return query(ctx, s, `SELECT peer, at, why FROM revocations ORDER BY at, peer`, nil, func(rows *sql.Rows) (r Revocation, err error) {
		var text string
		var at int64
		if err := rows.Scan(&text, &at, &r.Why); err != nil {
			return r, err
		}
		r.At = fromMillis(at)
		r.Peer, err = peer.Decode(text)
		return r, err
	})
}

// Set keeps a setting; a nil value forgets it.
func (s *State) Set(ctx context.Context, key string, value []byte) error {
	return s.write(ctx, CommitSetting, func(ctx context.Context, tx *sql.Tx) error {
		var err error
		if value == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM settings WHERE key = ?`, key)
		} else {
			_, err = tx.ExecContext(ctx, `INSERT INTO settings (key, value) VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
		}
		if err != nil {
			return fmt.Errorf("state: set %q: %w", key, err)
		}
		return nil
	})
}

// Get gives a setting, or nil and ErrNotFound.
func (s *State) Get(ctx context.Context, key string) ([]byte, error) {
	var v []byte
	err := s.db.QueryRowContext(ctx, `SELECT value FROM settings WHERE key = ?`, key).Scan(&v)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("setting %q: %w", key, ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("state: get %q: %w", key, err)
	}
	return v, nil
}
