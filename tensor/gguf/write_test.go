package gguf_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/gguf"
)

func source(name string, d tensor.DType, data string, shape ...int) archive.Source {
	return archive.Source{Name: name, DType: d, Shape: shape, Data: strings.NewReader(data)}
}

func write(m gguf.Metadata, s ...archive.Source) ([]byte, error) {
	var b bytes.Buffer
	err := gguf.Write(&b, m, s)
	return b.Bytes(), err
}

// TestWriteBytes: the bytes are those of the format's description.
func TestWriteBytes(t *testing.T) {
	got, err := write(gguf.Metadata{"general.name": "x", "general.alignment": uint32(8), "a": []any{[]bool{true}, []string{"é"}}},
		source("w", tensor.F16, "abcdefghijkl", 2, 3), source("v", tensor.BF16, "XY"))
	want := raw([]byte("GGUF"), uint32(3), 2, 3,
		"a", uint32(9), uint32(9), 2, uint32(7), 1, true, uint32(8), 1, "é",
		"general.alignment", uint32(4), uint32(8), "general.name", uint32(8), "x",
		"v", uint32(0), uint32(30), 0, "w", uint32(2), 3, 2, uint32(1), 8)
	want = append(want, make([]byte, -len(want)&7)...)
	want = append(want, "XY\x00\x00\x00\x00\x00\x00abcdefghijkl\x00\x00\x00\x00"...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
	if got, err := write(nil); err != nil || !bytes.Equal(got, raw(head(0, 0), make([]byte, 8))) {
		t.Errorf("an empty file is %q, %v", got, err)
	}
}

func TestWriteOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var all []archive.Source
	data := map[string]string{}
	for _, d := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q6_K} {
		for _, name := range []string{"b.", "A."} {
			n, err := d.Bytes([]int{3, 256})
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			name += d.String()
			data[name] = string(b)
			all = append(all, source(name, d, data[name], 3, 256))
		}
	}
	m := gguf.Metadata{}
	for i := range 20 {
		m[fmt.Sprint("key", i)] = float64(i)
	}
	size, err := gguf.Size(m, all)
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for range 10 {
		for _, s := range all {
			s.Data.(io.Seeker).Seek(0, io.SeekStart)
		}
		rnd.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		got, err := write(m, all...)
		if err != nil || first != nil && !bytes.Equal(got, first) || int64(len(got)) != size {
			t.Fatalf("%d bytes, want %d: %v", len(got), size, err)
		}
		first = got
	}
	f, err := open(first)
	if err != nil || len(f.Tensors()) != len(all) || fmt.Sprint(f.Metadata()) != fmt.Sprint(m) {
		t.Fatalf("%v, %v", f.Metadata(), err)
	}
	for i, e := range f.Tensors() {
		b := make([]byte, e.Length)
		if err := f.Read(e.Name, b); err != nil || string(b) != data[e.Name] || e.Offset%32 != 0 || i > 0 && e.Name < f.Names()[i-1] || fmt.Sprint(e.Shape) != "[3 256]" {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

func TestWriteRefused(t *testing.T) {
	w := func(data string) []archive.Source { return []archive.Source{source("w", tensor.F16, data, 2)} }
	deep := any([]int8{})
	for range 4 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		m    gguf.Metadata
		s    []archive.Source
		want string
	}{
		{nil, w("abc"), `write tensor "w": its data ends 1 bytes short of the 4 that f16 of shape [2] takes`},
		{nil, w("abcde"), "longer than its shape takes"},
		{nil, []archive.Source{{Name: "w", DType: tensor.F32}}, "no Data"},
		{nil, []archive.Source{source("", tensor.F32, "abcd")}, "the name: it is empty"},
		{nil, []archive.Source{source("\xff", tensor.F32, "abcd")}, "not UTF-8"},
		{nil, []archive.Source{source(strings.Repeat("n", 64), tensor.F32, "abcd")}, "it has 64 bytes, at most 63"},
		{nil, []archive.Source{source("w", tensor.F32, "abcd"), source("w", tensor.F16, "ab")}, `"w": the name stands twice`},
		{nil, []archive.Source{source("w", tensor.I32, "abcd")}, "i32 is not written into this format; there are f32"},
		{nil, []archive.Source{source("w", 0, "abcd")}, "dtype(0) is not written"},
		{nil, []archive.Source{source("w", tensor.F32, "", 1, 1, 1, 1, 1)}, "5 dimensions"},
		{nil, []archive.Source{source("w", tensor.Q4_K, "", 255)}, "multiple of 256"},
		{nil, []archive.Source{source("v", tensor.Q8_0, "", math.MaxInt/128*32), source("w", tensor.Q8_0, "", math.MaxInt/128*32)}, `"w": the tensors take more bytes`},
		{gguf.Metadata{"": uint8(1)}, nil, `metadata "": it is empty`},
		{gguf.Metadata{"k": 1}, nil, `metadata "k": a int is no value`},
		{gguf.Metadata{"k": nil}, nil, "a <nil> is no value"},
		{gguf.Metadata{"k": []int{1}}, nil, "a []int is no value"},
		{gguf.Metadata{"k": []any{uint8(1)}}, nil, "an []any holds a uint8"},
		{gguf.Metadata{"k": deep}, nil, "over 4 arrays within each other"},
		{gguf.Metadata{"k": strings.Repeat(" ", gguf.MaxHeader)}, nil, "bytes stand before the elements"},
		{gguf.Metadata{strings.Repeat("k", 1<<16): uint8(1)}, nil, "it has 65536 bytes, at most 65535"},
		{gguf.Metadata{"general.alignment": uint32(4)}, nil, "the uint32 4: want a uint32 that is a power of two from 8"},
		{gguf.Metadata{"general.alignment": uint32(2 << 20)}, nil, "from 8 to 1048576"},
		{gguf.Metadata{"general.alignment": uint32(24)}, nil, "power of two"},
		{gguf.Metadata{"general.alignment": 32}, nil, "the int 0: want a uint32"},
	} {
		if _, err := write(c.m, c.s...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
	if b, err := write(gguf.Metadata{"k": deep.([]any)[0]}); err != nil {
		t.Error(err)
	} else if _, err := open(b); err != nil {
		t.Error(err)
	}
	for n := range 3 {
		if err := gguf.Write(&failing{after: n}, nil, w("abcd")); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("write %d fails: %v", n, err)
		}
	}
}

// failing takes so many writes.
type failing struct{ after int }

func (f *failing) Write(b []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

// TestValues: every type of value alone and in arrays comes back as it was.
func TestValues(t *testing.T) {
	m := gguf.Metadata{}
	for _, v := range []any{
		[]uint8{0, 255}, []int8{-128, 127}, []uint16{0, math.MaxUint16}, []int16{math.MinInt16, 2}, []uint32{1, math.MaxUint32},
		[]int32{math.MinInt32, 3}, []uint64{1, math.MaxUint64}, []int64{math.MinInt64, 4}, []float32{-0.5, math.MaxFloat32},
		[]float64{1e-300, math.Inf(-1)}, []bool{true, false}, []string{"", "\xff\x00é"}, []any{[]uint8{}, []any{}},
		uint8(255), int8(-128), uint16(65535), int16(-32768), uint32(math.MaxUint32), int32(math.MinInt32), uint64(math.MaxUint64),
		int64(math.MinInt64), float32(0.1), 0.1, true, false, "text", "",
	} {
		m[fmt.Sprintf("%T %d", v, len(m))] = v
	}
	b, err := write(m)
	if err != nil {
		t.Fatal(err)
	}
	f, err := open(b)
	if err != nil || fmt.Sprintf("%#v", f.Metadata()) != fmt.Sprintf("%#v", m) {
		t.Errorf("%v\n%#v\n%#v", err, f.Metadata(), m)
	}
}
