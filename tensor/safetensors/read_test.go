package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/safetensors"
)

// file puts a header and so many bytes of data together.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range data {
		b = append(b, byte(i))
	}
	return b
}

func open(b []byte) (*safetensors.File, error) {
	return safetensors.Open(bytes.NewReader(b), int64(len(b)))
}

func TestOpen(t *testing.T) {
	const header = `{"c":{"shape":[],"data_offsets":[10,12],"dtype":"BF16"},` +
		`"__metadata__":{"a":"1","\u0062":"\ud83d\ude00\n"},` +
		` "empty" : { "dtype":"F64","shape":[3,0],"data_offsets":[2,2]},` +
		`"a\/b":{"dtype":"F32","shape":[2,1],"data_offsets":[2,10]},"d":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}` + " \t\r\n"
	b := file(header, 12)
	f, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Names(), []string{"d", "empty", "a/b", "c"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	data := int64(8 + len(header))
	for _, want := range []archive.Entry{
		{Name: "d", DType: tensor.Bool, Shape: []int{2}, Offset: data, Length: 2},
		{Name: "empty", DType: tensor.F64, Shape: []int{3, 0}, Offset: data + 2, Length: 0},
		{Name: "a/b", DType: tensor.F32, Shape: []int{2, 1}, Offset: data + 2, Length: 8},
		{Name: "c", DType: tensor.BF16, Shape: []int{}, Offset: data + 10, Length: 2},
	} {
		got, ok := f.Tensor(want.Name)
		if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) || !ok {
			t.Errorf("got  %#v %v\nwant %#v", got, ok, want)
		}
		buf := make([]byte, want.Length)
		if err := f.Read(want.Name, buf); err != nil || !bytes.Equal(buf, b[want.Offset:want.Offset+want.Length]) {
			t.Errorf("%s: read %x, %v", want.Name, buf, err)
		}
		s, err := f.Section(want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(s, buf); err != nil {
			t.Errorf("%s: %v", want.Name, err)
		}
	}
	if got := fmt.Sprintf("%q", f.Metadata()); got != `map["a":"1" "b":"😀\n"]` {
		t.Errorf("metadata %s", got)
	}
	if err := f.Read("x", nil); !errors.Is(err, archive.ErrNoTensor) {
		t.Errorf("x: %v", err)
	}
	if _, err := f.Section("x"); !errors.Is(err, archive.ErrNoTensor) {
		t.Errorf("x: %v", err)
	}
	if err := f.Read("c", make([]byte, 3)); err == nil || !strings.Contains(err.Error(), `"c" has 2 bytes, the buffer 3`) {
		t.Errorf("buffer of another length: %v", err)
	}
}

// one is a header of one tensor named w with the fields given.
func one(fields string) string { return `{"w":{` + fields + `}}` }

// TestRefused: each fault is refused with the field and the place of it, which is
// where the header holds at, or as a number counts.
func TestRefused(t *testing.T) {
	long := strings.Repeat("n", 200)
	for _, c := range []struct {
		header string
		data   int
		field  string
		at     any // text in the header, or a byte of the file
		reason string
	}{
		{``, 0, "header", 8, "does not begin with {"},
		{` {}`, 0, "header", 8, "does not begin with {"},
		{`[]`, 0, "header", 8, "does not begin with {"},
		{`{`, 0, "header", 9, "the header ends, want a name in quotes"},
		{`{}x`, 0, "header", "x", "nothing but spaces"},
		{"{}\x00", 0, "header", "\x00", "nothing but spaces"},
		{`{,}`, 0, "header", ",", "a name in quotes"},
		{`{"w"}`, 0, "header", "}", `want ':'`},
		{`{"w":1}`, 0, `tensor "w"`, "1", `want '{'`},
		{`{"w`, 0, "header", 11, "ends within a string"},
		{`{"w\`, 0, "header", 12, "ends within a string"},
		{"{\"a\nb\":1}", 0, "header", "\n", "control character"},
		{"{\"\\n\n\":1}", 0, "header", "\n", "control character"},
		{`{"\x":1}`, 0, "header", `\x`, "unknown escape"},
		{`{"\u12g4":1}`, 0, "header", `\u`, "four hexadecimal digits"},
		{`{"\ud800":1}`, 0, "header", `\u`, "four hexadecimal digits"},
		{`{"\ud800\u0041":1}`, 0, "header", `\u`, "four hexadecimal digits"},
		{`{"\u12`, 0, "header", `\u`, "four hexadecimal digits"},
		{"{\"\xff\":1}", 0, "header", "\xff", "not UTF-8"},
		{"{\"\\n\xff\":1}", 0, "header", `\n`, "not UTF-8"},
		{`{"__metadata__":{"a":1}}`, 0, "__metadata__", "1", "want a string"},
		{`{"__metadata__":null}`, 0, "__metadata__", "null", `want '{'`},
		{`{"__metadata__":{"a":"","a":""}}`, 0, "__metadata__", `"a":""}`, `key "a" stands twice`},
		{`{"__metadata__":{},"__metadata__":{}}`, 0, "__metadata__", `"__metadata__":{}}`, "stands twice"},
		{`{"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"\u0077":{}}`, 1, `tensor "w"`, `"\u0077"`, "the name stands twice"},
		{`{"` + long + `":{}}`, 0, "tensor \"" + long[:80] + "\" and 120 bytes more: dtype", `"nnn`, "missing"},

		{one(``), 0, `tensor "w": dtype`, `"w"`, "missing"},
		{one(`"dtype":"U8"`), 0, `tensor "w": shape`, `"w"`, "missing"},
		{one(`"dtype":"U8","shape":[]`), 0, `tensor "w": data_offsets`, `"w"`, "missing"},
		{one(`"dtype":"U8","dtype":"U8"`), 0, `tensor "w"`, `"dtype":"U8"}`, `field "dtype" stands twice`},
		{one(`"shape":[],"shape":[]`), 0, `tensor "w"`, `"shape":[]}`, `field "shape" stands twice`},
		{one(`"data_offsets":[],"data_offsets":[]`), 0, `tensor "w"`, `"data_offsets":[]}`, `field "data_offsets" stands twice`},
		{one(`"strides":[]`), 0, `tensor "w"`, `"strides"`, `unknown field "strides"`},
		{one(`"dtype":8`), 0, `tensor "w": dtype`, "8", "want a string"},
		{one(`"dtype":"F8_E4M3"`), 0, `tensor "w": dtype`, `"F8_E4M3"`, `"F8_E4M3" is not supported; there are I64, F64`},
		{one(`"dtype":"f32"`), 0, `tensor "w": dtype`, `"f32"`, `"f32" is not supported`},

		{one(`"shape":2`), 0, `tensor "w": shape`, "2", `want '['`},
		{one(`"shape":[2`), 0, `tensor "w": shape`, "}", `want ',' or ']'`},
		{one(`"shape":[-2]`), 0, `tensor "w": shape`, "-2", "a whole number, not negative"},
		{one(`"shape":[2.0]`), 0, `tensor "w": shape`, "2.0", "a fraction or an exponent"},
		{one(`"shape":[2e9]`), 0, `tensor "w": shape`, "2e9", "a fraction or an exponent"},
		{one(`"shape":[02]`), 0, `tensor "w": shape`, "02", "begins with 0"},
		{one(`"shape":[9223372036854775808]`), 0, `tensor "w": shape`, "92233", "over 9223372036854775807"},
		{one(`"shape":[` + strings.Repeat("1,", 64) + `1]`), 0, `tensor "w": shape`, "[1,1", "over 64 dimensions"},
		{one(`"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]`), 0, `tensor "w": shape`, "[429", "more elements than fit"},
		{one(`"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]`), 0, `tensor "w": shape`, "[0,429", "more elements than fit"},
		{one(`"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]`), 0, `tensor "w": shape`, "[230", "more bytes than fit"},

		{one(`"dtype":"U8","shape":[],"data_offsets":[0]`), 1, `tensor "w": data_offsets`, "[0]", "it has 1 numbers"},
		{one(`"dtype":"U8","shape":[],"data_offsets":[0,1,2]`), 1, `tensor "w": data_offsets`, "[0,1", "over 2 numbers"},
		{one(`"dtype":"U8","shape":[],"data_offsets":[1,0]`), 1, `tensor "w": data_offsets`, "[1,0]", "ends at 0, before it begins at 1"},
		{one(`"dtype":"I32","shape":[2,2],"data_offsets":[0,4]`), 4, `tensor "w": data_offsets`, "[0,4]", "4 bytes from 0 to 4; i32 of shape [2 2] takes 16"},
		{one(`"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]`), 9, `tensor "w": data_offsets`, "[0,9", "truncated"},
		{one(`"dtype":"U8","shape":[4],"data_offsets":[0,4]`), 3, `tensor "w": data_offsets`, "[0,4]", "truncated: the data ends at 4, the file has 3"},
		{one(`"dtype":"U8","shape":[4],"data_offsets":[2,6]`), 6, `tensor "w": data_offsets`, "[2,6]", "begins at 2 and leaves a hole: the data begins at 0"},
		{`{"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 3,
			`tensor "b": data_offsets`, "[1,3]", `begins at 1, within another tensor's: tensor "a" ends at 2`},
		{`{"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 4,
			`tensor "b": data_offsets`, "[3,4]", `leaves a hole: tensor "a" ends at 2`},
		{`{"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2,
			`tensor "a": data_offsets`, "[0,2]}}", "within another tensor's"},
		{`{}`, 3, "data", 10, "3 bytes follow that no tensor describes"},
		{one(`"dtype":"U8","shape":[2],"data_offsets":[0,2]`), 3, "data", 8 + 53 + 2, "1 bytes follow"},
	} {
		_, err := open(file(c.header, c.data))
		var e *archive.Error
		if !errors.As(err, &e) {
			t.Errorf("%.80s: %v", c.header, err)
			continue
		}
		at, ok := c.at.(int)
		if s, text := c.at.(string); text {
			at = strings.Index(c.header, s)
			ok = at >= 0
			at += 8
		}
		if !ok || e.Field != c.field || e.Offset != int64(at) || !strings.Contains(e.Reason, c.reason) {
			t.Errorf("%.80s: %v; want %s at byte %d: ...%s...", c.header, err, c.field, at, c.reason)
		}
	}
}

func TestHeaderLength(t *testing.T) {
	good := file(one(`"dtype":"U8","shape":[2],"data_offsets":[0,2]`), 2)
	for n := range len(good) {
		if _, err := open(good[:n]); err == nil || !strings.Contains(err.Error(), "truncated") {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	for _, n := range []uint64{3, 100_000_000, 100_000_001, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		b := append(binary.LittleEndian.AppendUint64(nil, n), "{}"...)
		_, err := open(b)
		var e *archive.Error
		if !errors.As(err, &e) || e.Field != "header length" || e.Offset != 0 || !strings.Contains(e.Reason, fmt.Sprint(n)) {
			t.Errorf("%d: %v", n, err)
		}
	}
	if _, err := safetensors.Open(bytes.NewReader(good), -1); err == nil {
		t.Error("a file of -1 bytes is opened")
	}
	if _, err := safetensors.Open(closed{}, 64); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that fails: %v", err)
	}
}

// TestTruncatedLater: a file may shrink after it was opened.
func TestTruncatedLater(t *testing.T) {
	b := file(one(`"dtype":"U8","shape":[4],"data_offsets":[0,4]`), 2)
	f, err := safetensors.Open(bytes.NewReader(b), int64(len(b))+2)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Read("w", make([]byte, 4)); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "2 bytes of 4") {
		t.Error(err)
	}
}

// TestMemory: a file makes Open take no more memory than its size warrants, all
// that it takes and drops again counted.
func TestMemory(t *testing.T) {
	const size = 1 << 20
	fill := func(begin, item, end string) []byte {
		return file(begin+strings.Repeat(item, (size-len(begin)-len(end))/len(item))+end, 0)
	}
	var tensors []byte
	for i := 0; len(tensors) < size; i++ {
		tensors = fmt.Appendf(tensors, `,"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, i)
	}
	tensors[0] = '{'
	for name, b := range map[string][]byte{
		"brackets":   fill(`{"w":{"shape":`, `[`, ``),
		"dimensions": fill(`{"w":{"shape":[`, `1,`, `1]}}`),
		"offsets":    fill(`{"w":{"data_offsets":[`, `1,`, `1]}}`),
		"objects":    fill(``, `{"":`, ``),
		"escapes":    fill(`{"`, `\u0041`, `":`),
		"tensors":    file(string(tensors)+"}", 0),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := open(b)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 40*size || (err == nil) != (name == "tensors") {
			t.Errorf("%s: %d bytes of header take %d, %v", name, len(b), took, err)
		}
	}
}

type closed struct{}

func (closed) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }
