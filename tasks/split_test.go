package tasks_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kith-mesh/kith/tasks"
	"pgregory.net/rapid"
)

// cutNaively is CutLines in the plainest way.
func cutNaively(text string, size int) (runs []string) {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for len(lines) > 0 {
		n := min(size, len(lines))
		runs = append(runs, strings.Join(lines[:n], ""))
		lines = lines[n:]
	}
	return runs
}

func cutLines(r io.Reader, text string, size int64) (runs []string, err error) {
	next := int64(0)
	n, err := tasks.CutLines(r, size, func(offset, length int64) error {
		if offset != next || length < 1 {
			return fmt.Errorf("run at %d of %d bytes, after %d", offset, length, next)
		}
		next = offset + length
		runs = append(runs, text[offset:next])
		return nil
	})
	if err == nil && n != int64(len(text)) {
		err = fmt.Errorf("read %d of %d", n, len(text))
	}
	return runs, err
}

func TestCutLines(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for name, text := range map[string]string{
		"empty": "", "one newline": "\n", "empty lines": "\n\n\n\n", "no final newline": "a\nb\nc", "CRLF": "a\r\nb\r\nc\r\n",
		"lone CR": "a\rb\nc", "one giant line": long, "giant then small": long + "\n" + "a\nb\n", "around a buffer": strings.Repeat("y", 64<<10-1) + "\n" + "z",
	} {
		for _, size := range []int64{1, 2, 3, 1000} {
			for reader, r := range map[string]io.Reader{
				"whole": strings.NewReader(text), "by one": iotest.OneByteReader(strings.NewReader(text)),
				"halves": iotest.HalfReader(strings.NewReader(text)), "late EOF": iotest.DataErrReader(strings.NewReader(text)),
			} {
				got, err := cutLines(r, text, size)
				if want := cutNaively(text, int(size)); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s, %d lines, read %s: %d runs, not %d; %v", name, size, reader, len(got), len(want), err)
				}
			}
		}
	}
}

func TestCutLinesProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringMatching("([a-c\r]{0,5}\n?){0,40}").Draw(r, "text")
		size := rapid.Int64Range(1, 7).Draw(r, "size")
		chunks := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 10).Filter(func(c []int) bool {
			for _, n := range c {
				if n > 0 {
					return true
				}
			}
			return false
		}).Draw(r, "chunks")
		got, err := cutLines(&chunky{text, chunks, 0}, text, size)
		if want := cutNaively(text, int(size)); err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			r.Fatalf("%q by %d: %q, not %q; %v", text, size, got, want, err)
		}
	})
}

// chunky reads in given sizes, over and over; 0 is a read of nothing.
type chunky struct {
	text   string
	chunks []int
	turn   int
}

func (c *chunky) Read(p []byte) (int, error) {
	if c.text == "" {
		return 0, io.EOF
	}
	n := min(c.chunks[c.turn%len(c.chunks)], len(c.text), len(p))
	c.turn++
	copy(p, c.text[:n])
	c.text = c.text[n:]
	return n, nil
}

func TestCutLinesFaults(t *testing.T) {
	none := func(int64, int64) error { return nil }
	if _, err := tasks.CutLines(strings.NewReader("a"), 0, none); err == nil {
		t.Error("0 lines a task")
	}
	if _, err := tasks.CutLines(iotest.ErrReader(io.ErrUnexpectedEOF), 1, none); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a broken reader: %v", err)
	}
	if _, err := tasks.CutLines(&chunky{"a", []int{0}, 0}, 1, none); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader without progress: %v", err)
	}
	stop := errors.New("stop")
	if _, err := tasks.CutLines(strings.NewReader("a\nb\n"), 1, func(int64, int64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("emit's error: %v", err)
	}
}

func TestCutBytes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		total, size := rapid.Int64Range(0, 1000).Draw(r, "total"), rapid.Int64Range(1, 300).Draw(r, "size")
		next, runs := int64(0), int64(0)
		err := tasks.CutBytes(total, size, func(offset, length int64) error {
			if offset != next || length < 1 || length > size || (length < size && offset+length != total) {
				return fmt.Errorf("run at %d of %d", offset, length)
			}
			next += length
			runs++
			return nil
		})
		if err != nil || next != total || runs != (total+size-1)/size {
			r.Fatalf("%d of %d in %d runs, %v", next, total, runs, err)
		}
	})
	if tasks.CutBytes(10, 0, nil) == nil || tasks.CutBytes(-1, 3, nil) == nil {
		t.Error("bad sizes pass")
	}
}

func TestPlanTasks(t *testing.T) {
	files := map[string]string{"a.txt": "1\n2\n3\n", "b.txt": "", "c.txt": "4\n5"}
	open := func(root tasks.CID, path string) (io.ReadCloser, error) {
		text, ok := files[path]
		if !ok {
			return nil, fmt.Errorf("no file %q", path)
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
	list := []tasks.File{{Path: "a.txt", Size: 6}, {Path: "b.txt", Size: 0}, {Path: "c.txt", Size: 3}}
	describe := func(list []tasks.Task) string {
		var b strings.Builder
		for _, x := range list {
			fmt.Fprintf(&b, "%d:", x.Ref.Index)
			for _, s := range x.Stdin {
				fmt.Fprintf(&b, "%s[%d,%d]", s.Path, s.Offset, s.Length)
			}
			fmt.Fprintf(&b, "+%d/%d ", len(x.Inputs), x.Size)
		}
		return strings.TrimSpace(b.String())
	}
	for _, c := range []struct {
		name    string
		spec    tasks.Spec
		sources []tasks.Source
		want    string
	}{
		{"nothing", tasks.Spec{}, nil, "0:+0/0"},
		{"a plain count", tasks.Spec{Tasks: 3}, nil, "0:+0/0 1:+0/0 2:+0/0"},
		{"a count with a dataset", tasks.Spec{Tasks: 2}, []tasks.Source{{Input: tasks.Input{Name: "d", Source: "x"}, Files: list}}, "0:+1/9 1:+1/9"},
		{"lines", tasks.Spec{}, []tasks.Source{{Input: tasks.Input{Source: "x", Split: tasks.Split{By: "lines", Size: 2}}, Files: list}},
			"0:a.txt[0,4]+0/4 1:a.txt[4,2]+0/2 2:c.txt[0,3]+0/3"},
		{"bytes", tasks.Spec{}, []tasks.Source{{Input: tasks.Input{Source: "x", Split: tasks.Split{By: "bytes", Size: 4}}, Files: list}},
			"0:a.txt[0,4]+0/4 1:a.txt[4,2]+0/2 2:c.txt[0,3]+0/3"},
		{"files", tasks.Spec{}, []tasks.Source{{Input: tasks.Input{Source: "x", Split: tasks.Split{By: "files"}}, Files: list}},
			"0:a.txt[0,6]+0/6 1:+0/0 2:c.txt[0,3]+0/3"},
		{"two datasets, one whole", tasks.Spec{}, []tasks.Source{
			{Input: tasks.Input{Name: "w", Source: "y"}, Files: []tasks.File{{Size: 5}}},
			{Input: tasks.Input{Source: "x", Split: tasks.Split{By: "lines", Size: 9}}, Files: list}},
			"0:a.txt[0,6]+1/11 1:c.txt[0,3]+1/8"},
		{"an empty file by lines", tasks.Spec{}, []tasks.Source{{Input: tasks.Input{Source: "x", Split: tasks.Split{By: "lines", Size: 9}}, Files: list[1:2]}}, "0:+0/0"},
	} {
		got, err := tasks.PlanTasks(c.spec, c.sources, open)
		if err != nil || describe(got) != c.want {
			t.Errorf("%s: %s, %v; not %s", c.name, describe(got), err, c.want)
		}
	}
	bytesOf := func(size int64) []tasks.Source {
		return []tasks.Source{{Input: tasks.Input{Source: "x", Split: tasks.Split{By: "bytes", Size: 1}}, Files: []tasks.File{{Size: size}}}}
	}
	if _, err := tasks.PlanTasks(tasks.Spec{}, bytesOf(tasks.MaxTasks+1), open); !errors.Is(err, tasks.ErrTooManyTasks) {
		t.Errorf("%v", err)
	}
	if _, err := tasks.PlanTasks(tasks.Spec{Reduce: &tasks.Reduce{}}, bytesOf(tasks.MaxReduceInputs+1), open); !errors.Is(err, tasks.ErrTooManyTasks) {
		t.Errorf("%v", err)
	}
	lines := tasks.Input{Source: "x", Split: tasks.Split{By: "lines", Size: 1}}
	for _, f := range []tasks.File{{Path: "a.txt", Size: 7}, {Path: "missing", Size: 1}} {
		if _, err := tasks.PlanTasks(tasks.Spec{}, []tasks.Source{{Input: lines, Files: []tasks.File{f}}}, open); err == nil || !strings.Contains(err.Error(), f.Path) {
			t.Errorf("%v: %v", f, err)
		}
	}
}

func FuzzCutLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nc"), uint8(2))
	f.Add([]byte("\n\n"), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		got, err := cutLines(iotest.HalfReader(bytes.NewReader(text)), string(text), int64(size)+1)
		if want := cutNaively(string(text), int(size)+1); err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Fatalf("%q: %q, not %q; %v", text, got, want, err)
		}
	})
}
