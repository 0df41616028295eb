package archive

import (
	"fmt"
	"io"

	"github.com/kith-mesh/kith/tensor"
)

// Source is a tensor to write into a file.
type Source struct {
	Name  string
	DType tensor.DType
	Shape []int       // the last dimension is contiguous; empty for a scalar
	Data  io.WriterTo // writes the elements, little-endian; From makes one of a reader
}

// From gives the bytes that a reader has left as a Source's Data.
func From(r io.Reader) io.WriterTo { return copier{r} }

type copier struct{ r io.Reader }

func (c copier) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, c.r) }

// Bytes is how many the elements take. It fails where DType.Bytes does, and
// without Data.
func (s *Source) Bytes() (int64, error) {
	if s.Data == nil {
		return 0, fmt.Errorf("it has no Data")
	}
	n, err := s.DType.Bytes(s.Shape)
	return int64(n), err
}

// Copy streams the elements to w. It fails when they are more bytes or fewer than
// n, which is what Bytes gave; w never gets more.
func (s *Source) Copy(w io.Writer, n int64) error {
	out := &exact{w: w, left: n}
	_, err := s.Data.WriteTo(out)
	if err == nil {
		err = out.err
	}
	if err == nil && out.left > 0 {
		err = fmt.Errorf("its data ends %d bytes short of the %d that %v of shape %v takes", out.left, n, s.DType, s.Shape)
	}
	return err
}

// exact passes on so many bytes and refuses the rest.
type exact struct {
	w    io.Writer
	left int64
	err  error
}

func (e *exact) Write(b []byte) (n int, err error) {
	switch {
	case e.err != nil:
	case int64(len(b)) > e.left:
		e.err = fmt.Errorf("its data is longer than its shape takes, by %d bytes at least", int64(len(b))-e.left)
	default:
		n, e.err = e.w.Write(b)
		e.left -= int64(n)
	}
	return n, e.err
}
