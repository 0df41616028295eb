package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/kith-mesh/kith/tensor"
)

// Tensor is what a file's header says of one tensor.
type Tensor struct {
	Name   string
	DType  tensor.DType
	Shape  []int // the last dimension is contiguous; empty for a scalar
	Offset int64 // of its first byte in the file
	Length int64 // in bytes
}

// File is a file whose header has been read and found right. Its methods may be
// called at the same time when those of the io.ReaderAt may.
type File struct {
	r        io.ReaderAt
	tensors  []Tensor // by offset
	index    map[string]int
	metadata map[string]string
}

// Open reads the header of a file of size bytes and checks all of it; r is read
// again when a tensor is. Faults of the file are an *Error.
func Open(r io.ReaderAt, size int64) (*File, error) {
	if size < lengthBytes {
		return nil, &Error{Field: "header length", Reason: fmt.Sprintf("the file is truncated: it has %d bytes, the length takes %d", max(size, 0), lengthBytes)}
	}
	var length [lengthBytes]byte
	if err := readAt(r, length[:], 0, "header length"); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > MaxHeader:
		return nil, &Error{Field: "header length", Reason: fmt.Sprintf("it says %d bytes, at most %d are read", n, MaxHeader)}
	case int64(n) > size-lengthBytes:
		return nil, &Error{Field: "header length", Reason: fmt.Sprintf("the file is truncated: it says %d bytes, the file has %d after it", n, size-lengthBytes)}
	}
	header := make([]byte, n)
	if err := readAt(r, header, lengthBytes, "header"); err != nil {
		return nil, err
	}
	f := &File{r: r, index: map[string]int{}}
	fieldsAt, err := f.parse(header)
	if err != nil {
		return nil, err
	}
	if err := f.place(fieldsAt, lengthBytes+int64(n), size); err != nil {
		return nil, err
	}
	return f, nil
}

func readAt(r io.ReaderAt, b []byte, at int64, field string) error {
	n, err := r.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return &Error{Field: field, Offset: at, Err: io.ErrUnexpectedEOF,
			Reason: fmt.Sprintf("the file is truncated: it has %d bytes of %d", n, len(b))}
	}
	return &Error{Field: field, Offset: at, Err: err, Reason: err.Error()}
}

// parse reads the header's JSON. It gives for each tensor where its data_offsets
// stand in the header; a tensor's Offset counts from the data for now.
func (f *File) parse(header []byte) (offsetsAt []int32, err error) {
	s := &scanner{b: header}
	if len(header) == 0 || header[0] != '{' {
		return nil, fail(0, "header", "it does not begin with {")
	}
	err = s.object("header", func(name string, at int) error {
		if name == metadataKey {
			if f.metadata != nil {
				return fail(at, metadataKey, "it stands twice")
			}
			f.metadata = map[string]string{}
			return f.parseMetadata(s)
		}
		if _, twice := f.index[name]; twice {
			return fail(at, "tensor "+quote(name), "the name stands twice")
		}
		t := Tensor{Name: name}
		where, err := t.parse(s, at)
		if err != nil {
			return err
		}
		f.index[name] = len(f.tensors)
		f.tensors = append(f.tensors, t)
		offsetsAt = append(offsetsAt, int32(where))
		return nil
	})
	if err == nil && (s.peek() != 0 || s.at < len(header)) {
		err = s.unexpected("header", "nothing but spaces after the object")
	}
	return offsetsAt, err
}

func (f *File) parseMetadata(s *scanner) error {
	return s.object(metadataKey, func(key string, at int) error {
		if _, twice := f.metadata[key]; twice {
			return fail(at, metadataKey, "key %s stands twice", quote(key))
		}
		value, err := s.text(metadataKey)
		f.metadata[key] = value
		return err
	})
}

// parse reads the description of one tensor, which begins at an index of the
// header, and checks what can be checked of it alone.
func (t *Tensor) parse(s *scanner, at int) (offsetsAt int, err error) {
	who := "tensor " + quote(t.Name)
	var ends []int64
	shapeAt := 0
	err = s.object(who, func(key string, keyAt int) error {
		twice := false
		s.peek()
		switch valueAt := s.at; key {
		case "dtype":
			twice = t.DType != 0
			name, err := s.text(who + ": dtype")
			if err != nil {
				return err
			}
			for _, d := range dtypes {
				if d.name == name {
					t.DType = d.dtype
				}
			}
			if t.DType == 0 {
				return fail(valueAt, who+": dtype", "%s is not supported; there are %s", quote(name), dtypeNames())
			}
		case "shape":
			twice, shapeAt = t.Shape != nil, valueAt
			t.Shape = []int{}
			if err := s.list('[', ']', who+": shape", func() error {
				n, err := s.count(who + ": shape")
				if err != nil {
					return err
				}
				if len(t.Shape) == maxRank {
					return fail(shapeAt, who+": shape", "it has over %d dimensions", maxRank)
				}
				if n > math.MaxInt {
					return fail(shapeAt, who+": shape", "dimension %d does not fit an int", n)
				}
				t.Shape = append(t.Shape, int(n))
				return nil
			}); err != nil {
				return err
			}
		case "data_offsets":
			twice, offsetsAt = ends != nil, valueAt
			ends = []int64{}
			if err := s.list('[', ']', who+": data_offsets", func() error {
				n, err := s.count(who + ": data_offsets")
				if err == nil && len(ends) == 2 {
					err = fail(valueAt, who+": data_offsets", "it has over 2 numbers, want where the data begins and ends")
				}
				ends = append(ends, n)
				return err
			}); err != nil {
				return err
			}
		default:
			return fail(keyAt, who, "unknown field %s; there are dtype, shape and data_offsets", quote(key))
		}
		if twice {
			return fail(keyAt, who, "field %s stands twice", quote(key))
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case t.DType == 0:
		return 0, fail(at, who+": dtype", "it is missing")
	case t.Shape == nil:
		return 0, fail(at, who+": shape", "it is missing")
	case ends == nil:
		return 0, fail(at, who+": data_offsets", "it is missing")
	case len(ends) != 2:
		return 0, fail(offsetsAt, who+": data_offsets", "it has %d numbers, want where the data begins and ends", len(ends))
	case ends[0] > ends[1]:
		return 0, fail(offsetsAt, who+": data_offsets", "the data ends at %d, before it begins at %d", ends[1], ends[0])
	}
	want, err := t.DType.Bytes(t.Shape)
	if err != nil {
		return 0, fail(shapeAt, who+": shape", "%s", err)
	}
	t.Shape = slices.Clip(t.Shape)
	t.Offset, t.Length = ends[0], ends[1]-ends[0]
	if t.Length != int64(want) {
		return 0, fail(offsetsAt, who+": data_offsets", "%d bytes from %d to %d; %v of shape %v takes %d", t.Length, ends[0], ends[1], t.DType, t.Shape, want)
	}
	return offsetsAt, nil
}

// place sorts the tensors as their data lies and checks that it covers the file
// from data to size: each byte once.
func (f *File) place(offsetsAt []int32, data, size int64) error {
	order := make([]int32, len(f.tensors))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		x, y := &f.tensors[a], &f.tensors[b]
		return cmp.Or(cmp.Compare(x.Offset, y.Offset), cmp.Compare(x.Length, y.Length))
	})
	end, before := int64(0), "the data begins"
	sorted := make([]Tensor, len(order))
	for k, i := range order {
		t := f.tensors[i]
		who := "tensor " + quote(t.Name) + ": data_offsets"
		switch {
		case t.Offset < end:
			return fail(int(offsetsAt[i]), who, "the data begins at %d, within another tensor's: %s at %d", t.Offset, before, end)
		case t.Offset > end:
			return fail(int(offsetsAt[i]), who, "the data begins at %d and leaves a hole: %s at %d", t.Offset, before, end)
		case t.Length > size-data-end:
			return fail(int(offsetsAt[i]), who, "the file is truncated: the data ends at %d, the file has %d bytes of data", t.Offset+t.Length, size-data)
		}
		end += t.Length
		before = "tensor " + quote(t.Name) + " ends"
		t.Offset += data
		sorted[k] = t
		f.index[t.Name] = k
	}
	if f.tensors = sorted; end != size-data {
		return &Error{Field: "data", Offset: data + end, Reason: fmt.Sprintf("%d bytes follow that no tensor describes", size-data-end)}
	}
	return nil
}

// Tensors lists the tensors in the order of their data. Shapes are not to be
// changed.
func (f *File) Tensors() []Tensor { return slices.Clone(f.tensors) }

// Names lists the tensors' names in the order of their data.
func (f *File) Names() []string {
	names := make([]string, len(f.tensors))
	for i, t := range f.tensors {
		names[i] = t.Name
	}
	return names
}

// Tensor gives what the header says of a tensor; ok is false if there is none.
func (f *File) Tensor(name string) (t Tensor, ok bool) {
	i, ok := f.index[name]
	if ok {
		t = f.tensors[i]
	}
	return t, ok
}

// Metadata gives the free text of the header, nil if it has none. It is not to be
// changed.
func (f *File) Metadata() map[string]string { return f.metadata }

// Section gives a reader of a tensor's bytes.
func (f *File) Section(name string) (*io.SectionReader, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoTensor, quote(name))
	}
	return io.NewSectionReader(f.r, t.Offset, t.Length), nil
}

// Read fills dst, which is as long as the tensor, with the tensor's bytes.
func (f *File) Read(name string, dst []byte) error {
	t, ok := f.Tensor(name)
	if !ok {
		return fmt.Errorf("%w: %s", ErrNoTensor, quote(name))
	}
	if int64(len(dst)) != t.Length {
		return fmt.Errorf("safetensors: tensor %s has %d bytes, the buffer %d", quote(name), t.Length, len(dst))
	}
	return readAt(f.r, dst, t.Offset, "tensor "+quote(name))
}
