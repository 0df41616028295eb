package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Entry is one line of a client's log. Only a client writes it: before it asks
// for something, and when it was told something. Up and Down alone are ours.
type Entry struct {
	Op   Op     `json:"op"`
	At   int64  `json:"at,omitempty"` // when it was written, Unix milliseconds
	Node string `json:"node,omitempty"`
	Key  string `json:"key,omitempty"` // the client's own name for what it wants
	Want *Want  `json:"want,omitempty"`
	Job  string `json:"job,omitempty"`
	CID  string `json:"cid,omitempty"`

	State  string `json:"state,omitempty"`
	Origin string `json:"origin,omitempty"` // of an answer to a published job
	Term   uint64 `json:"term,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Was    int64  `json:"was,omitempty"`   // bytes on disk before
	Added  int64  `json:"added,omitempty"` // bytes added and let go of since
	Sum    string `json:"sum,omitempty"`   // SHA-256 of content
	Data   []byte `json:"data,omitempty"`  // content, when small
	Tasks  []Task `json:"tasks,omitempty"`
	Text   string `json:"text,omitempty"`
}

// Op says what an entry tells.
type Op string

// The entries.
const (
	Begun    Op = "begun"    // the client was started; a line that was cut may stand before it
	Intent   Op = "intent"   // the client is about to ask for Want under Key
	Acked    Op = "acked"    // the node said yes: Job, CID or Text is its word
	Failed   Op = "failed"   // the call failed; it may have worked
	Seen     Op = "seen"     // a job as it was shown
	Gone     Op = "gone"     // what was acknowledged is not known to the node
	Bytes    Op = "bytes"    // content that was read
	NoBytes  Op = "no-bytes" // content could not be read within patience: Text
	Tried    Op = "tried"    // a job's tasks as they were shown
	Swept    Op = "swept"    // what was let go of, after a collection: State is here if it is
	Room     Op = "room"     // bytes on disk (Size) after Added bytes more than Was were let go of and collected
	Listed   Op = "listed"   // an invite as it is listed, with its state
	Setting  Op = "setting"  // what policy says: State
	Held     Op = "held"     // a published job as a host shows it: State, Origin, Term
	Let      Op = "let"      // a host holds a published job no more
	Given    Op = "given"    // a block of what was let go of: State is yes when another member got it
	Owes     Op = "owes"     // Size answers that a worker has written down and that nobody has judged
	Finished Op = "finished" // the client ended, with nothing open

	Up   Op = "up"   // a node is about to be started
	Down Op = "down" // a node has ended
)

// Want is what a client asks for.
type Want struct {
	Kind      Kind `json:"kind"`
	First     int  `json:"first,omitempty"` // the number of its first task; they follow one another
	Tasks     int  `json:"tasks,omitempty"`
	Random    int  `json:"random,omitempty"` // bytes that each task adds
	Published bool `json:"published,omitempty"`
	Quorum    bool `json:"quorum,omitempty"`
	Reduce    bool `json:"reduce,omitempty"`
	Fails     bool `json:"fails,omitempty"`
	Brief     bool `json:"brief,omitempty"` // kept for a minute only
	Sleep     int  `json:"sleep,omitempty"` // ms a task; a deterministic one's clock only says so
	Spin      int  `json:"spin,omitempty"`  // million turns of a loop a task
}

// Kind is a kind of thing to want.
type Kind string

// The kinds.
const (
	WantJob    Kind = "job"
	WantAdd    Kind = "add"
	WantUnpin  Kind = "unpin"
	WantGC     Kind = "gc"
	WantInvite Kind = "invite"
	WantRevoke Kind = "revoke"
	WantPause  Kind = "pause"
	WantResume Kind = "resume"
	WantJoin   Kind = "join"
)

// Task is a task as the API shows it.
type Task struct {
	Stage  string `json:"s"`
	Index  uint32 `json:"i"`
	Output string `json:"o,omitempty"`
	Tries  []Try  `json:"t,omitempty"`
}

// Try is one assignment of a task.
type Try struct {
	Lease   string `json:"l"`
	Replica uint32 `json:"r"`
	Worker  string `json:"w"`
	State   string `json:"s"`
	Why     uint32 `json:"y,omitempty"` // tasks.Reason
}

// Log is a file of entries, each on disk before the next step.
type Log struct {
	mu sync.Mutex
	f  *os.File
}

// OpenLog opens a log to go on with, and gives what it has.
func OpenLog(path string) (*Log, []Entry, error) {
	entries, err := ReadLog(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	// A line that was cut is no word: it ends here.
	l := &Log{f: f}
	if _, err := f.WriteString("\n"); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	if err := l.Append(Entry{Op: Begun}); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return l, entries, nil
}

// Append writes entries durably.
func (l *Log) Append(entries ...Entry) error {
	var b []byte
	for _, e := range entries {
		e.At = time.Now().UnixMilli()
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.f.Write(b)
	return errors.Join(err, l.f.Sync())
}

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }

// ReadLog reads a log. The line that a kill cut, the last of a client's life, is
// left out: what it would have said was not relied on. Any other that is not an
// entry is an error.
func ReadLog(path string) (out []Entry, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := bytes.Split(b, []byte{'\n'})
	cut := 0 // number of a line that is no entry
	for i, text := range lines {
		if len(text) == 0 {
			continue
		}
		var e Entry
		if err := json.Unmarshal(text, &e); err != nil {
			if cut > 0 {
				return out, fmt.Errorf("read %s: line %d is not an entry: %w", path, i+1, err)
			}
			cut = i + 1
			continue
		}
		if cut > 0 && e.Op != Begun {
			return out, fmt.Errorf("read %s: line %d is not an entry, and the client went on writing after it", path, cut)
		}
		cut = 0
		out = append(out, e)
	}
	if cut > 0 && cut < len(lines) {
		return out, fmt.Errorf("read %s: line %d is not an entry, though it was written to its end", path, cut)
	}
	return out, nil
}
