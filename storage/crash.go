package storage

import (
	"context"
	"database/sql"
)

// Commit names a durable step. Tests kill the process right before or after one,
// or leave it out; nothing else depends on the names.
type Commit string

// The durable steps.
const (
	CommitBlocks  Commit = "storage/blocks"  // blocks: one, or a session's load
	CommitRoot    Commit = "storage/root"    // a root's row and audience
	CommitIndex   Commit = "storage/index"   // which blocks a fetched or very large root holds
	CommitPin     Commit = "storage/pin"     // a root with the last of its index, and its pin
	CommitUnpin   Commit = "storage/unpin"   // one pin, or all of an owner
	CommitForget  Commit = "storage/forget"  // expired pins, and roots that nothing keeps
	CommitDelete  Commit = "storage/delete"  // a block that nothing keeps is forgotten
	CommitCompact Commit = "storage/compact" // the room of such blocks comes back
)

// Commits lists every durable step of this package.
var Commits = []Commit{CommitBlocks, CommitRoot, CommitIndex, CommitPin, CommitUnpin, CommitForget, CommitDelete, CommitCompact}

// around runs a durable step, which a test may look at.
func (s *Store) around(c Commit, do func() error) error {
	if s.cfg.Around == nil {
		return asFull(do())
	}
	return asFull(s.cfg.Around(c, do))
}

// inTx commits what f did as one named step.
func (s *Store) inTx(ctx context.Context, c Commit, f func(ctx context.Context, tx *sql.Tx) error) error {
	return s.around(c, func() error {
		if s.cfg.Commit != nil {
			return s.cfg.Commit(ctx, f)
		}
		return inTx(ctx, s.db, f)
	})
}
