package state

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrDamaged means that the database's files are not what was written. Nothing
// is read from them or written to them.
var ErrDamaged = errors.New("the database is damaged")

// damaged names the file and what to do.
func damaged(path, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s; put a copy of %s with its -wal in its place, or move both away to begin with an empty one: the identity and the blocks stay, jobs and pins are lost",
		ErrDamaged, path, fmt.Sprintf(format, args...), path)
}

// check reads the whole structure of the database, but not what the rows say: its
// time goes with the file's size.
func check(db *sql.DB) error {
	var word string
	if err := db.QueryRow("PRAGMA quick_check(1)").Scan(&word); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if word != "ok" {
		return errStructure(word)
	}
	return nil
}

// errStructure is what SQLite found.
type errStructure string

func (e errStructure) Error() string { return strings.ReplaceAll(string(e), "\n", " ") }

// asDamaged wraps what SQLite says of files that are not its own any more.
func asDamaged(path string, err error) error {
	var e *sqlite.Error
	var found errStructure
	if errors.As(err, &found) || errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB) {
		return damaged(path, "%v", err)
	}
	return err
}

// SQLite's write-ahead log: https://sqlite.org/fileformat2.html#the_write_ahead_log
const (
	walHeader = 32
	walFrame  = 24
	walMagic  = 0x377f0682 // the last bit: checksums are big endian
)

// checkLog looks for damage in the write-ahead log that SQLite would pass over: it
// takes the first frame that is wrong for the end, as after a power cut, where what
// is lost was never acknowledged. Each commit is flushed before the next begins, so
// a power cut leaves one commit at most behind the first wrong frame.
func checkLog(path string) error {
	log := path + "-wal"
	b, err := os.ReadFile(log)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) <= walHeader {
		return checkLength(path)
	}
	if err != nil {
		return err
	}
	magic := binary.BigEndian.Uint32(b)
	var order binary.ByteOrder = binary.LittleEndian
	if magic&1 == 1 {
		order = binary.BigEndian
	}
	s1, s2 := sum(order, b[:24], 0, 0)
	if magic&^1 != walMagic || s1 != binary.BigEndian.Uint32(b[24:]) || s2 != binary.BigEndian.Uint32(b[28:]) {
		return damaged(path, "the head of %s is wrong", log)
	}
	size := walFrame + int(binary.BigEndian.Uint32(b[8:]))
	good, commits, first := true, 0, 0
	for at := walHeader; at+size <= len(b); at += size {
		f := b[at : at+size]
		if string(f[8:16]) != string(b[16:24]) { // of an earlier use of the file, unless more of this one follows
			if good {
				good, first = false, at
			}
			continue
		}
		if good {
			s1, s2 = sum(order, f[:8], s1, s2)
			s1, s2 = sum(order, f[walFrame:], s1, s2)
			if good = s1 == binary.BigEndian.Uint32(f[16:]) && s2 == binary.BigEndian.Uint32(f[20:]); !good {
				first = at
			}
		}
		if !good && at > first && !follows(order, b[at-size:at], f) {
			commits = 0 // left by writes that failed, which later ones began to overwrite
		}
		if !good && binary.BigEndian.Uint32(f[4:]) != 0 {
			if commits++; commits > 1 {
				return damaged(path, "%s is wrong at byte %d, before what was committed later", log, first)
			}
		}
	}
	return nil
}

// follows reports whether a frame was written after the one before it.
func follows(order binary.ByteOrder, before, f []byte) bool {
	s1, s2 := sum(order, f[:8], binary.BigEndian.Uint32(before[16:]), binary.BigEndian.Uint32(before[20:]))
	s1, s2 = sum(order, f[walFrame:], s1, s2)
	return s1 == binary.BigEndian.Uint32(f[16:]) && s2 == binary.BigEndian.Uint32(f[20:])
}

// checkLength looks whether the database ends before its last page. While there is
// a log, that page may be there.
func checkLength(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 { // a new one
		return err
	}
	head := make([]byte, 100)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if info.Size() >= int64(len(head)) && string(head[:16]) != "SQLite format 3\x00" {
		return nil // SQLite itself says that it is none
	}
	page := int64(binary.BigEndian.Uint16(head[16:]))
	if page == 1 {
		page = 64 << 10
	}
	if want := max(page, 512) * max(int64(binary.BigEndian.Uint32(head[28:])), 1); info.Size() < want {
		return damaged(path, "it ends after %d bytes of %d", info.Size(), want)
	}
	return nil
}

// sum is the log's running checksum over whole pairs of words.
func sum(order binary.ByteOrder, b []byte, s1, s2 uint32) (uint32, uint32) {
	for ; len(b) >= 8; b = b[8:] {
		s1 += order.Uint32(b) + s2
		s2 += order.Uint32(b[4:]) + s1
	}
	return s1, s2
}
