package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// KeepReceipts keeps what this node, as a worker, is owed a verdict on, and
// forgets receipts that have one, or that nobody waits for. The verdicts are kept
// as they were signed.
func (s *State) KeepReceipts(ctx context.Context, rs []wire.OwedReceipt, settled wire.Settled) error {
	bodies := make([][]byte, len(rs))
	for i, r := range rs {
		if bodies[i] = r.Body; r.Body != nil {
			continue
		}
		b, err := wire.MarshalReceipt(r.Receipt)
		if err != nil {
			return fmt.Errorf("state: receipt of lease %s: %w", r.Receipt.Lease, err)
		}
		bodies[i] = b
	}
	step := CommitReceipt
	switch {
	case len(rs) == 0:
		step = CommitSettle
	case slices.ContainsFunc(rs, func(r wire.OwedReceipt) bool { return r.Nonce != nil }):
		step = CommitNonce
	}
	return s.write(ctx, step, func(ctx context.Context, tx *sql.Tx) error {
		for i, r := range rs {
			t := r.Receipt
			if _, err := s.exec(ctx, tx, insertOwed, t.Job, t.Ref.Stage, t.Ref.Index, t.Lease, t.Replica, r.Origin, bodies[i], millis(r.Until), r.Nonce); err != nil {
				return fmt.Errorf("state: keep receipt: %w", err)
			}
		}
		for _, said := range settled.Said {
			if err := s.keepSaid(ctx, tx, said); err != nil {
				return fmt.Errorf("state: keep verdicts: %w", err)
			}
		}
		for _, k := range settled.Keys {
			if _, err := s.exec(ctx, tx, deleteOwed, k.Job, k.Ref.Stage, k.Ref.Index, k.Lease, k.Replica); err != nil {
				return fmt.Errorf("state: settle receipt: %w", err)
			}
		}
		return nil
	})
}

func (s *State) keepSaid(ctx context.Context, tx *sql.Tx, said wire.SaidVerdicts) error {
	res, err := s.exec(ctx, tx, insertSaid, said.Origin, said.Sealed, millis(said.At))
	if err != nil {
		return err
	}
	id, err := res.LastInsertId()
	if err != nil {
		return err
	}
	for _, job := range said.Jobs {
		if _, err := s.exec(ctx, tx, insertSaidJob, job, id); err != nil {
			return err
		}
	}
	return nil
}

// OwedReceipts gives the receipts without a verdict, by job and task.
func (s *State) OwedReceipts(ctx context.Context) ([]wire.OwedReceipt, error) {
	return query(ctx, s, `SELECT origin, body, until, nonce FROM owed ORDER BY job, stage, idx, lease, replica`, nil, func(rows *sql.Rows) (r wire.OwedReceipt, err error) {
		var body sql.RawBytes
		var until int64
		if err := rows.Scan(&r.Origin, &body, &until, &r.Nonce); err != nil {
			return r, err
		}
		if r.Nonce != nil {
			r.Body = slices.Clone(body)
		}
		r.Until = fromMillis(until)
		r.Receipt, err = wire.UnmarshalReceipt(body)
		return r, err
	})
}

// Owed counts the receipts without a verdict.
func (s *State) Owed(ctx context.Context) (n int, err error) {
	if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM owed`).Scan(&n); err != nil {
		return 0, fmt.Errorf("state: count receipts: %w", err)
	}
	return n, nil
}

// SaidVerdicts gives what origins said of this node's work on a job, oldest first.
func (s *State) SaidVerdicts(ctx context.Context, job tasks.JobID) ([]wire.SaidVerdicts, error) {
	return query(ctx, s, `SELECT s.origin, s.sealed, s.at FROM said_jobs j JOIN said s ON s.id = j.id WHERE j.job = ? ORDER BY s.id`, []any{job}, func(rows *sql.Rows) (v wire.SaidVerdicts, err error) {
		var at int64
		err = rows.Scan(&v.Origin, &v.Sealed, &at)
		v.Jobs, v.At = []tasks.JobID{job}, fromMillis(at)
		return v, err
	})
}

// TrimSaid forgets verdicts that were said before a time, and the oldest ones
// when all are more bytes than most.
func (s *State) TrimSaid(ctx context.Context, before time.Time, most int64) error {
	var last sql.NullInt64
	if err := s.db.QueryRowContext(ctx, `SELECT max(id) FROM (SELECT id, at, sum(length(sealed)) OVER (ORDER BY id DESC) AS bytes FROM said) WHERE at < ? OR bytes > ?`,
		millis(before), most).Scan(&last); err != nil {
		return fmt.Errorf("state: trim verdicts: %w", err)
	}
	if !last.Valid {
		return nil
	}
	return s.write(ctx, CommitRemove, func(ctx context.Context, tx *sql.Tx) error {
		for _, q := range []string{`DELETE FROM said_jobs WHERE id <= ?`, `DELETE FROM said WHERE id <= ?`} {
			if _, err := tx.ExecContext(ctx, q, last.Int64); err != nil {
				return fmt.Errorf("state: trim verdicts: %w", err)
			}
		}
		return nil
	})
}

// AddPublished keeps a submission that this node is about to publish.
func (s *State) AddPublished(ctx context.Context, r wire.PublishedRecord) error {
	return s.write(ctx, CommitPublish, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO published (id, submission, name, created, retention) VALUES (?,?,?,?,?)`,
			r.ID, r.Submission, r.Name, millis(r.Created), int64(r.Retention))
		if err != nil {
			return fmt.Errorf("state: publish %s: %w", r.ID, err)
		}
		return nil
	})
}

// AcceptAnswer keeps the one answer to a published job. first is false when
// another was accepted before; that one stays.
func (s *State) AcceptAnswer(ctx context.Context, a tasks.JobAnswer, at time.Time) (first bool, err error) {
	err = s.write(ctx, CommitAccept, func(ctx context.Context, tx *sql.Tx) error {
		err := changedOne(tx.ExecContext(ctx, `INSERT OR IGNORE INTO answers (job, term, origin, state, reason, detail, output, size, at)
			SELECT id, ?, ?, ?, ?, ?, ?, ?, ? FROM published WHERE id = ?`, a.Term, a.Origin, a.State, a.Reason, a.Detail, a.Output, a.Size, millis(at), a.Job))
		switch {
		case errors.Is(err, ErrConflict):
			var n int
			if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM published WHERE id = ?`, a.Job).Scan(&n); err != nil {
				return fmt.Errorf("state: accept answer: %w", err)
			}
			if n == 0 {
				return fmt.Errorf("published job %s: %w", a.Job, ErrNotFound)
			}
			return nil
		case err != nil:
			return fmt.Errorf("state: accept answer: %w", err)
		}
		first = true
		return nil
	})
	return first && err == nil, err
}

// Published lists what this node published, newest first.
func (s *State) Published(ctx context.Context) ([]wire.PublishedRecord, error) {
	return query(ctx, s, `SELECT p.id, p.submission, p.name, p.created, p.retention, a.term, a.origin, a.state, a.reason, a.detail, a.output, a.size, a.at
		FROM published p LEFT JOIN answers a ON a.job = p.id ORDER BY p.created DESC, p.id`, nil, func(rows *sql.Rows) (r wire.PublishedRecord, err error) {
		var created, retention int64
		var term, state, reason, size, at sql.NullInt64
		var origin, detail, output sql.NullString
		if err := rows.Scan(&r.ID, &r.Submission, &r.Name, &created, &retention, &term, &origin, &state, &reason, &detail, &output, &size, &at); err != nil {
			return r, err
		}
		r.Created, r.Retention = fromMillis(created), time.Duration(retention)
		if term.Valid {
			r.Answer = &tasks.JobAnswer{Job: r.ID, Term: uint64(term.Int64), Origin: tasks.PeerID(origin.String), State: tasks.State(state.Int64),
				Reason: tasks.Reason(reason.Int64), Detail: detail.String, Output: tasks.CID(output.String), Size: size.Int64}
			r.Answered = fromMillis(at.Int64)
		}
		return r, nil
	})
}

// RemovePublished forgets a published job and its answer.
func (s *State) RemovePublished(ctx context.Context, id tasks.JobID) error {
	return s.write(ctx, CommitRemove, func(ctx context.Context, tx *sql.Tx) error {
		for _, q := range []string{`DELETE FROM answers WHERE job = ?`, `DELETE FROM published WHERE id = ?`} {
			if _, err := tx.ExecContext(ctx, q, id); err != nil {
				return fmt.Errorf("state: remove published %s: %w", id, err)
			}
		}
		return nil
	})
}
