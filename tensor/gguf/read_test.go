package gguf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/gguf"
)

// raw is a file made by hand: integers as they are, strings with their length,
// []byte as they are.
func raw(parts ...any) []byte {
	le := binary.LittleEndian
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(le.AppendUint64(b, uint64(len(p))), p...)
		case []byte:
			b = append(b, p...)
		case uint32:
			b = le.AppendUint32(b, p)
		case int: // counts, dimensions, offsets
			b = le.AppendUint64(b, uint64(p))
		case uint64:
			b = le.AppendUint64(b, p)
		default:
			b, _ = binary.Append(b, le, p)
		}
	}
	return b
}

// head begins a file of so many tensors and values.
func head(tensors, values int) []byte { return raw([]byte("GGUF"), uint32(3), tensors, values) }

// w describes a tensor w of 8 floats, its data at an offset.
func w(offset int) []byte { return raw("w", uint32(1), 8, uint32(0), offset) }

// padded adds zeros to a multiple of 32, and so many bytes of data.
func padded(b []byte, data int) []byte {
	b = append(b, make([]byte, -len(b)&31)...)
	for i := range data {
		b = append(b, byte(i+1))
	}
	return b
}

func open(b []byte) (*gguf.File, error) { return gguf.Open(bytes.NewReader(b), int64(len(b))) }

func TestOpen(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		b := raw([]byte("GGUF"), version, 3, 15,
			"u8", uint32(0), uint8(200), "i8", uint32(1), int8(-2), "u16", uint32(2), uint16(65000), "i16", uint32(3), int16(-3),
			"u32", uint32(4), uint32(4e9), "i32", uint32(5), int32(-4), "f32", uint32(6), float32(0.5), "yes", uint32(7), true,
			"text", uint32(8), "a\xff", "u64", uint32(10), uint64(math.MaxUint64), "i64", uint32(11), int64(-5), "f64", uint32(12), 1e300,
			"general.alignment", uint32(4), uint32(64),
			"words", uint32(9), uint32(8), 2, "", "word",
			"deep", uint32(9), uint32(9), 3, uint32(9), 1, uint32(5), 2, int32(1), int32(-1), uint32(7), 2, false, true, uint32(9), 0,
			"blk.0.w", uint32(2), 32, 3, uint32(8), 0, "none", uint32(3), 5, 0, 2, uint32(0), 128, "s", uint32(0), uint32(30), 128)
		data := (len(b) + 63) &^ 63
		b = append(b, make([]byte, data-len(b))...)
		for i := range 128 + 2 { // 3 rows of 34 and padding; nothing; one bfloat16, not padded
			b = append(b, byte(i))
		}
		f, err := open(b)
		if err != nil {
			t.Fatal(err)
		}
		if f.Version() != int(version) || f.Alignment() != 64 {
			t.Errorf("version %d, alignment %d", f.Version(), f.Alignment())
		}
		want := gguf.Metadata{"u8": uint8(200), "i8": int8(-2), "u16": uint16(65000), "i16": int16(-3), "u32": uint32(4e9), "i32": int32(-4),
			"f32": float32(0.5), "yes": true, "text": "a\xff", "u64": uint64(math.MaxUint64), "i64": int64(-5), "f64": 1e300,
			"general.alignment": uint32(64), "words": []string{"", "word"},
			"deep": []any{[]any{[]int32{1, -1}}, []bool{false, true}, []any{}}}
		if got, want := fmt.Sprintf("%#v", f.Metadata()), fmt.Sprintf("%#v", want); got != want {
			t.Errorf("metadata\n%s\nwant\n%s", got, want)
		}
		wantTensors := []archive.Entry{
			{Name: "blk.0.w", DType: tensor.Q8_0, Shape: []int{3, 32}, Offset: int64(data), Length: 102},
			{Name: "none", DType: tensor.F32, Shape: []int{2, 0, 5}, Offset: int64(data) + 128},
			{Name: "s", DType: tensor.BF16, Shape: []int{}, Offset: int64(data) + 128, Length: 2},
		}
		if got := fmt.Sprintf("%#v", f.Tensors()); got != fmt.Sprintf("%#v", wantTensors) {
			t.Errorf("tensors\n%s\nwant\n%#v", got, wantTensors)
		}
		buf := make([]byte, 2)
		if err := f.Read("s", buf); err != nil || buf[0] != 128 || buf[1] != 129 {
			t.Errorf("read %x, %v", buf, err)
		}
	}
}

// TestLong: arrays and texts longer than what is read at once.
func TestLong(t *testing.T) {
	floats := make([]float64, 20000)
	shorts := make([]int16, 100001)
	words := make([]string, 30000)
	for i := range floats {
		floats[i] = float64(i)
	}
	for i := range shorts {
		shorts[i] = int16(i)
	}
	for i := range words {
		words[i] = fmt.Sprint("word", i)
	}
	m := gguf.Metadata{"floats": floats, "shorts": shorts, "words": words, "text": strings.Repeat("0123456789", 50000), "bytes": make([]uint8, 200000)}
	b, err := write(m)
	if err != nil {
		t.Fatal(err)
	}
	f, err := open(b)
	if err != nil || fmt.Sprintf("%#v", f.Metadata()) != fmt.Sprintf("%#v", m) {
		t.Fatal("metadata differs", err)
	}
}

// TestRefused: each fault is refused with the field and the place of it: the
// first at of the parts stand before.
func TestRefused(t *testing.T) {
	kv := func(key string, parts ...any) []byte { return raw(append([]any{head(0, 1), key}, parts...)...) }
	info := func(parts ...any) []byte { return raw(append([]any{head(1, 0)}, parts...)...) }
	nested := raw("k", uint32(9))
	for range 4 {
		nested = raw(nested, uint32(9), 1)
	}
	big := 1 << 62
	for _, c := range []struct {
		b      []byte
		field  string
		at     int
		reason string
	}{
		{nil, "magic", 0, "truncated: it takes 4 bytes, 0 are left"},
		{[]byte("GGML\x03\x00\x00\x00"), "magic", 0, `begins with "GGML", want "GGUF"`},
		{raw([]byte("GGUF"), uint32(1), 0, 0), "version", 4, "convert the model again"},
		{raw([]byte("GGUF"), uint32(0), 0, 0), "version", 4, "version 0 is not supported"},
		{raw([]byte("GGUF"), uint32(4), 0, 0), "version", 4, "version 4 is not supported"},
		{raw([]byte("GGUF"), uint32(3<<24), 0, 0), "version", 4, "big-endian (version 3)"},
		{raw([]byte("GGUF"), uint32(0xffffffff), 0, 0), "version", 4, "version 4294967295 is not supported"},
		{raw([]byte("GGUF"), uint32(3), -1, 0), "tensor count", 8, "it counts 18446744073709551615 of 24 bytes"},
		{raw([]byte("GGUF"), uint32(3), 1, 0), "tensor count", 8, "it counts 1 of 24 bytes at least, 8 bytes are left"},
		{raw([]byte("GGUF"), uint32(3), 0, 1<<32), "metadata count", 16, "it counts 4294967296 of 14 bytes"},

		{raw(head(0, 1), uint64(1<<16), make([]byte, 9)), "metadata 0: key", 24, "its length is 65536, at most 65535"},
		{raw(head(0, 1), 20, make([]byte, 9)), "metadata 0: key", 32, "truncated: its text takes 20 bytes, 9 are left"},
		{kv("", make([]byte, 9)), "metadata 0: key", 24, "it is empty"},
		{kv("\xff", uint32(0), uint8(1)), "metadata 0: key", 24, "not UTF-8"},
		{kv("k", uint32(13), uint8(1)), `metadata "k"`, 33, "type 13 is not known; there are 0 to 12"},
		{kv("k", uint32(7), uint8(2)), `metadata "k"`, 37, "a bool is 2"},
		{kv("k", uint32(10), uint8(2)), `metadata "k"`, 37, "truncated: it takes 8 bytes, 1 are left"},
		{kv("k", uint32(8), big), `metadata "k"`, 37, "its length is 4611686018427387904"},
		{kv("k", uint32(8), 9, uint8(0)), `metadata "k"`, 45, "its text takes 9 bytes, 1 are left"},
		{kv("k", uint32(9), uint32(77), 1), `metadata "k"`, 37, "type 77"},
		{kv("k", uint32(9), uint32(0), -1), `metadata "k"`, 41, "it counts 18446744073709551615 of 1 bytes at least, 0 bytes are left"},
		{kv("k", uint32(9), uint32(6), 3, make([]byte, 11)), `metadata "k"`, 41, "it counts 3 of 4 bytes at least, 11 bytes are left"},
		{kv("k", uint32(9), uint32(8), 3, make([]byte, 23)), `metadata "k"`, 41, "it counts 3 of 8 bytes"},
		{kv("k", uint32(9), uint32(8), 1, 5, uint8(0)), `metadata "k"`, 57, "its text takes 5 bytes, 1 are left"},
		{kv("k", uint32(9), uint32(7), 2, uint8(1), uint8(3)), `metadata "k"`, 50, "a bool is 3"},
		{raw(head(0, 1), nested, uint32(0), 0), `metadata "k"`, 24 + len(nested), "over 4 arrays within each other"},
		{raw(head(0, 2), "k", uint32(0), uint8(1), "k", uint32(0), uint8(1)), `metadata "k"`, 38, "the key stands twice"},
		{kv("general.alignment", uint32(4), uint32(0)), `metadata "general.alignment"`, 53, "the uint32 0, want a uint32 that is a power of two"},
		{kv("general.alignment", uint32(4), uint32(48)), `metadata "general.alignment"`, 53, "the uint32 48, want"},
		{kv("general.alignment", uint32(10), uint64(32)), `metadata "general.alignment"`, 53, "the uint64 0, want"},

		{info(65, make([]byte, 99)), "tensor 0: name", 24, "its length is 65, at most 64"},
		{info("", uint32(0), uint32(0), 0), "tensor 0: name", 24, "it is empty"},
		{info("\xff", uint32(0), uint32(0), 0), "tensor 0: name", 24, "not UTF-8"},
		{info("w", uint32(5), make([]byte, 99)), `tensor "w": shape`, 33, "it has 5 dimensions, at most 4"},
		{info("w", uint32(2), 1, make([]byte, 7)), `tensor "w": shape`, 45, "truncated: it takes 8 bytes, 7 are left"},
		{info("w", uint32(1), uint64(1<<63), uint32(0), 0), `tensor "w": shape`, 37, "dimension 9223372036854775808 does not fit"},
		{info("w", uint32(2), 1<<32, 1<<32, uint32(0), 0), `tensor "w": shape`, 33, "more elements than fit"},
		{info("w", uint32(3), 0, 1<<32, 1<<32, uint32(0), 0), `tensor "w": shape`, 33, "more elements than fit"},
		{info("w", uint32(1), 1<<62, uint32(0), 0), `tensor "w": shape`, 33, "more bytes than fit"},
		{info("w", uint32(2), 33, 32, uint32(8), 0), `tensor "w": shape`, 33, "[32 33] does not end in a multiple of 32"},
		{info("w", uint32(0), uint32(12), 0), `tensor "w": shape`, 33, "multiple of 256"},
		{info("w", uint32(1), 8, uint32(13), 0), `tensor "w": type`, 45, "type 13, ggml's q5_K, is not supported; there are f32"},
		{info("w", uint32(1), 8, uint32(24), 0), `tensor "w": type`, 45, "ggml's i8"},
		{info("w", uint32(1), 8, uint32(43), 0), `tensor "w": type`, 45, "type 43 is not known"},
		{info("w", uint32(1), 8, uint32(math.MaxUint32), 0), `tensor "w": type`, 45, "type 4294967295 is not known"},
		{padded(raw(head(2, 0), w(0), w(32)), 64), `tensor "w"`, 57, "the name stands twice"},
		{padded(info(w(8)), 64), `tensor "w": offset`, 49, "8 is no multiple of the alignment 32"},
		{padded(info(w(32)), 64), `tensor "w": offset`, 49, "begins at 32 and leaves a hole: the first tensor belongs at 0"},
		{padded(info(w(-32)), 64), `tensor "w": offset`, 49, "begins at 18446744073709551584 and leaves a hole"},
		{padded(raw(head(2, 0), "v", w(0)[9:], w(0)), 64), `tensor "w": offset`, 82, `begins at 0, within another tensor's: tensor "v" ends, padded, at 32`},
		{padded(raw(head(2, 0), "v", w(0)[9:], w(64)), 96), `tensor "w": offset`, 82, `leaves a hole: tensor "v" ends, padded, at 32`},
		{padded(info(w(0)), 31), `tensor "w": offset`, 49, "truncated: 32 bytes begin at 0 of the data, which has 31"},
		{info(w(0)), `tensor "w": offset`, 49, "truncated: 32 bytes begin at 0 of the data, which has 0"},
		{padded(info("w", uint32(1), 1<<60, uint32(0), 0), 31), `tensor "w": offset`, 49, "truncated: 4611686018427387904 bytes begin at 0"},
		{padded(info(w(0)), 33), "data", 96, "1 bytes follow that no tensor describes"},
		{padded(head(0, 0), 1), "data", 32, "1 bytes follow"},
	} {
		_, err := open(c.b)
		var e *archive.Error
		if !errors.As(err, &e) || e.Field != c.field || e.Offset != int64(c.at) || !strings.Contains(e.Reason, c.reason) {
			t.Errorf("%.60x: %v; want %s at byte %d: ...%s...", c.b, err, c.field, c.at, c.reason)
		}
	}
}

// TestTruncated: no shorter file is taken, but one that lacks the last padding.
func TestTruncated(t *testing.T) {
	b, err := write(gguf.Metadata{"a": uint8(1), "b": []string{"x", "yz"}, "c": []any{[]float32{1}}},
		source("v", tensor.F16, "ab", 1), source("w", tensor.F32, "abcdefgh", 2, 1))
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		_, err := open(b[:n])
		if ends := len(b) - 24; (err == nil) != (n >= ends) || err != nil && !strings.Contains(err.Error(), "left") && !strings.Contains(err.Error(), "truncated") {
			t.Errorf("first %d bytes of %d: %v", n, len(b), err)
		}
		if _, err := gguf.Open(bytes.NewReader(b[:n]), int64(len(b))); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("first %d bytes of %d, said to be all: %v", n, len(b), err)
		}
	}
	if _, err := gguf.Open(bytes.NewReader(b), -1); err == nil {
		t.Error("a file of -1 bytes is opened")
	}
}

// sparse is a file of zeros after what it begins with.
type sparse []byte

func (s sparse) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(s)) {
		copy(b, s[at:])
	}
	return len(b), nil
}

// TestHeaderBound: a file may be as large as it likes, what is read at once not.
func TestHeaderBound(t *testing.T) {
	b := raw(head(0, 1), "k", uint32(9), uint32(0), 1<<40)
	if _, err := gguf.Open(sparse(b), 1<<41); err == nil || !strings.Contains(err.Error(), "it counts 1099511627776 of 1 bytes") {
		t.Error(err)
	}
	b = raw(head(0, 1), "k", uint32(8), gguf.MaxHeader)
	if _, err := gguf.Open(sparse(b), 1<<41); err == nil || !strings.Contains(err.Error(), "of the 134217728 that are read before the elements") {
		t.Error(err)
	}
}

// TestMemory: a file makes Open take no more memory than its size warrants, all
// that it takes and drops again counted.
func TestMemory(t *testing.T) {
	const size = 1 << 20
	empty := raw("k", uint32(9), uint32(9), size/12)
	for range size / 12 {
		empty = append(empty, raw(uint32(9), 0)...)
	}
	var values, tensors []byte
	n := 0
	for ; len(values) < size; n++ {
		values = append(values, raw(fmt.Sprintf("%x", n), uint32(0), uint8(0))...)
	}
	m := 0
	for ; len(tensors) < size; m++ {
		tensors = append(tensors, raw(fmt.Sprintf("%x", m), uint32(1), 0, uint32(0), 0)...)
	}
	for name, b := range map[string][]byte{
		"words":   raw(head(0, 1), "k", uint32(9), uint32(8), size/8, make([]byte, size)),
		"bools":   raw(head(0, 1), "k", uint32(9), uint32(7), size, make([]byte, size)),
		"arrays":  raw(head(0, 1), empty),
		"values":  raw(head(0, n), values),
		"tensors": padded(raw(head(m, 0), tensors), 0),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := open(b)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 40*size || err != nil {
			t.Errorf("%s: %d bytes take %d, %v", name, len(b), took, err)
		}
	}
}
