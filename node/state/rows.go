package state

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// query reads all rows before it returns: an in-memory database has one
// connection, which open rows would keep.
func query[T any](ctx context.Context, s *State, q string, args []any, scan func(*sql.Rows) (T, error)) (out []T, err error) {
	rows, err := s.db.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	defer func() {
		if cerr := rows.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("state: %w", cerr)
		}
	}()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return out, nil
}

func rowsChanged(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// changedOne turns a write that met an older one into ErrConflict.
func changedOne(res sql.Result, err error) error {
	n, err := rowsChanged(res, err)
	if err == nil && n == 0 {
		return ErrConflict
	}
	return err
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
