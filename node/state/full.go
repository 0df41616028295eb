package state

import (
	"errors"
	"fmt"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrFull means that there is no room to make anything durable. Nothing was
// written; the same write works once the disk has room again.
var ErrFull = errors.New("the disk is full")

// asFull wraps an error that has no other cause than a full disk. SQLite says
// FULL itself where write fails with ENOSPC. It says IOERR for a quota, and where
// a flush, a truncation or its shared memory lacks room: there a file next to the
// database tells.
func (s *State) asFull(err error) error {
	var e *sqlite.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	switch code := e.Code(); {
	case code&0xff == sqlite3.SQLITE_FULL:
	case s.dir != "" && (code&0xff == sqlite3.SQLITE_IOERR || code&0xff == sqlite3.SQLITE_CANTOPEN) && noRoom(tryWrite(s.dir)):
	default:
		return err
	}
	return fmt.Errorf("%w: %w", ErrFull, err)
}

// tryWrite writes and flushes a small file.
func tryWrite(dir string) (err error) {
	f, err := os.CreateTemp(dir, ".room-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(make([]byte, 64<<10))
	return errors.Join(err, f.Sync(), f.Close())
}
