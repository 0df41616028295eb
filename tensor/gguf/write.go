package gguf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/kith-mesh/kith/tensor/archive"
)

// Write writes a file of version 3. The same tensors and metadata give the same
// bytes in whatever order they come: both are sorted by name. Tensors are aligned
// to general.alignment, 32 bytes if metadata has none. Data is streamed, and
// Write fails when it is longer or shorter than the shape takes; what it has
// written then is no file. llama.cpp reads no arrays of arrays.
func Write(w io.Writer, metadata Metadata, tensors []archive.Source) error {
	p, err := newPlan(metadata, tensors)
	if err != nil {
		return err
	}
	if _, err := w.Write(p.head); err != nil {
		return fmt.Errorf("gguf: write header: %w", err)
	}
	for _, s := range p.sources {
		err := s.Copy(w, s.bytes)
		if err == nil {
			err = zeros(w, pad(s.bytes, p.alignment))
		}
		if err != nil {
			return fmt.Errorf("gguf: write tensor %s: %w", archive.Quote(s.Name), err)
		}
	}
	return nil
}

// Size is how many bytes Write would write. It reads no Data.
func Size(metadata Metadata, tensors []archive.Source) (int64, error) {
	p, err := newPlan(metadata, tensors)
	return p.size, err
}

func zeros(w io.Writer, n int64) error {
	var block [512]byte
	for n > 0 {
		part := min(n, int64(len(block)))
		if _, err := w.Write(block[:part]); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// plan is a file but for its elements.
type plan struct {
	head      []byte // all before them, padded
	sources   []sized
	alignment int64
	size      int64 // of the file
}

type sized struct {
	archive.Source
	number uint32 // of the type
	bytes  int64
}

func newPlan(metadata Metadata, tensors []archive.Source) (plan, error) {
	p := plan{alignment: defaultAlignment}
	if v, ok := metadata[alignmentKey]; ok {
		n, ok := v.(uint32)
		if !ok || bits.OnesCount32(n) != 1 || n < 8 || n > maxAlignment {
			return plan{}, fmt.Errorf("gguf: metadata %q is the %T %d: want a uint32 that is a power of two from 8 to %d", alignmentKey, v, n, maxAlignment)
		}
		p.alignment = int64(n)
	}
	seen := make(map[string]bool, len(tensors))
	for _, s := range tensors {
		x, err := check(s)
		if err == nil && seen[s.Name] {
			err = fmt.Errorf("the name stands twice")
		}
		if err != nil {
			return plan{}, fmt.Errorf("gguf: tensor %s: %w", archive.Quote(s.Name), err)
		}
		seen[s.Name] = true
		p.sources = append(p.sources, x)
	}
	slices.SortFunc(p.sources, func(a, b sized) int { return cmp.Compare(a.Name, b.Name) })
	if err := p.describe(metadata); err != nil {
		return plan{}, err
	}
	return p, nil
}

func check(s archive.Source) (sized, error) {
	// llama.cpp keeps names in 64 bytes that a zero ends.
	if err := checkName(s.Name, maxName-1); err != nil {
		return sized{}, fmt.Errorf("the name: %w", err)
	}
	n, err := number(s.DType)
	if err != nil {
		return sized{}, err
	}
	if len(s.Shape) > maxRank {
		return sized{}, fmt.Errorf("it has %d dimensions, at most %d are written", len(s.Shape), maxRank)
	}
	bytes, err := s.Bytes()
	return sized{s, n, bytes}, err
}

// describe makes the head and the size.
func (p *plan) describe(metadata Metadata) error {
	le := binary.LittleEndian
	b := append([]byte(nil), magic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint64(b, uint64(len(p.sources)))
	b = le.AppendUint64(b, uint64(len(metadata)))
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		err := checkName(key, maxKey)
		if err == nil {
			b, err = appendValue(appendText(b, key), metadata[key])
		}
		if err != nil {
			return fmt.Errorf("gguf: metadata %s: %w", archive.Quote(key), err)
		}
	}
	for _, s := range p.sources {
		b = appendText(b, s.Name)
		b = le.AppendUint32(b, uint32(len(s.Shape)))
		for _, n := range slices.Backward(s.Shape) {
			b = le.AppendUint64(b, uint64(n))
		}
		b = le.AppendUint32(b, s.number)
		b = le.AppendUint64(b, uint64(p.size))
		if s.bytes > math.MaxInt64/2-p.size {
			return fmt.Errorf("gguf: tensor %s: the tensors take more bytes than a file can have", archive.Quote(s.Name))
		}
		p.size += s.bytes + pad(s.bytes, p.alignment)
	}
	if len(b) > MaxHeader {
		return fmt.Errorf("gguf: %d bytes stand before the elements, at most %d are read: use fewer tensors or less metadata", len(b), MaxHeader)
	}
	p.head = append(b, make([]byte, pad(int64(len(b)), p.alignment))...)
	p.size += int64(len(p.head))
	return nil
}
