package tasks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrTooManyTasks says that a split would make more tasks than a job may have.
var ErrTooManyTasks = errors.New("too many tasks")

// CutLines cuts r into runs of size lines and gives emit each run's offset and
// length. A line ends with its "\n"; a last line without one counts. No byte is
// lost or given twice, and the memory used does not depend on r. An empty r has
// no run. It returns the bytes read.
func CutLines(r io.Reader, size int64, emit func(offset, length int64) error) (int64, error) {
	if size < 1 {
		return 0, fmt.Errorf("cut lines: %d lines a task: must be 1 or more", size)
	}
	buf := make([]byte, 64<<10)
	var start, at, lines int64 // start of the run, bytes read, lines ended in the run
	idle := 0
	for {
		n, err := r.Read(buf)
		for rest := buf[:n]; ; {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				at += int64(len(rest))
				break
			}
			at += int64(i) + 1
			rest = rest[i+1:]
			if lines++; lines == size {
				if err := emit(start, at-start); err != nil {
					return at, err
				}
				start, lines = at, 0
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if at > start {
				return at, emit(start, at-start)
			}
			return at, nil
		case err != nil:
			return at, fmt.Errorf("cut lines: at byte %d: %w", at, err)
		case n > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return at, fmt.Errorf("cut lines: at byte %d: %w", at, io.ErrNoProgress)
			}
		}
	}
}

// CutBytes cuts total bytes into runs of size bytes, the last one shorter.
func CutBytes(total, size int64, emit func(offset, length int64) error) error {
	if size < 1 || total < 0 {
		return fmt.Errorf("cut bytes: %d bytes into runs of %d: a run must be 1 or more", total, size)
	}
	for offset := int64(0); offset < total; {
		length := min(size, total-offset)
		if err := emit(offset, length); err != nil {
			return err
		}
		offset += length
	}
	return nil
}

// File is one file of a source.
type File struct {
	Path string // inside the root; "" when the root is the file
	Size int64
}

// Source is an input of a job as the origin finds it in its store.
type Source struct {
	Input Input  // its Source is the root's CID
	Files []File // in the order of their paths; a folder's files, or the one file
}

// PlanTasks cuts a job's inputs into its map tasks. open reads one whole file of
// a root; it is called for splits by lines only. Tasks come in the order of
// inputs, files and offsets; no task spans two files. An input that is not split
// goes whole to every task: those share one Inputs map, to be read only. A job
// has one task at the least; more than MaxTasks is ErrTooManyTasks.
func PlanTasks(s Spec, sources []Source, open func(root CID, path string) (io.ReadCloser, error)) ([]Task, error) {
	p := planner{spec: s, most: MaxTasks}
	if s.Reduce != nil {
		p.most = MaxReduceInputs
	}
	split := false
	for _, src := range sources {
		if src.Input.Split.By != SplitNone {
			split = true
			continue
		}
		if p.whole == nil {
			p.whole = make(map[string]Span)
		}
		p.whole[src.Input.Name] = Span{Root: src.Input.Source, Length: -1}
		for _, f := range src.Files {
			p.size += f.Size
		}
	}
	for i, src := range sources {
		if err := p.cut(src, open); err != nil {
			return nil, fmt.Errorf("split inputs[%d] by %s: %w", i, FormatSplit(src.Input.Split), err)
		}
	}
	count := s.Tasks
	if split {
		count = 0
	}
	for len(p.tasks) < int(max(count, 1)) {
		if err := p.add(nil); err != nil {
			return nil, fmt.Errorf("plan %d tasks: %w", count, err)
		}
	}
	return p.tasks, nil
}

type planner struct {
	spec  Spec
	most  int
	whole map[string]Span
	size  int64 // of what goes whole to every task
	tasks []Task
}

func (p *planner) add(stdin []Span) error {
	if len(p.tasks) == p.most {
		why := "make each larger"
		if p.most == MaxReduceInputs {
			why = "one reduce takes no more: make each larger"
		}
		return fmt.Errorf("%w: more than %d: %s", ErrTooManyTasks, p.most, why)
	}
	t := Task{Ref: Ref{StageMap, uint32(len(p.tasks))}, Stdin: stdin, Inputs: p.whole, Size: p.size}
	for _, s := range stdin {
		t.Size += s.Length
	}
	p.tasks = append(p.tasks, t)
	return nil
}

func (p *planner) cut(src Source, open func(CID, string) (io.ReadCloser, error)) error {
	split := src.Input.Split
	for _, f := range src.Files {
		span := func(offset, length int64) error {
			return p.add([]Span{{Root: src.Input.Source, Path: f.Path, Offset: offset, Length: length}})
		}
		var err error
		switch split.By {
		case SplitNone:
			return nil
		case SplitBytes:
			err = CutBytes(f.Size, split.Size, span)
		case SplitLines:
			err = cutFile(src.Input.Source, f, split.Size, open, span)
		case SplitFiles:
			if f.Size > 0 {
				err = span(0, f.Size)
			} else {
				err = p.add(nil) // an empty stdin, so that each file has its output
			}
		default:
			err = fmt.Errorf("unknown way to split %q", split.By)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func cutFile(root CID, f File, size int64, open func(CID, string) (io.ReadCloser, error), span func(int64, int64) error) error {
	r, err := open(root, f.Path)
	if err != nil {
		return fmt.Errorf("open %q: %w", f.Path, err)
	}
	n, err := CutLines(r, size, span)
	if err == nil && n != f.Size {
		err = fmt.Errorf("read %d bytes of %d", n, f.Size)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("file %q: %w", f.Path, err)
	}
	return nil
}
