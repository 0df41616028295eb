package runner

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sysfs "github.com/tetratelabs/wazero/experimental/sys"
)

func outputsOf(t *testing.T, limit int64) (*outputs, *ledger) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	book := &ledger{limit: limit}
	return newOutputs(root, book, new(int)), book
}

const rw = sysfs.O_RDWR | sysfs.O_CREAT

func mustOpen(t *testing.T, o *outputs, name string, flag sysfs.Oflag) sysfs.File {
	t.Helper()
	f, errno := o.OpenFile(name, flag, 0)
	if errno != 0 {
		t.Fatalf("open %s: %v", name, errno)
	}
	return f
}

// TestOutputsLedger: every byte is charged once and given back when it is gone,
// also when a file outlives its name.
func TestOutputsLedger(t *testing.T) {
	o, book := outputsOf(t, 100)
	used := func(want int64, after string) {
		t.Helper()
		if book.used != want || book.err != nil {
			t.Fatalf("after %s: %d bytes used, not %d; %v", after, book.used, want, book.err)
		}
	}
	f := mustOpen(t, o, "a", rw)
	f.Write(make([]byte, 10))
	used(10, "a write")
	f.Pwrite(make([]byte, 10), 5)
	used(15, "an overlapping write")
	f.Pwrite([]byte{1}, 49)
	used(50, "a hole")
	f.Truncate(20)
	used(20, "truncating")
	o.Unlink("a")
	used(20, "unlinking what is open")
	f.Pwrite([]byte{1}, 29)
	used(30, "writing to what has no name")
	f.Close()
	used(0, "closing it")

	mustOpen(t, o, "b", rw).Write(make([]byte, 60))
	mustOpen(t, o, "b", rw|sysfs.O_TRUNC).Write(make([]byte, 70))
	used(70, "writing anew")
	g := mustOpen(t, o, "c", rw)
	g.Write(make([]byte, 20))
	if errno := o.Rename("c", "b"); errno != 0 {
		t.Fatal(errno)
	}
	used(90, "renaming over what is open twice")
	defer func() {
		if recover() != errOver || !book.over {
			t.Error("the limit did not unwind the program")
		}
	}()
	g.Truncate(1 << 40)
	t.Error("a hole of a tebibyte passed")
}

// TestOutputsErrors is what a program is told.
func TestOutputsErrors(t *testing.T) {
	o, _ := outputsOf(t, 1000)
	o.Mkdir("d", 0)
	o.Mkdir("d/e", 0)
	mustOpen(t, o, "f", rw).Close()
	open := func(name string, flag sysfs.Oflag) sysfs.Errno {
		_, errno := o.OpenFile(name, flag, 0)
		return errno
	}
	for i, c := range []struct{ got, want sysfs.Errno }{
		{open("none", sysfs.O_RDONLY), sysfs.ENOENT},
		{open("f/x", rw), sysfs.ENOTDIR},
		{open("none/x", rw), sysfs.ENOENT},
		{open("d", rw), sysfs.EISDIR},
		{open("f", sysfs.O_DIRECTORY), sysfs.ENOTDIR},
		{open("f", rw|sysfs.O_EXCL), sysfs.EEXIST},
		{open("../f", rw), sysfs.EPERM},
		{open(strings.Repeat("x", 256), rw), sysfs.ENAMETOOLONG},
		{open(strings.Repeat("x/", 3000), rw), sysfs.ENAMETOOLONG},
		{open("back\\slash", rw), sysfs.ENAMETOOLONG},
		{o.Mkdir("d", 0), sysfs.EEXIST},
		{o.Mkdir("f/x", 0), sysfs.ENOTDIR},
		{o.Rmdir("d"), sysfs.ENOTEMPTY},
		{o.Rmdir("f"), sysfs.ENOTDIR},
		{o.Rmdir("."), sysfs.EPERM},
		{o.Rmdir("none"), sysfs.ENOENT},
		{o.Unlink("d"), sysfs.EISDIR},
		{o.Unlink("none"), sysfs.ENOENT},
		{o.Rename("d", "d/e/x"), sysfs.EINVAL},
		{o.Rename(".", "x"), sysfs.EINVAL},
		{o.Rename("f", "d"), sysfs.EISDIR},
		{o.Rename("d", "f"), sysfs.ENOTDIR},
		{o.Rename("none", "x"), sysfs.ENOENT},
		{o.Link("f", "g"), sysfs.EPERM},
		{o.Symlink("f", "g"), sysfs.EPERM},
		{o.Rename("d/e", "e"), 0},
		{o.Rename("d", "e"), 0},
		{o.Rmdir("e"), 0},
		{o.Chmod("f", 0), 0},
	} {
		if c.got != c.want {
			t.Errorf("case %d: %v, want %v", i, c.got, c.want)
		}
	}
	f := mustOpen(t, o, "f", sysfs.O_RDONLY)
	if _, errno := f.Write([]byte("x")); errno != sysfs.EBADF {
		t.Errorf("write to what is open to read: %v", errno)
	}
	f.Close()
	if _, errno := f.Read(make([]byte, 1)); errno != sysfs.EBADF {
		t.Errorf("read what is closed: %v", errno)
	}
	for range maxOpen {
		mustOpen(t, o, "f", sysfs.O_RDONLY)
	}
	if errno := open("f", sysfs.O_RDONLY); errno != sysfs.EAGAIN {
		t.Errorf("open file %d: %v", maxOpen+1, errno)
	}
}

func TestOutputsMany(t *testing.T) {
	o, book := outputsOf(t, 1000)
	defer func() {
		if recover() != errOver || !book.over {
			t.Error("nothing stopped the program")
		}
	}()
	for i := range maxEntries + 1 {
		o.Mkdir(fmt.Sprint(i), 0)
	}
}

// TestOutputsModel does the same random things to /out and to a plain model.
func TestOutputsModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	o, book := outputsOf(t, 1<<20)
	var open []sysfs.File
	var data []*[]byte
	total := func() (n int64) {
		seen := map[*[]byte]bool{}
		for _, d := range data {
			if !seen[d] {
				seen[d] = true
				n += int64(len(*d))
			}
		}
		return n
	}
	name := func() string { return string(rune('a' + rng.IntN(4))) }
	contents := map[string]*[]byte{}
	for step := range 2000 {
		switch rng.IntN(5) {
		case 0:
			n := name()
			if len(open) < 50 {
				open = append(open, mustOpen(t, o, n, rw))
				if contents[n] == nil {
					contents[n] = new([]byte)
				}
				data = append(data, contents[n])
			}
		case 1:
			if len(open) > 0 {
				i := rng.IntN(len(open))
				p := bytes.Repeat([]byte{byte(step)}, rng.IntN(20))
				off := rng.IntN(100)
				if _, errno := open[i].Pwrite(p, int64(off)); errno != 0 {
					t.Fatal(errno)
				}
				if d := data[i]; len(p) > 0 {
					if grown := off + len(p) - len(*d); grown > 0 {
						*d = append(*d, make([]byte, grown)...)
					}
					copy((*d)[off:], p)
				}
			}
		case 2:
			if len(open) > 0 {
				i := rng.IntN(len(open))
				if errno := open[i].Close(); errno != 0 {
					t.Fatal(errno)
				}
				open = append(open[:i], open[i+1:]...)
				data = append(data[:i], data[i+1:]...)
			}
		case 3:
			n := name()
			if errno := o.Unlink(n); (errno == 0) != (contents[n] != nil) {
				t.Fatalf("unlink %s: %v", n, errno)
			}
			delete(contents, n)
		case 4:
			from, to := name(), name()
			if errno := o.Rename(from, to); (errno == 0) != (contents[from] != nil) {
				t.Fatalf("rename %s: %v", from, errno)
			}
			if contents[from] != nil && from != to {
				contents[to] = contents[from]
				delete(contents, from)
			}
		}
		all := data
		for _, d := range contents {
			data = append(data, d)
		}
		if want := total(); book.used != want {
			t.Fatalf("step %d: %d bytes used, not %d", step, book.used, want)
		}
		data = all
	}
	for n, d := range contents {
		f := mustOpen(t, o, n, sysfs.O_RDONLY)
		got, err := io.ReadAll(reader{f})
		if err != nil || !bytes.Equal(got, *d) {
			t.Errorf("%s: %d bytes, not %d; %v", n, len(got), len(*d), err)
		}
	}
}

type reader struct{ f sysfs.File }

func (r reader) Read(p []byte) (int, error) {
	n, errno := r.f.Read(p)
	if errno != 0 {
		return n, errno
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestListing: folders list in the order of names, whatever the host's.
func TestListing(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"b", "a", "c"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in, err := openInputs(map[string]string{"y": dir, "x": filepath.Join(dir, "a")})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{".": "x y", "y": "a b c"} {
		f, errno := in.OpenFile(path, sysfs.O_RDONLY, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		for range 2 { // again after rewinding
			var got []string
			for {
				list, errno := f.Readdir(1)
				if errno != 0 {
					t.Fatal(errno)
				}
				if len(list) == 0 {
					break
				}
				got = append(got, list[0].Name)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s lists %q", path, got)
			}
			if _, errno := f.Seek(0, io.SeekStart); errno != 0 {
				t.Fatal(errno)
			}
		}
		f.Close()
	}
	st, errno := in.Stat("y/a")
	if errno != 0 || st.Mtim != fileTime || st.Dev != 0 || st.Mode != 0o444 {
		t.Errorf("%+v, %v", st, errno)
	}
	if _, err := openInputs(map[string]string{"x": filepath.Join(dir, "none")}); err == nil {
		t.Error("a missing input passed")
	}
}

// TestCollect: the parent believes nothing that a child says of its files.
func TestCollect(t *testing.T) {
	scratch := t.TempDir()
	for name, size := range map[string]int{"f1": 10, "f2": 200} {
		if err := os.WriteFile(filepath.Join(scratch, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(scratch, "f3")); err != nil {
		t.Skipf("this system makes no links: %v", err)
	}
	c := &child{scratch: scratch}
	for _, bad := range [][]fileMessage{
		{{Path: "x", Name: "f2", Size: 1}},
		{{Path: "x", Name: "f3"}},
		{{Path: "x", Name: "none"}},
		{{Path: "sub/x", Name: "f1"}}, // no such folder was told
	} {
		task := Task{Out: filepath.Join(t.TempDir(), "out")}
		task.Limits.Output = 100
		if _, err := c.collect(task, collection{files: bad}, new(int64)); err == nil {
			t.Errorf("%+v passed", bad)
		}
	}
	for _, bad := range []fileMessage{
		{Path: "../x", Name: "f"}, {Path: "/x", Name: "f"}, {Path: ".", Name: "f"}, {Path: "a//b", Name: "f"},
		{Path: "x", Name: "../f"}, {Path: "x", Name: ""}, {Path: "x", Name: "f", Size: -1}, {Path: strings.Repeat("x", 5000), Name: "f"},
	} {
		if bad.check(0) == nil {
			t.Errorf("%+v passed", bad)
		}
	}
	if (fileMessage{Path: "x", Dir: true}).check(maxEntries) == nil {
		t.Error("one entry too many passed")
	}
}

// FuzzFrames: what a broken child says ends in an error, never in a panic or in
// more than its limits.
func FuzzFrames(f *testing.F) {
	frame := func(kind byte, m any) []byte {
		var b bytes.Buffer
		if err := writeMessage(&b, kind, m); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add(append(frame(frameFile, fileMessage{Path: "a", Dir: true}), frame(frameDone, doneMessage{})...))
	f.Add([]byte("O\x05\x00\x00\x00helloD\x02\x00\x00\x00{}"))
	f.Add([]byte("O\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		g := collection{limit: 10, stdout: &out, log: tail{max: 4}}
		_ = g.read(&frameReader{r: bytes.NewReader(b)})
		if out.Len() > 10 || len(g.log.bytes()) > 4 || len(g.files) > maxEntries {
			t.Errorf("%d bytes out, %d of log", out.Len(), len(g.log.bytes()))
		}
		for _, m := range g.files {
			if !fs.ValidPath(m.Path) {
				t.Errorf("path %q", m.Path)
			}
		}
	})
}

func FuzzPS(f *testing.F) {
	for _, s := range []string{"0:00.01 123", "01:02:03 4", "2-03:04:05 6", "1:2:3:4 5", "-1:00 3", "x y", "0:00 -1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := parsePS(s); err == nil && (u.cpu < 0 || u.resident < 0) {
			t.Errorf("%q: %+v", s, u)
		}
	})
}

func TestPS(t *testing.T) {
	for line, want := range map[string]usage{
		"  0:01.50  2048\n": {1500e6, 2 << 20},
		"12:34 1":           {754e9, 1 << 10},
		"01:00:01 0":        {3601e9, 0},
		"1-00:00:02 0":      {86402e9, 0},
		"0:00,25 0":         {250e6, 0},
	} {
		if got, err := parsePS(line); err != nil || got != want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, bad := range []string{"", "1:00", "1:00 x", "1:2:3:4 5", "-1:00 3", "x 3", "nan 3", "inf 3"} {
		if got, err := parsePS(bad); err == nil {
			t.Errorf("%q passed as %+v", bad, got)
		}
	}
}

func TestTail(t *testing.T) {
	l := tail{max: 5}
	for i := range 100 {
		fmt.Fprintf(&l, "%d,", i)
	}
	if got := string(l.bytes()); got != "8,99," {
		t.Errorf("%q", got)
	}
	l.Write([]byte("a long one"))
	if got := string(l.bytes()); got != "g one" {
		t.Errorf("%q", got)
	}
}
