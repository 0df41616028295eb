package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

const (
	insertTask    = `INSERT INTO tasks (job, idx, body) VALUES (?,?,?)`
	insertLease   = `INSERT OR IGNORE INTO leases (job, lease, term, worker, stage, body, at) SELECT id, ?, term, ?, ?, ?, ? FROM jobs WHERE id = ?`
	insertAttempt = `INSERT OR REPLACE INTO attempts (job, stage, idx, lease, replica, worker, reason, detail, output, size, folder) VALUES (?,?,?,?,?,?,?,?,?,?,?)`
	insertCommit  = `INSERT OR IGNORE INTO commitments (job, stage, idx, lease, replica, worker, hash, at) VALUES (?,?,?,?,?,?,?,?)`
	insertBatch   = `INSERT OR IGNORE INTO batches (hash, sealed, at) VALUES (?,?,?)`
	insertReceipt = `INSERT OR IGNORE INTO receipts (job, stage, idx, lease, replica, worker, body, batch, at) VALUES (?,?,?,?,?,?,?,?,?)`
	insertVerdict = `INSERT OR REPLACE INTO verdicts (job, stage, idx, lease, replica, status, reason, at, related) VALUES (?,?,?,?,?,?,?,?,?)`
	insertResult  = `INSERT OR IGNORE INTO results (job, stage, idx, output, size, workers, folder, related) VALUES (?,?,?,?,?,?,?,?)`
	addTally      = `INSERT INTO tallies (peer, accepted, rejected, at) VALUES (?,?,?,?) ON CONFLICT (peer) DO UPDATE SET accepted = accepted + excluded.accepted, rejected = rejected + excluded.rejected, at = excluded.at`
	insertOwed    = `INSERT OR REPLACE INTO owed (job, stage, idx, lease, replica, origin, body, until, nonce) VALUES (?,?,?,?,?,?,?,?,?)`
	insertSaid    = `INSERT INTO said (origin, sealed, at) VALUES (?,?,?)`
	insertSaidJob = `INSERT OR IGNORE INTO said_jobs (job, id) VALUES (?,?)`
	deleteOwed    = `DELETE FROM owed WHERE job = ? AND stage = ? AND idx = ? AND lease = ? AND replica = ?`
)

var prepared = []string{insertTask, insertLease, insertAttempt, insertCommit, insertBatch, insertReceipt, insertVerdict, insertResult, addTally, insertOwed, deleteOwed, insertSaid, insertSaidJob}

// AddJob keeps a job that is new; added is false, and nothing changes, when one
// of that ID is kept already.
func (s *State) AddJob(ctx context.Context, r wire.JobRecord) (added bool, err error) {
	name := CommitSubmit
	if r.Published {
		name = CommitAdopt
	}
	err = s.write(ctx, name, func(ctx context.Context, tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO jobs (id, submission, name, submitter, published, created, retention, term, yielded,
			forgotten, state, reason, detail, output, size, tasks, finished) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
			r.ID, r.Submission, r.Name, r.Submitter, r.Published, millis(r.Created), int64(r.Retention), r.Term, r.Yielded,
			r.Forgotten, r.State, r.Reason, r.Detail, r.Output, r.Size, r.Tasks, millis(r.Finished))
		if err != nil {
			return fmt.Errorf("state: add job %s: %w", r.ID, err)
		}
		n, err := res.RowsAffected()
		added = n == 1
		return err
	})
	return added && err == nil, err
}

const jobColumns = `id, name, submitter, published, created, retention, term, yielded, forgotten, state, reason, detail, output, size, tasks, finished`

func scanJob(scan func(...any) error, more ...any) (r wire.JobRecord, err error) {
	var created, retention, finished int64
	err = scan(append([]any{&r.ID, &r.Name, &r.Submitter, &r.Published, &created, &retention, &r.Term, &r.Yielded, &r.Forgotten,
		&r.State, &r.Reason, &r.Detail, &r.Output, &r.Size, &r.Tasks, &finished}, more...)...)
	r.Created, r.Finished, r.Retention = fromMillis(created), fromMillis(finished), time.Duration(retention)
	return r, err
}

// Jobs lists every job that is kept, newest first, without its submission.
func (s *State) Jobs(ctx context.Context) ([]wire.JobRecord, error) {
	return query(ctx, s, `SELECT `+jobColumns+` FROM jobs ORDER BY created DESC, id`, nil, func(rows *sql.Rows) (wire.JobRecord, error) {
		return scanJob(rows.Scan)
	})
}

// Job gives one job with its submission, or wire.ErrNoJob, an ErrNotFound.
func (s *State) Job(ctx context.Context, id tasks.JobID) (wire.JobRecord, error) {
	var submission []byte
	r, err := scanJob(s.db.QueryRowContext(ctx, `SELECT `+jobColumns+`, submission FROM jobs WHERE id = ?`, id).Scan, &submission)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("job %s: %w: %w", id, ErrNotFound, wire.ErrNoJob)
	}
	if err != nil {
		return r, fmt.Errorf("state: job %s: %w", id, err)
	}
	r.Submission = submission
	return r, nil
}

// Apply makes a change durable: all of it or, with an error, nothing. A result
// of a task that has one is ErrConflict.
func (s *State) Apply(ctx context.Context, c wire.Change) error {
	if c.Empty() {
		return nil
	}
	a, err := encodeChange(c)
	if err != nil {
		return err
	}
	return s.write(ctx, commitOf(c), func(ctx context.Context, tx *sql.Tx) error {
		if err := s.apply(ctx, tx, c, a); err != nil {
			return fmt.Errorf("state: job %s: %w", c.Job, err)
		}
		return nil
	})
}

// encoded holds a change's bodies, made before the transaction begins.
type encoded struct{ tasks, grants, receipts [][]byte }

func encodeChange(c wire.Change) (a encoded, err error) {
	for _, t := range c.Split {
		b, err := wire.MarshalTask(t)
		if err != nil {
			return a, fmt.Errorf("state: task %d: %w", t.Ref.Index, err)
		}
		a.tasks = append(a.tasks, b)
	}
	for _, g := range c.Grants {
		b, err := wire.MarshalGrant(g)
		if err != nil {
			return a, fmt.Errorf("state: lease %s: %w", g.Lease, err)
		}
		a.grants = append(a.grants, b)
	}
	for _, r := range c.Receipts {
		body := r.Receipt
		body.Inline = nil // the signed batch has it
		b, err := wire.MarshalReceipt(body)
		if err != nil {
			return a, fmt.Errorf("state: receipt of lease %s: %w", body.Lease, err)
		}
		a.receipts = append(a.receipts, b)
	}
	return a, nil
}

func (s *State) apply(ctx context.Context, tx *sql.Tx, c wire.Change, a encoded) error {
	if err := s.applyJob(ctx, tx, c); err != nil {
		return err
	}
	at := millis(c.At)
	for i, t := range c.Split {
		if _, err := s.exec(ctx, tx, insertTask, c.Job, t.Ref.Index, a.tasks[i]); err != nil {
			return fmt.Errorf("task %d: %w", t.Ref.Index, err)
		}
	}
	for i, g := range c.Grants {
		if _, err := s.exec(ctx, tx, insertLease, g.Lease, g.Worker, g.Stage, a.grants[i], at, c.Job); err != nil {
			return fmt.Errorf("lease %s: %w", g.Lease, err)
		}
	}
	for _, t := range c.Attempts {
		if _, err := s.exec(ctx, tx, insertAttempt, c.Job, t.Ref.Stage, t.Ref.Index, t.Lease, t.Replica, t.Worker, t.Reason, t.Detail, t.Output, t.Size, t.Folder); err != nil {
			return fmt.Errorf("attempt: %w", err)
		}
	}
	for _, k := range c.Commits {
		if _, err := s.exec(ctx, tx, insertCommit, c.Job, k.Ref.Stage, k.Ref.Index, k.Lease, k.Replica, k.Worker, k.Hash[:], at); err != nil {
			return fmt.Errorf("commitment: %w", err)
		}
	}
	var last *wire.SignedBatch
	for i, r := range c.Receipts {
		if r.Batch != last {
			if _, err := s.exec(ctx, tx, insertBatch, r.Batch.Hash[:], r.Batch.Sealed, at); err != nil {
				return fmt.Errorf("receipts: %w", err)
			}
			last = r.Batch
		}
		t := r.Receipt
		if _, err := s.exec(ctx, tx, insertReceipt, c.Job, t.Ref.Stage, t.Ref.Index, t.Lease, t.Replica, t.Worker, a.receipts[i], r.Batch.Hash[:], at); err != nil {
			return fmt.Errorf("receipt: %w", err)
		}
	}
	for _, v := range c.Verdicts {
		if _, err := s.exec(ctx, tx, insertVerdict, c.Job, v.Ref.Stage, v.Ref.Index, v.Lease, v.Replica, v.Status, v.Reason, at, v.Related); err != nil {
			return fmt.Errorf("verdict: %w", err)
		}
	}
	for _, r := range c.Results {
		if err := changedOne(s.exec(ctx, tx, insertResult, c.Job, r.Ref.Stage, r.Ref.Index, r.Output, r.Size, joinPeers(r.Workers), r.Folder, r.Related)); err != nil {
			return fmt.Errorf("result of task %d of stage %d: %w", r.Ref.Index, r.Ref.Stage, err)
		}
	}
	for p, t := range c.Tallies {
		if _, err := s.exec(ctx, tx, addTally, p, t.Accepted, t.Rejected, at); err != nil {
			return fmt.Errorf("tally: %w", err)
		}
	}
	return nil
}

// applyJob writes what a change says of the job as a whole.
func (s *State) applyJob(ctx context.Context, tx *sql.Tx, c wire.Change) error {
	set := func(q string, args ...any) error {
		n, err := rowsChanged(tx.ExecContext(ctx, q, args...))
		if err == nil && n == 0 {
			return ErrNotFound
		}
		return err
	}
	if c.Term > 0 || c.Yielded > 0 || c.Forgotten {
		if err := set(`UPDATE jobs SET term = max(term, ?), yielded = max(yielded, ?), forgotten = forgotten OR ? WHERE id = ?`,
			c.Term, c.Yielded, c.Forgotten, c.Job); err != nil {
			return err
		}
	}
	if c.Split != nil {
		if err := changedOne(tx.ExecContext(ctx, `UPDATE jobs SET tasks = ?, state = ? WHERE id = ? AND tasks = 0`, len(c.Split), tasks.Running, c.Job)); err != nil {
			return fmt.Errorf("split: %w", err)
		}
	}
	if f := c.Finish; f != nil {
		return set(`UPDATE jobs SET state = ?, reason = ?, detail = ?, output = ?, size = ?, finished = ? WHERE id = ?`,
			f.State, f.Reason, f.Detail, f.Output, f.Size, millis(c.At), c.Job)
	}
	return nil
}

// Records gives all that RestoreOrigin needs of a job at a term.
func (s *State) Records(ctx context.Context, id tasks.JobID, term uint64) (tasks.Records, error) {
	var r tasks.Records
	job, err := s.Job(ctx, id)
	if err != nil {
		return r, err
	}
	if job.State.Over() {
		r.Finish = &tasks.Finish{State: job.State, Reason: job.Reason, Detail: job.Detail, Output: job.Output, Size: job.Size}
	}
	if r.Tasks, err = query(ctx, s, `SELECT body FROM tasks WHERE job = ? ORDER BY idx`, []any{id}, func(rows *sql.Rows) (tasks.Task, error) {
		var b sql.RawBytes
		if err := rows.Scan(&b); err != nil {
			return tasks.Task{}, err
		}
		return wire.UnmarshalTask(b)
	}); err != nil {
		return r, err
	}
	if r.Results, err = query(ctx, s, `SELECT stage, idx, output, size, workers, folder, related FROM results WHERE job = ? ORDER BY stage, idx`, []any{id}, func(rows *sql.Rows) (t tasks.Result, err error) {
		var workers string
		err = rows.Scan(&t.Ref.Stage, &t.Ref.Index, &t.Output, &t.Size, &workers, &t.Folder, &t.Related)
		t.Workers = splitPeers(workers)
		return t, err
	}); err != nil {
		return r, err
	}
	if r.Attempts, err = query(ctx, s, `SELECT stage, idx, lease, replica, worker, reason, detail, output, size, folder FROM attempts WHERE job = ? ORDER BY stage, idx`, []any{id}, func(rows *sql.Rows) (t tasks.Attempt, err error) {
		return t, rows.Scan(&t.Ref.Stage, &t.Ref.Index, &t.Lease, &t.Replica, &t.Worker, &t.Reason, &t.Detail, &t.Output, &t.Size, &t.Folder)
	}); err != nil {
		return r, err
	}
	if r.Commitments, err = query(ctx, s, `SELECT stage, idx, lease, replica, worker, hash FROM commitments WHERE job = ? ORDER BY stage, idx, at`, []any{id}, func(rows *sql.Rows) (tasks.Commitment, error) {
		k := tasks.Commitment{Job: id}
		var hash sql.RawBytes
		err := rows.Scan(&k.Ref.Stage, &k.Ref.Index, &k.Lease, &k.Replica, &k.Worker, &hash)
		if copy(k.Hash[:], hash); err == nil && len(hash) != len(k.Hash) {
			err = fmt.Errorf("commitment of %d bytes", len(hash))
		}
		return k, err
	}); err != nil {
		return r, err
	}
	r.Grants, err = query(ctx, s, `SELECT lease, worker, stage, body FROM leases WHERE job = ? AND term = ? ORDER BY at, lease`, []any{id, term}, func(rows *sql.Rows) (g tasks.GrantRecord, err error) {
		var b sql.RawBytes
		if err := rows.Scan(&g.Lease, &g.Worker, &g.Stage, &b); err != nil {
			return g, err
		}
		return wire.UnmarshalGrant(g, b)
	})
	return r, err
}

// Logs gives the tries of one task by their receipts, oldest first.
func (s *State) Logs(ctx context.Context, id tasks.JobID, ref tasks.Ref) ([]wire.LogRecord, error) {
	return query(ctx, s, `SELECT r.body, r.at, coalesce(v.status, 0), coalesce(v.reason, 0) FROM receipts r LEFT JOIN verdicts v
		ON v.job = r.job AND v.stage = r.stage AND v.idx = r.idx AND v.lease = r.lease AND v.replica = r.replica
		WHERE r.job = ? AND r.stage = ? AND r.idx = ? ORDER BY r.at, r.lease, r.replica`, []any{id, ref.Stage, ref.Index}, func(rows *sql.Rows) (l wire.LogRecord, err error) {
		var body sql.RawBytes
		var at int64
		if err := rows.Scan(&body, &at, &l.Status, &l.Verdict); err != nil {
			return l, err
		}
		l.At = fromMillis(at)
		l.Receipt, err = wire.UnmarshalReceipt(body)
		return l, err
	})
}

// RemoveJob forgets a job and all that came of it but its peers' tallies.
func (s *State) RemoveJob(ctx context.Context, id tasks.JobID) error {
	return s.write(ctx, CommitRemove, func(ctx context.Context, tx *sql.Tx) error {
		for _, q := range []string{
			`DELETE FROM batches WHERE hash IN (SELECT batch FROM receipts WHERE job = ?1) AND hash NOT IN (SELECT batch FROM receipts WHERE job <> ?1)`,
			`DELETE FROM receipts WHERE job = ?`, `DELETE FROM verdicts WHERE job = ?`, `DELETE FROM results WHERE job = ?`, `DELETE FROM attempts WHERE job = ?`, `DELETE FROM commitments WHERE job = ?`,
			`DELETE FROM leases WHERE job = ?`, `DELETE FROM tasks WHERE job = ?`, `DELETE FROM jobs WHERE id = ?`,
		} {
			if _, err := tx.ExecContext(ctx, q, id); err != nil {
				return fmt.Errorf("state: remove job %s: %w", id, err)
			}
		}
		return nil
	})
}

// Tallies gives what became of every peer's receipts.
func (s *State) Tallies(ctx context.Context) (map[tasks.PeerID]wire.Tally, error) {
	type row struct {
		peer  tasks.PeerID
		tally wire.Tally
	}
	rows, err := query(ctx, s, `SELECT peer, accepted, rejected FROM tallies`, nil, func(rows *sql.Rows) (r row, err error) {
		return r, rows.Scan(&r.peer, &r.tally.Accepted, &r.tally.Rejected)
	})
	out := make(map[tasks.PeerID]wire.Tally, len(rows))
	for _, r := range rows {
		out[r.peer] = r.tally
	}
	return out, err
}

// TrimTallies forgets peers that did nothing since a time, and when there are more
// than most, those that did nothing for longest. It gives who is forgotten.
func (s *State) TrimTallies(ctx context.Context, before time.Time, most int) (gone []tasks.PeerID, err error) {
	gone, err = query(ctx, s, `SELECT peer FROM (SELECT peer, at, row_number() OVER (ORDER BY at DESC, peer) AS nth FROM tallies) WHERE at < ? OR nth > ?`,
		[]any{millis(before), most}, func(rows *sql.Rows) (p tasks.PeerID, err error) { return p, rows.Scan(&p) })
	if err != nil || len(gone) == 0 {
		return nil, err
	}
	return gone, s.write(ctx, CommitRemove, func(ctx context.Context, tx *sql.Tx) error {
		for _, p := range gone {
			if _, err := tx.ExecContext(ctx, `DELETE FROM tallies WHERE peer = ?`, p); err != nil {
				return fmt.Errorf("state: trim tallies: %w", err)
			}
		}
		return nil
	})
}

func joinPeers(ps []tasks.PeerID) string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = string(p)
	}
	return strings.Join(texts, " ")
}

func splitPeers(s string) []tasks.PeerID {
	var ps []tasks.PeerID
	for f := range strings.FieldsSeq(s) {
		ps = append(ps, tasks.PeerID(f))
	}
	return ps
}

// VerdictOn gives the verdict on a receipt, when there is one.
func (s *State) VerdictOn(ctx context.Context, k wire.ReceiptKey) (v tasks.Verdict, found bool, err error) {
	v = tasks.Verdict{Job: k.Job, Ref: k.Ref, Replica: k.Replica, Lease: k.Lease, Worker: k.Worker}
	err = s.db.QueryRowContext(ctx, `SELECT v.status, v.reason, v.related FROM verdicts v JOIN leases l ON l.job = v.job AND l.lease = v.lease
		WHERE v.job = ? AND v.stage = ? AND v.idx = ? AND v.lease = ? AND v.replica = ? AND l.worker = ?`,
		k.Job, k.Ref.Stage, k.Ref.Index, k.Lease, k.Replica, k.Worker).Scan(&v.Status, &v.Reason, &v.Related)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return v, false, nil
	case err != nil:
		return v, false, fmt.Errorf("state: verdict: %w", err)
	}
	return v, true, nil
}
