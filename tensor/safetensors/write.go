package safetensors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/kith-mesh/kith/tensor/archive"
)

// Write writes a file. The same tensors and metadata give the same bytes in
// whatever order they come: tensors lie as the format's own library lays them
// (by type, I64 first and BOOL last, then by name), metadata by key. Data is
// streamed, and Write fails when it is longer or shorter than the shape takes;
// what it has written then is no file.
func Write(w io.Writer, metadata map[string]string, tensors []archive.Source) error {
	p, err := newPlan(metadata, tensors)
	if err != nil {
		return err
	}
	if _, err := w.Write(p.head); err != nil {
		return fmt.Errorf("safetensors: write header: %w", err)
	}
	for _, s := range p.sources {
		if err := s.Copy(w, s.bytes); err != nil {
			return fmt.Errorf("safetensors: write tensor %s: %w", archive.Quote(s.Name), err)
		}
	}
	return nil
}

// Size is how many bytes Write would write. It reads no Data.
func Size(metadata map[string]string, tensors []archive.Source) (int64, error) {
	p, err := newPlan(metadata, tensors)
	return p.size, err
}

// plan is a file but for its data.
type plan struct {
	head    []byte // length and header
	sources []sized
	size    int64 // of the file
}

type sized struct {
	archive.Source
	layout int
	bytes  int64
}

func newPlan(metadata map[string]string, tensors []archive.Source) (plan, error) {
	p := plan{sources: make([]sized, len(tensors))}
	for i, s := range tensors {
		n, err := check(&s)
		if err != nil {
			return plan{}, fmt.Errorf("safetensors: tensor %s: %w", archive.Quote(s.Name), err)
		}
		p.sources[i] = sized{s, layout(s.DType), n}
	}
	slices.SortFunc(p.sources, func(a, b sized) int {
		return cmp.Or(cmp.Compare(a.layout, b.layout), cmp.Compare(a.Name, b.Name))
	})
	seen := make(map[string]bool, len(tensors))
	for _, s := range p.sources {
		if seen[s.Name] {
			return plan{}, fmt.Errorf("safetensors: two tensors are named %s", archive.Quote(s.Name))
		}
		seen[s.Name] = true
		if s.bytes > math.MaxInt64/2-p.size {
			return plan{}, fmt.Errorf("safetensors: tensor %s: the tensors take more bytes than a file can have", archive.Quote(s.Name))
		}
		p.size += s.bytes
	}
	for key, value := range metadata {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return plan{}, fmt.Errorf("safetensors: metadata %s is not UTF-8", archive.Quote(key))
		}
	}
	p.head = header(metadata, p.sources)
	if n := len(p.head) - lengthBytes; n > MaxHeader {
		return plan{}, fmt.Errorf("safetensors: the header takes %d bytes, the format allows %d: use fewer tensors, shorter names or less metadata", n, MaxHeader)
	}
	p.size += int64(len(p.head))
	return p, nil
}

func check(s *archive.Source) (bytes int64, err error) {
	switch {
	case s.Name == metadataKey:
		return 0, fmt.Errorf("the format keeps this name for its metadata")
	case !utf8.ValidString(s.Name):
		return 0, fmt.Errorf("the name is not UTF-8")
	case layout(s.DType) < 0:
		return 0, fmt.Errorf("the format has no %v; there are %s", s.DType, dtypeNames())
	case len(s.Shape) > maxRank:
		return 0, fmt.Errorf("it has %d dimensions, at most %d are written", len(s.Shape), maxRank)
	}
	return s.Bytes()
}

// header makes the length and the JSON, padded by spaces to a multiple of 8.
func header(metadata map[string]string, sources []sized) []byte {
	b := append(make([]byte, lengthBytes), '{')
	comma := func() {
		if len(b) > lengthBytes+1 {
			b = append(b, ',')
		}
	}
	if len(metadata) > 0 {
		b = append(appendText(b, metadataKey), ":{"...)
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendText(b, key), ':')
			b = appendText(b, metadata[key])
		}
		b = append(b, '}')
	}
	at := int64(0)
	for _, s := range sources {
		comma()
		b = append(appendText(b, s.Name), `:{"dtype":"`...)
		b = append(append(b, dtypes[s.layout].name...), `","shape":[`...)
		for i, n := range s.Shape {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = append(strconv.AppendInt(b, at, 10), ',')
		at += s.bytes
		b = append(strconv.AppendInt(b, at, 10), "]}"...)
	}
	b = append(b, '}')
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	binary.LittleEndian.PutUint64(b, uint64(len(b)-lengthBytes))
	return b
}

// appendText writes a JSON string with the escapes that serde_json uses, which
// the format's own library writes with, so that the bytes are the same.
func appendText(b []byte, s string) []byte {
	const short = "btn\x00fr" // \b to \r
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= '\b' && c <= '\r' && c != '\v':
			b = append(b, '\\', short[c-'\b'])
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
