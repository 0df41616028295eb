// Package archive is what files of named tensors have in common, whatever their
// format: what a reader found in one, what a writer is given, and how a fault is
// told. The formats are packages of their own.
//
// It never holds a tensor's elements in memory, never converts them and never
// opens a file itself.
package archive

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/kith-mesh/kith/tensor"
)

// ErrNoTensor means that the file has no tensor of the name.
var ErrNoTensor = errors.New("no such tensor")

// Error says which field of a file is refused, where it stands and why.
type Error struct {
	Format string // of the file, such as: gguf
	Field  string // such as: header length, or: tensor "w": shape
	Offset int64  // of the field in the file, in bytes
	Reason string
	Err    error // what reading failed with, or nil
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s at byte %d: %s", e.Format, e.Field, e.Offset, e.Reason)
}

func (e *Error) Unwrap() error { return e.Err }

// ReadAt fills b from an offset of the file, or fails with an *Error.
func ReadAt(r io.ReaderAt, b []byte, offset int64, format, field string) error {
	n, err := r.ReadAt(b, offset)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return &Error{Format: format, Field: field, Offset: offset, Err: io.ErrUnexpectedEOF,
			Reason: fmt.Sprintf("the file is truncated: it has %d bytes of %d", n, len(b))}
	}
	return &Error{Format: format, Field: field, Offset: offset, Err: err, Reason: err.Error()}
}

// Quote shows a name that a stranger chose, cut when it is long.
func Quote(name string) string {
	const most = 80
	if len(name) > most {
		return fmt.Sprintf("%q and %d bytes more", name[:most], len(name)-most)
	}
	return fmt.Sprintf("%q", name)
}

// Entry is one tensor of a file.
type Entry struct {
	Name   string
	DType  tensor.DType
	Shape  []int // the last dimension is contiguous; empty for a scalar
	Offset int64 // of its first byte in the file
	Length int64 // in bytes
}

// Index finds the tensors of a file. Its methods may be called at the same time
// when those of the io.ReaderAt may.
type Index struct {
	r       io.ReaderAt
	format  string
	entries []Entry
	byName  map[string]int
}

// NewIndex keeps entries, whose names differ, in their order. r is read when a
// tensor is.
func NewIndex(format string, r io.ReaderAt, entries []Entry) Index {
	x := Index{r: r, format: format, entries: entries, byName: make(map[string]int, len(entries))}
	for i, e := range entries {
		x.byName[e.Name] = i
	}
	return x
}

// Tensors lists the tensors in the order of their data. Shapes are not to be
// changed.
func (x *Index) Tensors() []Entry { return slices.Clone(x.entries) }

// Names lists the tensors' names in the order of their data.
func (x *Index) Names() []string {
	names := make([]string, len(x.entries))
	for i, e := range x.entries {
		names[i] = e.Name
	}
	return names
}

// Tensor gives the entry of a name; ok is false if there is none.
func (x *Index) Tensor(name string) (e Entry, ok bool) {
	i, ok := x.byName[name]
	if ok {
		e = x.entries[i]
	}
	return e, ok
}

// Section gives a reader of a tensor's bytes.
func (x *Index) Section(name string) (*io.SectionReader, error) {
	e, ok := x.Tensor(name)
	if !ok {
		return nil, fmt.Errorf("%s: %w: %s", x.format, ErrNoTensor, Quote(name))
	}
	return io.NewSectionReader(x.r, e.Offset, e.Length), nil
}

// Read fills dst, which is as long as the tensor, with the tensor's bytes.
func (x *Index) Read(name string, dst []byte) error {
	e, ok := x.Tensor(name)
	if !ok {
		return fmt.Errorf("%s: %w: %s", x.format, ErrNoTensor, Quote(name))
	}
	if int64(len(dst)) != e.Length {
		return fmt.Errorf("%s: tensor %s has %d bytes, the buffer %d", x.format, Quote(name), e.Length, len(dst))
	}
	return ReadAt(x.r, dst, e.Offset, x.format, "tensor "+Quote(name))
}
