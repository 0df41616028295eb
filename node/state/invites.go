package state

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p/auth"
)

// Invite is an invite that this node issued, as it keeps it: never the secret.
type Invite struct {
	Hash    [32]byte // of the secret
	Name    string   // a note for people; at most MaxInviteName bytes
	Rights  auth.Rights
	Uses    int // how often it may be redeemed
	Left    int
	Expires time.Time
	Created time.Time
	Revoked bool
	Peers   []peer.ID // who redeemed it; filled by Invites
}

// MaxInviteName bounds an invite's note.
const MaxInviteName = 200

// ID is a short name for people: the hash's first 16 hex digits.
func (i Invite) ID() string { return hex.EncodeToString(i.Hash[:8]) }

// AddInvite keeps an invite before it is shown to anyone. Left is set to Uses.
func (s *State) AddInvite(ctx context.Context, i Invite) error {
	if i.Uses < 1 || i.Uses > 1_000_000 {
		return fmt.Errorf("state: invite: %d uses is not between 1 and 1000000", i.Uses)
	}
	if i.Expires.IsZero() {
		return errors.New("state: invite: it has no expiry; give one")
	}
	if len(i.Name) > MaxInviteName {
		return fmt.Errorf("state: invite: a name of %d bytes is longer than %d", len(i.Name), MaxInviteName)
	}
	return s.write(ctx, CommitInvite, func(ctx context.Context, tx *sql.Tx) error {
		err := changedOne(tx.ExecContext(ctx, `INSERT OR IGNORE INTO invites (secret, name, rights, left, uses, expires, created) VALUES (?,?,?,?,?,?,?)`,
			i.Hash[:], i.Name, i.Rights, i.Uses, i.Uses, millis(i.Expires), millis(i.Created)))
		if err != nil {
			return fmt.Errorf("state: add invite: %w", err)
		}
		return nil
	})
}

// Redeem takes one use of the invite for a peer, durably. A peer that redeemed
// it before takes no second use. now is the node's wall clock.
func (s *State) Redeem(ctx context.Context, secretHash [32]byte, by peer.ID, now time.Time) (rights auth.Rights, err error) {
	err = s.write(ctx, CommitRedeem, func(ctx context.Context, tx *sql.Tx) error {
		var left int
		var until int64
		var revoked bool
		err := tx.QueryRowContext(ctx, `SELECT rights, left, expires, revoked FROM invites WHERE secret = ?`, secretHash[:]).Scan(&rights, &left, &until, &revoked)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return auth.ErrInviteUnknown
		case err == nil && revoked:
			return auth.ErrInviteRevoked
		case err != nil:
			return fmt.Errorf("state: redeem: %w", err)
		}
		if !now.Before(fromMillis(until)) {
			return auth.ErrInviteExpired
		}
		n, err := rowsChanged(tx.ExecContext(ctx, `INSERT OR IGNORE INTO redemptions (secret, peer, at) VALUES (?,?,?)`, secretHash[:], by.String(), millis(now)))
		if err != nil {
			return fmt.Errorf("state: redeem: %w", err)
		}
		if n == 0 {
			return nil
		}
		if left < 1 {
			return auth.ErrInviteSpent
		}
		if _, err := tx.ExecContext(ctx, `UPDATE invites SET left = left - 1 WHERE secret = ?`, secretHash[:]); err != nil {
			return fmt.Errorf("state: redeem: %w", err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return rights, nil
}

// Invites lists the invites that were issued, newest first.
func (s *State) Invites(ctx context.Context) ([]Invite, error) {
	list, err := query(ctx, s, `SELECT secret, name, rights, left, uses, expires, created, revoked FROM invites ORDER BY created DESC, secret`, nil, func(rows *sql.Rows) (i Invite, err error) {
		var hash []byte
		var expires, created int64
		err = rows.Scan(&hash, &i.Name, &i.Rights, &i.Left, &i.Uses, &expires, &created, &i.Revoked)
		copy(i.Hash[:], hash)
		i.Expires, i.Created = fromMillis(expires), fromMillis(created)
		return i, err
	})
	if err != nil {
		return nil, err
	}
	for n := range list {
		list[n].Peers, err = query(ctx, s, `SELECT peer FROM redemptions WHERE secret = ? ORDER BY at, peer`, []any{list[n].Hash[:]}, func(rows *sql.Rows) (peer.ID, error) {
			var text string
			if err := rows.Scan(&text); err != nil {
				return "", err
			}
			return peer.Decode(text)
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// RevokeInvite withdraws the invite whose ID begins with prefix, which must fit
// one. Members that it brought in stay.
func (s *State) RevokeInvite(ctx context.Context, prefix string) (Invite, error) {
	list, err := s.Invites(ctx)
	if err != nil {
		return Invite{}, err
	}
	var found []Invite
	for _, i := range list {
		if prefix != "" && len(prefix) <= 16 && i.ID()[:len(prefix)] == prefix {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return Invite{}, fmt.Errorf("invite %q: %w; `kith invite ls` lists them", prefix, ErrNotFound)
	case 1:
	default:
		return Invite{}, fmt.Errorf("invite %q fits %d invites; give more of its digits", prefix, len(found))
	}
	i := found[0]
	i.Revoked = true
	return i, s.write(ctx, CommitRevoke, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE invites SET revoked = 1 WHERE secret = ?`, i.Hash[:]); err != nil {
			return fmt.Errorf("state: revoke invite: %w", err)
		}
		return nil
	})
}

// Redeemer counts invites by a wall clock; it is what p2p asks.
type Redeemer struct {
	State *State
	Now   func() time.Time
}

// Redeem is State.Redeem at the redeemer's time. How long the member's token
// lasts is left to p2p.
func (r Redeemer) Redeem(ctx context.Context, secretHash [32]byte, by peer.ID) (auth.Rights, time.Time, error) {
	rights, err := r.State.Redeem(ctx, secretHash, by, r.Now())
	return rights, time.Time{}, err
}
