package gguf

import (
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"github.com/kith-mesh/kith/tensor/archive"
)

// File is a file of which all but the elements has been read and found right.
// Shapes are as everywhere in kith, the last dimension contiguous: the reverse of
// the file's order.
type File struct {
	archive.Index
	metadata  Metadata
	version   int
	alignment int64
}

// Open reads what stands before the elements in a file of size bytes and checks
// all of it; r is read again when a tensor is. Faults of the file are an
// *archive.Error.
func Open(r io.ReaderAt, size int64) (*File, error) {
	h := &reading{cursor: newCursor(r, max(size, 0)), metadata: Metadata{}, alignment: defaultAlignment}
	tensors, values, err := h.header()
	for i := 0; i < values && err == nil; i++ {
		err = h.pair(i)
	}
	if err == nil {
		err = h.setAlignment()
	}
	seen := map[string]bool{}
	for i := 0; i < tensors && err == nil; i++ {
		err = h.tensor(i, seen)
	}
	if err == nil {
		err = h.place()
	}
	if err != nil {
		return nil, err
	}
	return &File{archive.NewIndex(format, r, h.entries), h.metadata, h.version, h.alignment}, nil
}

// Metadata gives the keys and values. It is not to be changed.
func (f *File) Metadata() Metadata { return f.metadata }

// Version is 2 or 3.
func (f *File) Version() int { return f.version }

// Alignment is that of each tensor's first byte, counted from the first
// tensor's.
func (f *File) Alignment() int64 { return f.alignment }

// reading is a file as far as it has been read.
type reading struct {
	*cursor
	version     int
	metadata    Metadata
	alignmentAt int64 // of its value in the file, 0 if there is none
	alignment   int64
	entries     []archive.Entry // whose Offset counts from the first element
	offsetsAt   []int64         // where in the file the offset of each stands
}

// header reads how many tensors and values there are.
func (h *reading) header() (tensors, values int, err error) {
	b, err := h.take(len(magic), "magic")
	if err != nil {
		return 0, 0, err
	}
	if string(b) != magic {
		return 0, 0, fail(0, "magic", "the file begins with %q, want %q", b, magic)
	}
	at := h.at
	v, err := h.uint32("version")
	if err != nil {
		return 0, 0, err
	}
	switch swapped := bits.ReverseBytes32(v); {
	case v == 2 || v == version:
	case v == 1:
		return 0, 0, fail(at, "version", "version 1 is not supported; there are 2 and 3: convert the model again")
	case swapped > 0 && swapped <= 1<<16 && v > 1<<16:
		return 0, 0, fail(at, "version", "the file is big-endian (version %d), which is not supported: convert it to little-endian", swapped)
	default:
		return 0, 0, fail(at, "version", "version %d is not supported; there are 2 and 3", v)
	}
	h.version = int(v)
	// A tensor takes at least the length of its name, the number of its
	// dimensions, its type and its offset; a value the length of its key, a byte
	// of that, its type and a byte.
	if tensors, err = h.count("tensor count", 8+4+4+8); err != nil {
		return 0, 0, err
	}
	values, err = h.count("metadata count", 8+1+4+1)
	return tensors, values, err
}

// pair reads a key and its value.
func (h *reading) pair(i int) error {
	field := fmt.Sprintf("metadata %d: key", i)
	at := h.at
	key, err := h.text(field, maxKey)
	if err != nil {
		return err
	}
	if err := checkName(key, maxKey); err != nil {
		return fail(at, field, "%s", err)
	}
	field = "metadata " + archive.Quote(key)
	if _, twice := h.metadata[key]; twice {
		return fail(at, field, "the key stands twice")
	}
	t, err := h.valueType(field)
	if err != nil {
		return err
	}
	if key == alignmentKey {
		h.alignmentAt = h.at
	}
	v, err := h.value(t, field, 0)
	h.metadata[key] = v
	return err
}

func (h *reading) setAlignment() error {
	v, ok := h.metadata[alignmentKey]
	if !ok {
		return nil
	}
	n, ok := v.(uint32)
	if !ok || bits.OnesCount32(n) != 1 {
		return fail(h.alignmentAt, "metadata "+archive.Quote(alignmentKey), "it is the %T %d, want a uint32 that is a power of two", v, n)
	}
	h.alignment = int64(n)
	return nil
}

// tensor reads the description of one tensor.
func (h *reading) tensor(i int, seen map[string]bool) error {
	field := fmt.Sprintf("tensor %d: name", i)
	at := h.at
	name, err := h.text(field, maxName)
	if err != nil {
		return err
	}
	if err := checkName(name, maxName); err != nil {
		return fail(at, field, "%s", err)
	}
	who := "tensor " + archive.Quote(name)
	if seen[name] {
		return fail(at, who, "the name stands twice")
	}
	seen[name] = true
	e := archive.Entry{Name: name}
	shapeAt := h.at
	if e.Shape, err = h.shape(who + ": shape"); err != nil {
		return err
	}
	at = h.at
	t, err := h.uint32(who + ": type")
	if err != nil {
		return err
	}
	if e.DType, err = elementType(t); err != nil {
		return fail(at, who+": type", "%s", err)
	}
	n, err := e.DType.Bytes(e.Shape)
	if err != nil {
		return fail(shapeAt, who+": shape", "%s", err)
	}
	e.Length = int64(n)
	at = h.at
	offset, err := h.uint64(who + ": offset")
	if err != nil {
		return err
	}
	end, before := int64(0), "the first tensor belongs"
	if i > 0 {
		last := h.entries[i-1]
		end = last.Offset + last.Length
		end += pad(end, h.alignment)
		before = "tensor " + archive.Quote(last.Name) + " ends, padded,"
	}
	switch {
	case offset%uint64(h.alignment) != 0:
		return fail(at, who+": offset", "%d is no multiple of the alignment %d", offset, h.alignment)
	case offset < uint64(end):
		return fail(at, who+": offset", "the data begins at %d, within another tensor's: %s at %d", offset, before, end)
	case offset > uint64(end):
		return fail(at, who+": offset", "the data begins at %d and leaves a hole: %s at %d", offset, before, end)
	case e.Length > h.size-end: // so that no sum overflows
		return fail(at, who+": offset", "the file is truncated: %d bytes begin at %d of the data, the file has %d", e.Length, offset, h.size)
	}
	e.Offset = end
	h.entries = append(h.entries, e)
	h.offsetsAt = append(h.offsetsAt, at)
	return nil
}

// shape reads dimensions, the contiguous one first.
func (h *reading) shape(field string) ([]int, error) {
	at := h.at
	rank, err := h.uint32(field)
	if err != nil {
		return nil, err
	}
	if rank > maxRank {
		return nil, fail(at, field, "it has %d dimensions, at most %d are allowed", rank, maxRank)
	}
	shape := make([]int, rank)
	for i := range shape {
		at := h.at
		n, err := h.uint64(field)
		if err != nil {
			return nil, err
		}
		if n > math.MaxInt {
			return nil, fail(at, field, "dimension %d does not fit an int", n)
		}
		shape[i] = int(n)
	}
	slices.Reverse(shape)
	return shape, nil
}

// place turns offsets into those in the file, and checks that the data ends where
// the file does. The last padding may be missing.
func (h *reading) place() error {
	data := h.at
	data += pad(data, h.alignment)
	end := h.at
	for i := range h.entries {
		e := &h.entries[i]
		if e.Length > h.size-data-e.Offset {
			return fail(h.offsetsAt[i], "tensor "+archive.Quote(e.Name)+": offset", "the file is truncated: %d bytes begin at %d of the data, which has %d", e.Length, e.Offset, max(h.size-data, 0))
		}
		e.Offset += data
		end = e.Offset + e.Length
	}
	if end += pad(end-data, h.alignment); end < h.size {
		return fail(end, "data", "%d bytes follow that no tensor describes", h.size-end)
	}
	return nil
}
