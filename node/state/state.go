// Package state keeps what a node must not forget: its jobs, leases, receipts,
// verdicts and results, the receipts that it owes, invites, revocations and
// settings. All of it lies in one SQLite database that other packages may share
// through DB, with tables of their own.
//
// Every write returns only when it is durable. Writes of many goroutines are
// joined into one transaction, so that thousands of small ones a second cost a
// few syncs. The package never decides anything: it keeps what it is given.
package state

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the pure Go driver, as "sqlite"
)

// Memory is the path of a database that lives as long as it is open.
const Memory = ":memory:"

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("state: database is closed")
	// ErrNotFound means that nothing of that name is kept.
	ErrNotFound = errors.New("state: not found")
	// ErrConflict means that the thing was decided before; the new word was not
	// written, and nothing that came with it in one call was.
	ErrConflict = errors.New("state: decided before")
)

// State is an open database. Its methods may be called from any goroutine.
type State struct {
	// Around, when not nil, is given each durable step instead of its being run,
	// for tests of crashes. It is set before the first use.
	Around func(c Commit, do func() error) error

	db    *sql.DB
	stmt  statements
	bound bound  // of the transaction that runs; its writer's alone
	dir   string // of the file; empty for Memory

	mu      sync.Mutex
	queue   []*write // waiting for the next transaction
	leading bool     // someone is committing
	closed  bool
	writers sync.WaitGroup // callers inside write
}

// Open opens or makes the database at path, and brings its tables up to date.
// The file is readable by its owner alone. Memory gives one that is never
// written to disk and has a single connection.
func Open(path string) (*State, error) {
	dsn, conns := memoryDSN, 1
	if path != Memory {
		if err := makeFile(path); err != nil {
			return nil, err
		}
		if err := checkLog(path); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		dsn, conns = fileDSN(path), 4
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("state: open %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns) // an in-memory database lives in its connection
	s := &State{db: db}
	if path != Memory {
		s.dir = filepath.Dir(path)
	}
	err = check(db)
	if err == nil {
		err = migrate(db)
	}
	if err == nil {
		err = s.stmt.prepare(db)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state: %s: %w", path, asDamaged(path, s.asFull(err))), db.Close())
	}
	return s, nil
}

const memoryDSN = "file::memory:?_txlock=immediate"

func fileDSN(path string) string {
	q := url.Values{
		"_txlock": {"immediate"}, // a writer that waits beats one that fails half-way
		// Temporary files in memory: a container's root may be read-only, and have no /tmp.
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "temp_store(MEMORY)"},
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// makeFile makes an empty file with mode 0600 where there is none: SQLite gives
// its journal files the mode of the database.
func makeFile(path string) error {
	if strings.TrimSpace(path) == "" {
		return errors.New("state: open: the path is empty; give a file or state.Memory")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("state: open: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("state: open: %w", err)
	}
	return f.Close()
}

// DB returns the database for packages that keep tables of their own in it.
// They must not hold rows open while they ask for something else: an in-memory
// database has one connection. It is closed by Close.
func (s *State) DB() *sql.DB { return s.db }

// Close ends the database. It waits for the writes that were begun.
func (s *State) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.writers.Wait()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("state: close: %w", err)
	}
	return nil
}
