package tensor

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

var quantised = []DType{Q8_0, Q4_0, Q4_K, Q6_K}

// quantRow makes 256 elements to quantise, each a function of the random bits by
// exact operations alone, so that every machine has the same.
func quantRow(rnd *rand.Rand) []float32 {
	x := make([]float32, 256)
	unit := func() float32 { return float32(int32(rnd.Uint32())>>7) * 0x1p-24 } // -1 to 1
	bell := func() float32 { return unit() + unit() + unit() + unit() }
	kind, exp := rnd.IntN(12), rnd.IntN(254)-148
	for i := range x {
		switch kind {
		case 0, 1:
			x[i] = bell() * 0x1p-6
		case 2: // every order of magnitude, scales that are denormal halves and floats too
			x[i] = float32(math.Ldexp(float64(bell()), exp))
		case 3: // zeros of both signs
			x[i] = float32(math.Copysign(0, float64(unit())))
		case 4: // few elements that are not 0
			if rnd.IntN(40) == 0 {
				x[i] = unit() * 100
			}
		case 5: // parts that are constant
			x[i] = float32(i/16) - 7
		case 6: // denormals
			x[i] = math.Float32frombits(rnd.Uint32() &^ (0xff << 23))
		case 7: // any finite number
			for x[i] = float32(math.Inf(1)); x[i]-x[i] != 0; {
				x[i] = math.Float32frombits(rnd.Uint32())
			}
		case 8: // of one sign
			x[i] = math.Float32frombits(math.Float32bits(bell()) | uint32(exp&1)<<31)
		case 9: // on a grid: many are half way between levels
			x[i] = float32(rnd.IntN(33)-16) * 0.5
		case 10: // huge
			x[i] = float32(math.Ldexp(float64(unit()), 127))
		case 11: // parts of very different magnitudes, also below what counts as 0
			x[i] = float32(math.Ldexp(float64(unit()), i/16*12-120))
		}
	}
	return x
}

// blockRow makes the bytes of a row of 256 elements to dequantise.
func blockRow(rnd *rand.Rand, d DType) []byte {
	n, err := d.Bytes([]int{256})
	if err != nil {
		panic(err)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32() >> 24)
	}
	return b
}

// bytesOf gives floats as bytes, every NaN as one.
func bytesOf(x []float32) []byte {
	var b []byte
	for _, v := range x {
		if v != v {
			v = float32(math.NaN())
		}
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func quantRnd(seed uint64, d DType) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(d))) }

// What ggml makes of goldenRows rows: ggml-quants.c of ggml-org/ggml at commit
// d99724f2b141fed9e1a9f402213506c081433465, built by gcc 12.2 -O2 -DNDEBUG
// -ffp-contract=off for x86-64 into a filter that reads rows of 256 and writes what
// quantize_row_*_ref or dequantize_row_* makes of them. Each is the SHA-256 of its
// output for the rows of seed 0: those of quantRow first, then, drawn from the same
// source, those of blockRow; NaNs as bytesOf writes them. testdata/ggml.txt has one
// block of each type, from the same filter: elements, block, elements again, in hex
// of little-endian bytes.
const goldenRows = 3000

var golden = map[DType]struct{ quantised, dequantised string }{
	Q8_0: {"f49d0873b9c694d4e4a10c8b4d097aff83c497ad8e14f75ea6a51c0620156a5b", "c40b196e5d4e44eb3afb722f8c5f6a01bf4f380bae560d7f6a7d47ef032fa8a5"},
	Q4_0: {"e919336c28d81569530962f52cf64fcb3e4d2ba1be960fe062581d2980c41939", "04a3d7b724be4262f8569d73a085b224726cff1235d0077c5750395a42495600"},
	Q4_K: {"7619e176d08a96398cf5bad5a48fab80c5d0322197f6492c59901ff5f00321f2", "a8b2473f6c1583a0f6d8b588829265242fb8f3e3934f0cc57a06e4d47d0a3a79"},
	Q6_K: {"8c42b1db7b880d423014330428941f50d554d40f5b9caf3c61b2533f755727d3", "bd9a94f7c7119a0d018c15409055d8dc525e0531f7f414b4f8c1faeab69f164b"},
}

func TestQuantAsGGML(t *testing.T) {
	for _, d := range quantised {
		rnd := quantRnd(0, d)
		n, err := d.Bytes([]int{256})
		if err != nil {
			t.Fatal(err)
		}
		block := make([]byte, n)
		sum := sha256.New()
		for range goldenRows {
			x := quantRow(rnd)
			for i := range block {
				block[i] = 0xee // what is there before counts for nothing
			}
			if err := Quantise(block, d, x); err != nil {
				t.Fatal(err)
			}
			sum.Write(block)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != golden[d].quantised {
			t.Errorf("%v: quantised rows hash to %s, ggml's to %s", d, got, golden[d].quantised)
		}
		sum.Reset()
		x := make([]float32, 256)
		for range goldenRows {
			if err := Dequantise(x, d, blockRow(rnd, d)); err != nil {
				t.Fatal(err)
			}
			sum.Write(bytesOf(x))
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != golden[d].dequantised {
			t.Errorf("%v: dequantised rows hash to %s, ggml's to %s", d, got, golden[d].dequantised)
		}
	}
}

// TestQuantVectors says what differs when the hashes do.
func TestQuantVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/ggml.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		lines++
		f := strings.Fields(line)
		d, err := ParseDType(f[0])
		if err != nil {
			t.Fatal(err)
		}
		var raw [3][]byte
		for i := range raw {
			if raw[i], err = hex.DecodeString(f[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		x := make([]float32, len(raw[0])/4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[0][4*i:]))
		}
		got := make([]byte, len(raw[1]))
		if err := Quantise(got, d, x); err != nil || !bytes.Equal(got, raw[1]) {
			t.Errorf("%v: quantised to\n%x, ggml's is\n%x: %v", d, got, raw[1], err)
		}
		if err := Dequantise(x, d, raw[1]); err != nil || !bytes.Equal(bytesOf(x), raw[2]) {
			t.Errorf("%v: dequantised to\n%x, ggml's is\n%x: %v", d, bytesOf(x), raw[2], err)
		}
	}
	if lines != len(quantised) {
		t.Errorf("%d vectors", lines)
	}
}

// TestQuantPlain: the types without blocks go through the same doors.
func TestQuantPlain(t *testing.T) {
	x := []float32{0, 1, -2.5, 65520, 1e-7, float32(math.Inf(-1)), float32(math.NaN())}
	for _, c := range []struct {
		d    DType
		want string
	}{
		{F32, "[0 1 -2.5 65520 1e-07 -Inf NaN]"},
		{F16, "[0 1 -2.5 +Inf 1.1920929e-07 -Inf NaN]"},
		{BF16, "[0 1 -2.5 65536 1.0011718e-07 -Inf NaN]"},
	} {
		n, err := c.d.Bytes([]int{len(x)})
		if err != nil {
			t.Fatal(err)
		}
		b, got := make([]byte, n), make([]float32, len(x))
		if err := Quantise(b, c.d, x); err != nil {
			t.Error(err)
		}
		if err := Dequantise(got, c.d, b); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%v: %v, %v; want %s", c.d, got, err, c.want)
		}
	}
}

func TestQuantRefused(t *testing.T) {
	row := func(n int, at int, v float64) []float32 {
		x := make([]float32, n)
		x[at] = float32(v)
		return x
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{Quantise(make([]byte, 34), Q8_0, row(32, 31, math.NaN())), "quantise: element 31 is NaN, which q8_0 can't hold"},
		{Quantise(make([]byte, 144), Q4_K, row(256, 0, math.Inf(1))), "element 0 is +Inf"},
		{Quantise(make([]byte, 210), Q6_K, row(256, 9, math.Inf(-1))), "element 9 is -Inf"},
		{Quantise(make([]byte, 33), Q8_0, make([]float32, 32)), "32 elements of q8_0 take 34 bytes, not 33"},
		{Quantise(make([]byte, 36), Q4_0, make([]float32, 63)), "multiple of 32"},
		{Quantise(make([]byte, 4), I32, make([]float32, 1)), "quantise: i32 holds whole numbers"},
		{Quantise(nil, 0, nil), "dtype(0) is no element type"},
		{Dequantise(make([]float32, 256), Q6_K, make([]byte, 211)), "dequantise: 256 elements of q6_k take 210 bytes, not 211"},
		{Dequantise(make([]float32, 32), Q4_K, make([]byte, 18)), "multiple of 256"},
		{Dequantise(make([]float32, 1), F64, make([]byte, 8)), "dequantise: f64 holds"},
		{Dequantise(nil, 99, nil), "dtype(99) is no element type"},
		{Dequantise(nil, Q4_K, nil), ""},
		{Quantise(nil, Q4_K, nil), ""},
	} {
		if c.want == "" && c.err != nil || c.want != "" && (c.err == nil || !strings.Contains(c.err.Error(), c.want)) {
			t.Errorf("%v; want %q", c.err, c.want)
		}
	}
}

// FuzzDequantise: every byte is some number, and quantising what came out of
// finite scales is never refused.
func FuzzDequantise(f *testing.F) {
	for _, d := range quantised {
		f.Add(uint8(d), blockRow(quantRnd(1, d), d))
	}
	f.Add(uint8(Q4_0), make([]byte, 36))
	f.Add(uint8(BF16), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, d uint8, b []byte) {
		if !DType(d).Valid() {
			return
		}
		elements, bytes := DType(d).Block()
		x := make([]float32, len(b)/bytes*elements)
		if err := Dequantise(x, DType(d), b); err != nil {
			return
		}
		finite := true
		for _, v := range x {
			finite = finite && v-v == 0
		}
		if err := Quantise(b, DType(d), x); err != nil && finite {
			t.Fatal(err)
		}
	})
}

func BenchmarkQuantise(b *testing.B) {
	for _, d := range append([]DType{F16, BF16}, quantised...) {
		x := make([]float32, 1<<16)
		rnd := quantRnd(1, d)
		for i := range x {
			x[i] = float32(rnd.NormFloat64())
		}
		n, err := d.Bytes([]int{len(x)})
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, n)
		b.Run(d.String(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				if err := Quantise(buf, d, x); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(d.String()+"/back", func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				if err := Dequantise(x, d, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
