package runner

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Parent and child speak in frames: a kind, a little-endian length, a payload.
// The parent sends load, its module, then for each task one task frame, its
// stdin and end; end comes always, and the child skips to it when the program
// left input unread. The child answers hello at start, ready to load, and per
// task any number of out and log frames, one file frame per thing in /out, done.
const (
	frameLoad   byte = 'L' // loadMessage
	frameModule byte = 'M' // a piece of the module
	frameTask   byte = 'T' // taskMessage
	frameStdin  byte = 'I'
	frameEnd    byte = 'E'
	frameHello  byte = 'H' // helloMessage
	frameReady  byte = 'R' // readyMessage
	frameOut    byte = 'O'
	frameLog    byte = 'X'
	frameFile   byte = 'F' // fileMessage
	frameDone   byte = 'D' // doneMessage
)

// Bounds of the protocol and of what a program may ask for.
const (
	maxFrame   = 4 << 20
	pieceBytes = 256 << 10
	maxLog     = 1 << 20
	maxDetail  = 2 << 10
	maxEntries = 10_000 // files and folders in /out
	maxPath    = 4096
	frameHead  = 5
)

type helloMessage struct {
	Pid       int    // of the process to meter: a guard stands between on some systems
	Isolation string // reached at start
}

type loadMessage struct {
	Size     int64 // bytes of the module
	CacheDir string
	Scratch  string            // the child's own folder, for /out
	Inputs   map[string]string // name to host path
	Memory   int64             // limit, bytes
	CPU      time.Duration     // hard limit of the process's whole life; 0: none
	Sandbox  bool
}

type readyMessage struct {
	Reason    uint32 // tasks.OK, or why the program can't run
	Detail    string
	Isolation string
}

type taskMessage struct {
	Args   []string
	Env    []string // name=value, sorted
	Seed   []byte   // 32 bytes; none: nondeterministic
	Output int64    // limit, bytes
	Out    bool     // mount /out
}

type fileMessage struct {
	Path string
	Dir  bool
	Size int64
	Name string // of the file in Scratch
}

type doneMessage struct {
	Reason uint32
	Detail string
	Code   uint32
	Memory int64 // linear memory at the peak
	Input  int64 // bytes of stdin read
	Log    []byte
}

// writeFrame writes one frame in at most two writes.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	var head [frameHead]byte
	head[0] = kind
	binary.LittleEndian.PutUint32(head[1:], uint32(len(payload)))
	if len(payload) <= 4096-frameHead {
		_, err := w.Write(append(head[:], payload...))
		return err
	}
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

func writeMessage(w io.Writer, kind byte, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return fmt.Errorf("frame %q of %d bytes: at most %d fit", kind, len(b), maxFrame)
	}
	return writeFrame(w, kind, b)
}

// frameReader reads frames. A payload is good until the next one is read.
type frameReader struct {
	r   io.Reader
	buf []byte
}

func (f *frameReader) next() (kind byte, payload []byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame %q of %d bytes: at most %d may come", head[0], n, maxFrame)
	}
	if cap(f.buf) < int(n) {
		f.buf = make([]byte, max(int(n), pieceBytes))
	}
	payload = f.buf[:n]
	if _, err := io.ReadFull(f.r, payload); err != nil {
		return 0, nil, fmt.Errorf("frame %q of %d bytes: %w", head[0], n, noEOF(err))
	}
	return head[0], payload, nil
}

// message reads a frame that must be of one kind.
func (f *frameReader) message(kind byte, into any) error {
	got, payload, err := f.next()
	if err != nil {
		return err
	}
	if got != kind {
		return fmt.Errorf("frame %q came where %q was due", got, kind)
	}
	return json.Unmarshal(payload, into)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
