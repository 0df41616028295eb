package safetensors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/kith-mesh/kith/tensor/archive"
)

// File is a file whose header has been read and found right.
type File struct {
	archive.Index
	metadata map[string]string
}

// Open reads the header of a file of size bytes and checks all of it; r is read
// again when a tensor is. Faults of the file are an *archive.Error.
func Open(r io.ReaderAt, size int64) (*File, error) {
	if size < lengthBytes {
		return nil, &archive.Error{Format: format, Field: "header length", Reason: fmt.Sprintf("the file is truncated: it has %d bytes, the length takes %d", max(size, 0), lengthBytes)}
	}
	var length [lengthBytes]byte
	if err := archive.ReadAt(r, length[:], 0, format, "header length"); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > MaxHeader:
		return nil, &archive.Error{Format: format, Field: "header length", Reason: fmt.Sprintf("it says %d bytes, at most %d are read", n, MaxHeader)}
	case int64(n) > size-lengthBytes:
		return nil, &archive.Error{Format: format, Field: "header length", Reason: fmt.Sprintf("the file is truncated: it says %d bytes, the file has %d after it", n, size-lengthBytes)}
	}
	header := make([]byte, n)
	if err := archive.ReadAt(r, header, lengthBytes, format, "header"); err != nil {
		return nil, err
	}
	var h contents
	if err := h.parse(header); err != nil {
		return nil, err
	}
	entries, err := h.place(lengthBytes+int64(n), size)
	if err != nil {
		return nil, err
	}
	return &File{archive.NewIndex(format, r, entries), h.metadata}, nil
}

// contents is what a header says.
type contents struct {
	entries   []archive.Entry // whose Offset counts from the data
	offsetsAt []int32         // where in the header the data_offsets of each stand
	metadata  map[string]string
}

// parse reads the header's JSON.
func (c *contents) parse(header []byte) error {
	s := &scanner{b: header}
	if len(header) == 0 || header[0] != '{' {
		return fail(0, "header", "it does not begin with {")
	}
	seen := map[string]bool{}
	err := s.object("header", func(name string, at int) error {
		if name == metadataKey {
			if c.metadata != nil {
				return fail(at, metadataKey, "it stands twice")
			}
			return c.parseMetadata(s)
		}
		if seen[name] {
			return fail(at, "tensor "+archive.Quote(name), "the name stands twice")
		}
		seen[name] = true
		return c.parseTensor(s, name, at)
	})
	if err == nil && (s.peek() != 0 || s.at < len(header)) {
		err = s.unexpected("header", "nothing but spaces after the object")
	}
	return err
}

func (c *contents) parseMetadata(s *scanner) error {
	c.metadata = map[string]string{}
	return s.object(metadataKey, func(key string, at int) error {
		if _, twice := c.metadata[key]; twice {
			return fail(at, metadataKey, "key %s stands twice", archive.Quote(key))
		}
		value, err := s.text(metadataKey)
		c.metadata[key] = value
		return err
	})
}

// parseTensor reads the description of one tensor, whose name begins at an index
// of the header, and checks what can be checked of it alone.
func (c *contents) parseTensor(s *scanner, name string, at int) error {
	who, t := "tensor "+archive.Quote(name), archive.Entry{Name: name}
	var ends []int64
	shapeAt, offsetsAt := 0, 0
	err := s.object(who, func(key string, keyAt int) error {
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
				return fail(valueAt, who+": dtype", "%s is not supported; there are %s", archive.Quote(name), dtypeNames())
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
			return fail(keyAt, who, "unknown field %s; there are dtype, shape and data_offsets", archive.Quote(key))
		}
		if twice {
			return fail(keyAt, who, "field %s stands twice", archive.Quote(key))
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case t.DType == 0:
		return fail(at, who+": dtype", "it is missing")
	case t.Shape == nil:
		return fail(at, who+": shape", "it is missing")
	case ends == nil:
		return fail(at, who+": data_offsets", "it is missing")
	case len(ends) != 2:
		return fail(offsetsAt, who+": data_offsets", "it has %d numbers, want where the data begins and ends", len(ends))
	case ends[0] > ends[1]:
		return fail(offsetsAt, who+": data_offsets", "the data ends at %d, before it begins at %d", ends[1], ends[0])
	}
	want, err := t.DType.Bytes(t.Shape)
	if err != nil {
		return fail(shapeAt, who+": shape", "%s", err)
	}
	t.Shape = slices.Clip(t.Shape)
	t.Offset, t.Length = ends[0], ends[1]-ends[0]
	if t.Length != int64(want) {
		return fail(offsetsAt, who+": data_offsets", "%d bytes from %d to %d; %v of shape %v takes %d", t.Length, ends[0], ends[1], t.DType, t.Shape, want)
	}
	c.entries = append(c.entries, t)
	c.offsetsAt = append(c.offsetsAt, int32(offsetsAt))
	return nil
}

// place sorts the tensors as their data lies and checks that it covers the file
// from data to size: each byte once.
func (c *contents) place(data, size int64) ([]archive.Entry, error) {
	order := make([]int32, len(c.entries))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		x, y := &c.entries[a], &c.entries[b]
		return cmp.Or(cmp.Compare(x.Offset, y.Offset), cmp.Compare(x.Length, y.Length))
	})
	end, before := int64(0), "the data begins"
	sorted := make([]archive.Entry, len(order))
	for k, i := range order {
		t := c.entries[i]
		who := "tensor " + archive.Quote(t.Name) + ": data_offsets"
		switch {
		case t.Offset < end:
			return nil, fail(int(c.offsetsAt[i]), who, "the data begins at %d, within another tensor's: %s at %d", t.Offset, before, end)
		case t.Offset > end:
			return nil, fail(int(c.offsetsAt[i]), who, "the data begins at %d and leaves a hole: %s at %d", t.Offset, before, end)
		case t.Length > size-data-end:
			return nil, fail(int(c.offsetsAt[i]), who, "the file is truncated: the data ends at %d, the file has %d bytes of data", t.Offset+t.Length, size-data)
		}
		end += t.Length
		before = "tensor " + archive.Quote(t.Name) + " ends"
		t.Offset += data
		sorted[k] = t
	}
	if end != size-data {
		return nil, &archive.Error{Format: format, Field: "data", Offset: data + end, Reason: fmt.Sprintf("%d bytes follow that no tensor describes", size-data-end)}
	}
	return sorted, nil
}

// Metadata gives the free text of the header, nil if it has none. It is not to be
// changed.
func (f *File) Metadata() map[string]string { return f.metadata }
