package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
)

func Example() {
	file := bytes.NewReader([]byte{7, 1, 0, 1})
	index := archive.NewIndex("demo", file, []archive.Entry{{Name: "mask", DType: tensor.Bool, Shape: []int{3}, Offset: 1, Length: 3}})
	data := make([]byte, 3)
	if err := index.Read("mask", data); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(index.Names(), data)
	// Output: [mask] [1 0 1]
}

func TestIndex(t *testing.T) {
	entries := []archive.Entry{
		{Name: "b", DType: tensor.I16, Shape: []int{1, 2}, Offset: 1, Length: 4},
		{Name: "a", DType: tensor.F64, Shape: []int{0}, Offset: 5},
		{Name: "c", DType: tensor.U8, Shape: []int{9}, Offset: 5, Length: 9},
	}
	x := archive.NewIndex("demo", strings.NewReader("012345678"), slices.Clone(entries))
	if got := x.Names(); !slices.Equal(got, []string{"b", "a", "c"}) {
		t.Errorf("names %q", got)
	}
	x.Tensors()[0].Name = "z" // a copy
	for i, want := range entries {
		if got, ok := x.Tensor(want.Name); !ok || fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(x.Tensors()[i]) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	b := make([]byte, 4)
	if err := x.Read("b", b); err != nil || string(b) != "1234" {
		t.Errorf("read %q, %v", b, err)
	}
	s, err := x.Section("b")
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(s, b); err != nil {
		t.Error(err)
	}
	if err := x.Read("b", b[:3]); err == nil || err.Error() != `demo: tensor "b" has 4 bytes, the buffer 3` {
		t.Error(err)
	}
	err = x.Read("c", make([]byte, 9))
	var e *archive.Error
	if !errors.As(err, &e) || !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != `demo: tensor "c" at byte 5: the file is truncated: it has 4 bytes of 9` {
		t.Error(err)
	}
	if err := x.Read("x", nil); !errors.Is(err, archive.ErrNoTensor) {
		t.Error(err)
	}
	if _, err := x.Section("x"); !errors.Is(err, archive.ErrNoTensor) {
		t.Error(err)
	}
	if err := archive.ReadAt(closed{}, b, 3, "demo", "head"); !errors.Is(err, io.ErrClosedPipe) || err.Error() != "demo: head at byte 3: "+io.ErrClosedPipe.Error() {
		t.Error(err)
	}
}

type closed struct{}

func (closed) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestQuote(t *testing.T) {
	if got := archive.Quote("a\n"); got != `"a\n"` {
		t.Error(got)
	}
	if got := archive.Quote(strings.Repeat("n", 200)); got != `"`+strings.Repeat("n", 80)+`" and 120 bytes more` {
		t.Error(got)
	}
}

// chunks writes its strings one by one and says that all went well.
type chunks []string

func (c chunks) WriteTo(w io.Writer) (n int64, err error) {
	for _, s := range c {
		io.WriteString(w, s)
	}
	return 0, nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestCopy: exactly the bytes of the shape, or an error, and never one byte more.
func TestCopy(t *testing.T) {
	for _, c := range []struct {
		data io.WriterTo
		err  string
	}{
		{chunks{"ab", "", "cd"}, ""},
		{archive.From(strings.NewReader("abcd")), ""},
		{archive.From(iotest.OneByteReader(strings.NewReader("abcd"))), ""},
		{strings.NewReader("abcd"), ""},
		{chunks{"ab", "c"}, "its data ends 1 bytes short of the 4 that i16 of shape [2] takes"},
		{chunks{"ab", "cde", "f"}, "longer than its shape takes, by 1 bytes at least"},
		{archive.From(zeros{}), "longer than its shape takes"},
		{archive.From(iotest.ErrReader(io.ErrClosedPipe)), io.ErrClosedPipe.Error()},
	} {
		s := archive.Source{Name: "w", DType: tensor.I16, Shape: []int{2}, Data: c.data}
		n, err := s.Bytes()
		if err != nil || n != 4 {
			t.Fatal(n, err)
		}
		var out bytes.Buffer
		err = s.Copy(&out, n)
		if c.err == "" && (err != nil || out.String() != "abcd") || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || out.Len() > 4 {
			t.Errorf("%q, %v; want %q", out.String(), err, c.err)
		}
	}
	for _, s := range []archive.Source{{DType: tensor.U8}, {DType: tensor.U8, Shape: []int{math.MaxInt, 2}, Data: chunks{}}, {Data: chunks{}}} {
		if n, err := s.Bytes(); err == nil {
			t.Errorf("%+v takes %d bytes", s, n)
		}
	}
	s := archive.Source{DType: tensor.U8, Data: chunks{"a"}}
	if err := s.Copy(failing{}, 1); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
