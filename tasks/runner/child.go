package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kith-mesh/kith/tasks"
)

// ChildArg, as the first argument of our binary, makes it a child: main then
// does nothing but os.Exit(ChildMain(os.Args[2:])).
const ChildArg = "__run"

// guardArg after ChildArg makes it the guard of a child.
const guardArg = "guard"

// ChildMain is the whole life of a child process. It speaks with its parent
// over standard input and output and ends when the parent closes them.
func ChildMain(args []string) int {
	if len(args) == 1 && args[0] == guardArg {
		return guardMain()
	}
	if len(args) != 0 {
		fmt.Fprintf(os.Stderr, "%s is how kith starts its own children; arguments %q mean nothing to it\n", ChildArg, args)
		return 2
	}
	c := childProcess{
		frames: frameReader{r: bufio.NewReaderSize(os.Stdin, 64<<10)},
		out:    bufio.NewWriterSize(os.Stdout, 64<<10),
	}
	if err := c.serve(context.Background()); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "kith child:", err)
		return 1
	}
	return 0
}

// childProcess is the child's end of the conversation. All of it runs in one
// goroutine: a program that spins lets no other run.
type childProcess struct {
	frames frameReader
	out    *bufio.Writer
}

func (c *childProcess) send(kind byte, message any) error {
	if err := writeMessage(c.out, kind, message); err != nil {
		return err
	}
	return c.out.Flush()
}

func (c *childProcess) serve(ctx context.Context) error {
	walls, err := confine()
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	if err := c.send(frameHello, helloMessage{Pid: os.Getpid(), Isolation: walls.String()}); err != nil {
		return err
	}
	var m loadMessage
	if err := c.frames.message(frameLoad, &m); err != nil {
		return err
	}
	module, err := c.module(m.Size)
	if err != nil {
		return err
	}
	g, ready, err := loadGuest(ctx, m, module)
	if err != nil {
		return err
	}
	if m.Sandbox {
		if err := walls.close(m); err != nil {
			return fmt.Errorf("sandbox: %w", err)
		}
	}
	ready.Isolation = walls.String()
	if err := c.send(frameReady, ready); err != nil || g == nil {
		return err
	}
	for {
		var t taskMessage
		if err := c.frames.message(frameTask, &t); err != nil {
			return err
		}
		in := &stdin{frames: &c.frames}
		done, err := g.run(ctx, t, in, c.out)
		if err == nil {
			err = c.send(frameDone, done)
		}
		if err == nil {
			err = in.skip()
		}
		if err != nil {
			return err
		}
	}
}

// module reads the pieces of a module.
func (c *childProcess) module(size int64) ([]byte, error) {
	module := make([]byte, 0, size)
	for int64(len(module)) < size {
		kind, piece, err := c.frames.next()
		if err != nil {
			return nil, err
		}
		if kind != frameModule || int64(len(module)+len(piece)) > size {
			return nil, fmt.Errorf("frame %q of %d bytes after %d of a module's %d", kind, len(piece), len(module), size)
		}
		module = append(module, piece...)
	}
	return module, nil
}

// stdin is a task's standard input, read off the parent's frames as the program
// asks for it.
type stdin struct {
	frames *frameReader
	rest   []byte
	ended  bool
	read   int64
	err    error // the parent's end broke: the child ends
}

func (s *stdin) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		if s.next(); s.err != nil {
			panic(errHost)
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	s.read += int64(n)
	return n, nil
}

func (s *stdin) next() {
	kind, payload, err := s.frames.next()
	switch {
	case err != nil:
		s.err = err
	case kind == frameStdin:
		s.rest = payload
	case kind == frameEnd:
		s.ended = true
	default:
		s.err = fmt.Errorf("frame %q came amid stdin", kind)
	}
}

// skip reads on to the end.
func (s *stdin) skip() error {
	for !s.ended && s.err == nil {
		s.next()
	}
	return s.err
}

// errHost unwinds a program when its host, not it, has failed; errOver when it
// wrote more than it may.
var (
	errHost = errors.New("the worker failed under the program")
	errOver = errors.New("output limit")
)

// ledger counts what a task has put out.
type ledger struct {
	limit  int64
	used   int64
	over   bool
	detail string
	err    error // the host's failure
}

// charge takes n more bytes, or unwinds the program.
func (l *ledger) charge(n int64) {
	if n > l.limit-l.used {
		l.exceed(outputError(l.limit).Error())
	}
	l.used += n
}

func (l *ledger) exceed(detail string) {
	l.over, l.detail = true, detail
	panic(errOver)
}

func (l *ledger) refund(n int64) { l.used -= n }

// fail notes what the host could not do and unwinds the program.
func (l *ledger) fail(err error) {
	l.err = err
	panic(errHost)
}

// stdout sends what the program writes.
type stdout struct {
	w      *bufio.Writer
	ledger *ledger
}

func (s *stdout) Write(p []byte) (int, error) {
	s.ledger.charge(int64(len(p)))
	for rest := p; len(rest) > 0; {
		n := min(len(rest), pieceBytes)
		if err := writeFrame(s.w, frameOut, rest[:n]); err != nil {
			s.ledger.fail(err)
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// stderr sends the beginning of the log as it comes, so that it is there when
// the program is killed, and keeps the tail of a longer one for the end.
type stderr struct {
	w      *bufio.Writer
	ledger *ledger
	sent   int
	kept   tail
}

func (s *stderr) Write(p []byte) (int, error) {
	if s.sent+len(p) > maxLog {
		return s.kept.Write(p)
	}
	s.sent += len(p)
	err := writeFrame(s.w, frameLog, p)
	if err == nil {
		err = s.w.Flush()
	}
	if err != nil {
		s.ledger.fail(err)
	}
	return len(p), nil
}

func failure(r tasks.Reason, format string, args ...any) readyMessage {
	return readyMessage{Reason: uint32(r), Detail: clip(fmt.Sprintf(format, args...))}
}
