package state

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations bring the tables from version i to version i+1, which SQLite keeps
// as user_version. What was released is never changed: append only. Times are
// Unix milliseconds, durations nanoseconds.
var migrations = []string{`
CREATE TABLE jobs (
	id TEXT PRIMARY KEY, submission BLOB NOT NULL, name TEXT NOT NULL, submitter TEXT NOT NULL, published INTEGER NOT NULL,
	created INTEGER NOT NULL, retention INTEGER NOT NULL,
	term INTEGER NOT NULL DEFAULT 0, yielded INTEGER NOT NULL DEFAULT 0, taken INTEGER NOT NULL DEFAULT 0, forgotten INTEGER NOT NULL DEFAULT 0,
	state INTEGER NOT NULL, reason INTEGER NOT NULL DEFAULT 0, detail TEXT NOT NULL DEFAULT '',
	output TEXT NOT NULL DEFAULT '', size INTEGER NOT NULL DEFAULT 0, tasks INTEGER NOT NULL DEFAULT 0, finished INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE tasks (job TEXT NOT NULL, idx INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (job, idx)) WITHOUT ROWID;
CREATE TABLE leases (
	job TEXT NOT NULL, lease TEXT NOT NULL, term INTEGER NOT NULL, worker TEXT NOT NULL, stage INTEGER NOT NULL, body BLOB NOT NULL, at INTEGER NOT NULL,
	PRIMARY KEY (job, lease)
) WITHOUT ROWID;
CREATE TABLE attempts (
	job TEXT NOT NULL, stage INTEGER NOT NULL, idx INTEGER NOT NULL, lease TEXT NOT NULL, replica INTEGER NOT NULL,
	worker TEXT NOT NULL, reason INTEGER NOT NULL, detail TEXT NOT NULL, output TEXT NOT NULL, size INTEGER NOT NULL, folder INTEGER NOT NULL,
	PRIMARY KEY (job, stage, idx, lease, replica)
) WITHOUT ROWID;
CREATE TABLE batches (hash BLOB PRIMARY KEY, sealed BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE receipts (
	job TEXT NOT NULL, stage INTEGER NOT NULL, idx INTEGER NOT NULL, lease TEXT NOT NULL, replica INTEGER NOT NULL,
	worker TEXT NOT NULL, body BLOB NOT NULL, batch BLOB NOT NULL, at INTEGER NOT NULL,
	PRIMARY KEY (job, stage, idx, lease, replica)
);
CREATE INDEX receipts_batch ON receipts (batch);
CREATE TABLE verdicts (
	job TEXT NOT NULL, stage INTEGER NOT NULL, idx INTEGER NOT NULL, lease TEXT NOT NULL, replica INTEGER NOT NULL,
	status INTEGER NOT NULL, reason INTEGER NOT NULL, at INTEGER NOT NULL,
	PRIMARY KEY (job, stage, idx, lease, replica)
) WITHOUT ROWID;
CREATE TABLE results (
	job TEXT NOT NULL, stage INTEGER NOT NULL, idx INTEGER NOT NULL, output TEXT NOT NULL, size INTEGER NOT NULL, workers TEXT NOT NULL,
	PRIMARY KEY (job, stage, idx)
) WITHOUT ROWID;
CREATE TABLE tallies (peer TEXT PRIMARY KEY, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE owed (
	job TEXT NOT NULL, stage INTEGER NOT NULL, idx INTEGER NOT NULL, lease TEXT NOT NULL, replica INTEGER NOT NULL,
	origin TEXT NOT NULL, body BLOB NOT NULL, until INTEGER NOT NULL,
	PRIMARY KEY (job, stage, idx, lease, replica)
);
CREATE TABLE published (
	id TEXT PRIMARY KEY, submission BLOB NOT NULL, name TEXT NOT NULL, created INTEGER NOT NULL, retention INTEGER NOT NULL
);
CREATE TABLE answers (
	job TEXT PRIMARY KEY, term INTEGER NOT NULL, origin TEXT NOT NULL, state INTEGER NOT NULL, reason INTEGER NOT NULL,
	detail TEXT NOT NULL, output TEXT NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE invites (
	secret BLOB PRIMARY KEY, rights INTEGER NOT NULL, left INTEGER NOT NULL, uses INTEGER NOT NULL, expires INTEGER NOT NULL,
	created INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE redemptions (
	secret BLOB NOT NULL, peer TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (secret, peer)
) WITHOUT ROWID;
CREATE TABLE revocations (peer TEXT PRIMARY KEY, at INTEGER NOT NULL, why TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
`, `
ALTER TABLE results ADD COLUMN folder INTEGER NOT NULL DEFAULT 0;
`, `
ALTER TABLE invites ADD COLUMN name TEXT NOT NULL DEFAULT '';
`, `
CREATE TABLE commitments (
	job TEXT NOT NULL, stage INTEGER NOT NULL, idx INTEGER NOT NULL, lease TEXT NOT NULL, replica INTEGER NOT NULL,
	worker TEXT NOT NULL, hash BLOB NOT NULL, at INTEGER NOT NULL,
	PRIMARY KEY (job, stage, idx, lease, replica)
) WITHOUT ROWID;
ALTER TABLE owed ADD COLUMN nonce BLOB;
ALTER TABLE verdicts ADD COLUMN related INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN related INTEGER NOT NULL DEFAULT 0;
CREATE TABLE said (id INTEGER PRIMARY KEY, origin TEXT NOT NULL, sealed BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE said_jobs (job TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (job, id)) WITHOUT ROWID;
CREATE INDEX said_jobs_id ON said_jobs (id);
`, `
ALTER TABLE tallies ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
UPDATE tallies SET at = 1000 * unixepoch();
`, `
UPDATE jobs SET forgotten = 1 WHERE taken;
ALTER TABLE jobs DROP COLUMN taken;
`}

// Version is the newest version of the tables that this program writes.
var Version = len(migrations)

// migrate runs what the database lacks, each version in a transaction.
func migrate(db *sql.DB) error {
	for {
		done, err := migrateOne(db)
		if done || err != nil {
			return err
		}
	}
}

func migrateOne(db *sql.DB) (done bool, err error) {
	ctx := context.Background()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if done || err != nil {
			if back := rollback(tx); err == nil {
				err = back
			}
		}
	}()
	var v int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return false, fmt.Errorf("read version: %w", err)
	}
	if v < 0 || v > len(migrations) {
		return false, fmt.Errorf("the tables have version %d, this program knows up to %d; start the newer kith that wrote them", v, len(migrations))
	}
	if v == len(migrations) {
		return true, nil
	}
	if _, err := tx.ExecContext(ctx, migrations[v]); err != nil {
		return false, fmt.Errorf("bring tables from version %d to %d: %w", v, v+1, err)
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", v+1)); err != nil {
		return false, fmt.Errorf("write version %d: %w", v+1, err)
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("commit version %d: %w", v+1, err)
	}
	return false, nil
}

// statements are compiled once: they are what many tasks run.
type statements map[string]*sql.Stmt

func (m *statements) prepare(db *sql.DB) error {
	*m = statements{}
	for _, q := range prepared {
		st, err := db.Prepare(q)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", q, err)
		}
		(*m)[q] = st
	}
	return nil
}

// bound are the statements of one transaction, of which one runs at a time: each
// is bound to it once and not for each row.
type bound struct {
	tx   *sql.Tx
	stmt map[string]*sql.Stmt
}

// exec runs a prepared statement inside tx.
func (s *State) exec(ctx context.Context, tx *sql.Tx, q string, args ...any) (sql.Result, error) {
	prepared, ok := s.stmt[q]
	if !ok {
		return tx.ExecContext(ctx, q, args...)
	}
	if s.bound.tx != tx {
		s.bound = bound{tx, map[string]*sql.Stmt{}}
	}
	st := s.bound.stmt[q]
	if st == nil {
		st = tx.StmtContext(ctx, prepared)
		s.bound.stmt[q] = st
	}
	return st.ExecContext(ctx, args...)
}
