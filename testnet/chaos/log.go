package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Entry is one line of a client's log. Only a client writes it: before it asks
// for something, and when it was told something.
type Entry struct {
	Op   Op     `json:"op"`
	Node string `json:"node,omitempty"`
	Key  string `json:"key,omitempty"` // the client's own name for what it wants
	Want *Want  `json:"want,omitempty"`
	Job  string `json:"job,omitempty"`
	CID  string `json:"cid,omitempty"`

	State  string `json:"state,omitempty"`
	Origin string `json:"origin,omitempty"` // of an answer to a published job
	Term   uint64 `json:"term,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Sum    string `json:"sum,omitempty"`  // SHA-256 of content
	Data   []byte `json:"data,omitempty"` // content, when small
	Tasks  []Task `json:"tasks,omitempty"`
	Text   string `json:"text,omitempty"`
}

// Op says what an entry tells.
type Op string

// The entries.
const (
	Intent   Op = "intent"   // the client is about to ask for Want under Key
	Acked    Op = "acked"    // the node said yes: Job, CID or Text is its word
	Failed   Op = "failed"   // the call failed; it may have worked
	Seen     Op = "seen"     // a job as it was shown
	Gone     Op = "gone"     // what was acknowledged is not known to the node
	Bytes    Op = "bytes"    // content that was read
	NoBytes  Op = "no-bytes" // content could not be read within patience: Text
	Tried    Op = "tried"    // a job's tasks as they were shown
	Swept    Op = "swept"    // what was let go of, after a collection: State is here if it is
	Listed   Op = "listed"   // an invite as it is listed, with its state
	Setting  Op = "setting"  // what policy says: State
	Finished Op = "finished" // the client ended, with nothing open
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
	Sleep     int  `json:"sleep,omitempty"` // ms a task
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
	if _, err := f.WriteString("\n"); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &Log{f: f}, entries, nil
}

// Append writes entries durably.
func (l *Log) Append(entries ...Entry) error {
	var b []byte
	for _, e := range entries {
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

// ReadLog reads a log. Lines that a kill cut are left out: what they would have
// said was not relied on.
func ReadLog(path string) (out []Entry, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewScanner(f)
	r.Buffer(nil, 16<<20)
	for r.Scan() {
		line := bytes.TrimSpace(r.Bytes())
		if len(line) == 0 {
			continue
		}
		var e Entry
		if json.Unmarshal(line, &e) == nil {
			out = append(out, e)
		}
	}
	if err := r.Err(); err != nil {
		return out, fmt.Errorf("read %s: %w", path, err)
	}
	return out, nil
}
