package storage

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations, one a version; a released one never changes.
var migrations = []string{
	`CREATE TABLE storage_roots (
		id       INTEGER PRIMARY KEY,
		cid      BLOB NOT NULL UNIQUE,
		audience INTEGER NOT NULL,
		size     INTEGER NOT NULL,
		files    INTEGER NOT NULL,
		name     TEXT NOT NULL,
		added    INTEGER NOT NULL,
		provided INTEGER NOT NULL DEFAULT 0
	);
	CREATE TABLE storage_blocks (
		root  INTEGER NOT NULL REFERENCES storage_roots(id),
		block BLOB NOT NULL,
		PRIMARY KEY (root, block)
	) WITHOUT ROWID;
	CREATE INDEX storage_blocks_by_block ON storage_blocks(block);
	CREATE TABLE storage_pins (
		root  INTEGER NOT NULL REFERENCES storage_roots(id),
		owner TEXT NOT NULL,
		until INTEGER NOT NULL,
		PRIMARY KEY (root, owner)
	) WITHOUT ROWID;
	CREATE INDEX storage_pins_by_owner ON storage_pins(owner);`,
}

// migrate brings the store's own tables up to date; the database is shared.
func migrate(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS storage_schema (version INTEGER NOT NULL)`); err != nil {
		return fmt.Errorf("make storage tables: %w", err)
	}
	return inTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		var v int
		if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM storage_schema`).Scan(&v); err != nil {
			return fmt.Errorf("read storage tables' version: %w", err)
		}
		if v > len(migrations) {
			return fmt.Errorf("storage tables have version %d, this program knows %d: run a newer one", v, len(migrations))
		}
		for ; v < len(migrations); v++ {
			if _, err := tx.ExecContext(ctx, migrations[v]); err != nil {
				return fmt.Errorf("migrate storage tables to version %d: %w", v+1, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO storage_schema (version) VALUES (?)`, v+1); err != nil {
				return fmt.Errorf("migrate storage tables to version %d: %w", v+1, err)
			}
		}
		return nil
	})
}

// inTx commits what f did, or nothing. f must not use the database otherwise:
// the pool may hold a single connection.
func inTx(ctx context.Context, db *sql.DB, f func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := f(ctx, tx); err != nil {
		// The first error tells more than a failed rollback would.
		_ = tx.Rollback()
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
