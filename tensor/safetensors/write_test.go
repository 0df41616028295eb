package safetensors_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kith-mesh/kith/tensor"
	"github.com/kith-mesh/kith/tensor/archive"
	"github.com/kith-mesh/kith/tensor/safetensors"
)

func source(name string, d tensor.DType, data string, shape ...int) archive.Source {
	return archive.Source{Name: name, DType: d, Shape: shape, Data: strings.NewReader(data)}
}

func write(metadata map[string]string, s ...archive.Source) ([]byte, error) {
	var b bytes.Buffer
	err := safetensors.Write(&b, metadata, s)
	return b.Bytes(), err
}

// TestWriteAsTheLibrary: the bytes are those of the format's own library, version
// 0.6: the cases of its test_serialization, test_serialization_forced_alignement
// and test_empty, and its order of types and escapes.
func TestWriteAsTheLibrary(t *testing.T) {
	const six = "\x00\x00\x00\x00\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40\x00\x00\x80\x40\x00\x00\xa0\x40"
	for _, c := range []struct {
		metadata map[string]string
		sources  []archive.Source
		want     string
	}{
		{nil, nil, "\x08\x00\x00\x00\x00\x00\x00\x00{}      "},
		{map[string]string{"framework": "pt"}, nil, "\x28\x00\x00\x00\x00\x00\x00\x00" + `{"__metadata__":{"framework":"pt"}}     `},
		{nil, []archive.Source{source("attn.0", tensor.F32, six, 1, 2, 3)},
			"\x40\x00\x00\x00\x00\x00\x00\x00" + `{"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}}` + six},
		{nil, []archive.Source{source("attn0", tensor.F32, six, 1, 1, 2, 3)},
			"\x48\x00\x00\x00\x00\x00\x00\x00" + `{"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}}       ` + six},
		{map[string]string{"b": "\x00\x1f\b\t\n\v\f\r\x7f", "a": `"\/<>&é` + "\u2028"}, nil, "\x50\x00\x00\x00\x00\x00\x00\x00" +
			`{"__metadata__":{"a":"\"\\/<>&é` + "\u2028" + `","b":"\u0000\u001f\b\t\n\u000b\f\r` + "\x7f" + `"}}      `},
	} {
		got, err := write(c.metadata, c.sources...)
		if err != nil || string(got) != c.want {
			t.Errorf("got  %q, %v\nwant %q", got, err, c.want)
		}
	}
}

func TestWriteOrder(t *testing.T) {
	types := []tensor.DType{tensor.I64, tensor.F64, tensor.F32, tensor.I32, tensor.BF16, tensor.F16, tensor.I16, tensor.I8, tensor.U8, tensor.Bool}
	var all []archive.Source
	var want []string
	data := map[string]string{}
	rnd := rand.New(rand.NewSource(1))
	for _, d := range types {
		for _, prefix := range []string{"B", "a", "é"} {
			name := prefix + d.String()
			_, bytes := d.Block()
			b := make([]byte, 6*bytes)
			rnd.Read(b)
			data[name] = string(b)
			all = append(all, source(name, d, data[name], 3, 2))
			want = append(want, name)
		}
	}
	metadata := map[string]string{"format": "pt", "x": "y", "a": "b"}
	size, err := safetensors.Size(metadata, all)
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for range 10 {
		for _, s := range all {
			s.Data.(io.Seeker).Seek(0, io.SeekStart)
		}
		rnd.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		got, err := write(metadata, all...)
		if err != nil || first != nil && !bytes.Equal(got, first) || int64(len(got)) != size {
			t.Fatalf("%d bytes, want %d: %v", len(got), size, err)
		}
		first = got
	}
	f, err := open(first)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.Names(), want) || fmt.Sprint(f.Metadata()) != fmt.Sprint(metadata) {
		t.Errorf("names %q %q, want %q %q", f.Names(), f.Metadata(), want, metadata)
	}
	for _, x := range f.Tensors() {
		b := make([]byte, x.Length)
		_, align := x.DType.Block()
		if err := f.Read(x.Name, b); err != nil || string(b) != data[x.Name] || x.Offset%int64(align) != 0 {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

// chunks writes its strings one by one and says that all went well.
type chunks []string

func (c chunks) WriteTo(w io.Writer) (n int64, err error) {
	for _, s := range c {
		io.WriteString(w, s)
	}
	return 0, nil
}

func TestWriteRefused(t *testing.T) {
	of := func(s archive.Source, data io.WriterTo) archive.Source {
		s.Data = data
		return s
	}
	w := source("w", tensor.I16, "", 2)
	endless := archive.From(io.LimitReader(zeros{}, math.MaxInt64))
	for _, c := range []struct {
		sources  []archive.Source
		metadata map[string]string
		want     string
	}{
		{[]archive.Source{of(w, chunks{"ab", "c"})}, nil, `write tensor "w": its data ends 1 bytes short of the 4 that i16 of shape [2] takes`},
		{[]archive.Source{of(w, chunks{"ab", "cde", "f"})}, nil, "longer than its shape takes, by 1 bytes at least"},
		{[]archive.Source{of(w, endless)}, nil, "longer than its shape takes"},
		{[]archive.Source{of(w, archive.From(iotest.ErrReader(io.ErrClosedPipe)))}, nil, io.ErrClosedPipe.Error()},
		{[]archive.Source{of(w, nil)}, nil, "no Data"},
		{[]archive.Source{source("__metadata__", tensor.U8, "a", 1)}, nil, "keeps this name"},
		{[]archive.Source{source("\xff", tensor.U8, "a", 1)}, nil, "not UTF-8"},
		{[]archive.Source{source("q", tensor.Q8_0, "", 32)}, nil, "the format has no q8_0; there are I64"},
		{[]archive.Source{source("q", 0, "", 32)}, nil, "the format has no dtype(0)"},
		{[]archive.Source{source("w", tensor.U8, "a", 1), source("w", tensor.I8, "a", 1)}, nil, `two tensors are named "w"`},
		{[]archive.Source{source("w", tensor.U8, "", make([]int, 65)...)}, nil, "65 dimensions"},
		{[]archive.Source{source("w", tensor.U8, "", -1)}, nil, "negative"},
		{[]archive.Source{source("w", tensor.U8, "", math.MaxInt, 2)}, nil, "more elements"},
		{[]archive.Source{source("v", tensor.U8, "", math.MaxInt/2), source("w", tensor.U8, "", math.MaxInt/2)}, nil, `"w": the tensors take more bytes`},
		{nil, map[string]string{"k": "\xff"}, `metadata "k" is not UTF-8`},
		{nil, map[string]string{"k": strings.Repeat(" ", safetensors.MaxHeader)}, "the format allows 100000000"},
	} {
		if _, err := write(c.metadata, c.sources...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
	if err := safetensors.Write(failing{}, nil, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	if _, err := safetensors.Size(nil, []archive.Source{of(w, nil)}); err == nil {
		t.Error("Size takes what Write refuses")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
