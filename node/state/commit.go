package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// maxBatch bounds one transaction, so that no caller waits long for others.
const maxBatch = 512

// write is one caller's part of a transaction.
type write struct {
	do   func(ctx context.Context, tx *sql.Tx) error
	err  error
	done chan struct{} // closed by the committer when err is final
	lead chan struct{} // sent to when this caller must commit what waits
}

// write runs do inside a transaction that it may share with other callers, and
// returns when that transaction is durable. An error of do undoes do alone.
// There is no goroutine for it: the first caller commits for all who came
// meanwhile, then hands on. A write that was begun is not cancelled: what one
// caller asks for must not undo the others.
func (s *State) write(ctx context.Context, c Commit, do func(ctx context.Context, tx *sql.Tx) error) error {
	return s.around(c, func() error { return s.Join(ctx, do) })
}

// Join runs do inside such a transaction, for packages that keep tables of their
// own in the database.
func (s *State) Join(ctx context.Context, do func(ctx context.Context, tx *sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &write{do: do, done: make(chan struct{}), lead: make(chan struct{}, 1)}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.writers.Add(1)
	defer s.writers.Done()
	s.queue = append(s.queue, w)
	follow := s.leading
	s.leading = true
	s.mu.Unlock()
	if follow {
		select {
		case <-w.done:
			return w.err
		case <-w.lead:
		}
	}
	s.lead()
	return w.err
}

// lead commits the oldest of the writes that wait, the caller's among them, and
// passes the lead to the first that is left.
func (s *State) lead() {
	s.mu.Lock()
	n := min(len(s.queue), maxBatch)
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	s.mu.Unlock()

	if err := s.commit(batch); err != nil {
		err = s.asFull(err)
		for _, w := range batch {
			if w.err = s.asFull(w.err); errors.Is(w.err, ErrFull) && !errors.Is(err, ErrFull) {
				err = errors.Join(w.err, err) // it undid them all
			}
		}
		for _, w := range batch {
			if w.err == nil {
				w.err = err
			}
		}
	} else {
		for _, w := range batch {
			w.err = s.asFull(w.err)
		}
	}

	s.mu.Lock()
	if len(s.queue) > 0 {
		s.queue[0].lead <- struct{}{}
	} else {
		s.queue, s.leading = nil, false
	}
	s.mu.Unlock()
	for _, w := range batch {
		close(w.done)
	}
}

// commit runs a batch in one transaction. Its own error is one of the
// transaction; what a single write failed with is left in the write.
func (s *State) commit(batch []*write) error {
	ctx := context.Background() // one that can be cancelled costs a goroutine a statement
	defer func() { s.bound = bound{} }()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("state: begin: %w", err)
	}
	if len(batch) == 1 {
		if batch[0].err = batch[0].do(ctx, tx); batch[0].err != nil {
			return rollback(tx)
		}
	} else {
		for _, w := range batch {
			if err := savepoint(ctx, tx, w); err != nil {
				return errors.Join(err, rollback(tx))
			}
		}
	}
	if err := s.around(CommitTransaction, tx.Commit); err != nil {
		return errors.Join(fmt.Errorf("state: commit: %w", err), rollback(tx))
	}
	return rollback(tx) // of nothing, unless a test left the commit out
}

// savepoint runs a write so that its failure undoes it alone. An error means
// that SQLite gave up the whole transaction.
func savepoint(ctx context.Context, tx *sql.Tx, w *write) error {
	if _, err := tx.ExecContext(ctx, "SAVEPOINT w"); err != nil {
		return fmt.Errorf("state: savepoint: %w", err)
	}
	if w.err = w.do(ctx, tx); w.err != nil {
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO w"); err != nil {
			return fmt.Errorf("state: rollback: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, "RELEASE w"); err != nil {
		return fmt.Errorf("state: release: %w", err)
	}
	return nil
}

func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("state: rollback: %w", err)
	}
	return nil
}
