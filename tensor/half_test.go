package tensor_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/kith-mesh/kith/tensor"
)

// halfValue is the definition of IEEE 754's binary16, in doubles.
func halfValue(h uint16) float64 {
	sign := 1 - 2*float64(h>>15)
	exp, mantissa := int(h>>10&31), float64(h&1023)
	switch exp {
	case 0:
		return math.Copysign(math.Ldexp(mantissa, -24), sign)
	case 31:
		if mantissa != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+mantissa, exp-25)
}

// TestF16: every half widens to its value and narrows to itself; between each two
// neighbours, what is nearer to one goes there, and the middle to the even one.
func TestF16(t *testing.T) {
	const nan32, nan16 = 0x7fc00000, 0x7e00
	for i := range 1 << 16 {
		h := uint16(i)
		f, want := tensor.FromF16(h), halfValue(h)
		if math.IsNaN(want) {
			if math.Float32bits(f) != nan32 || tensor.ToF16(f) != nan16 {
				t.Fatalf("%04x: NaN widens to %08x and back to %04x", h, math.Float32bits(f), tensor.ToF16(f))
			}
			continue
		}
		if math.Float64bits(float64(f)) != math.Float64bits(want) || tensor.ToF16(f) != h {
			t.Fatalf("%04x widens to %g, want %g, and narrows to %04x", h, f, want, tensor.ToF16(f))
		}
		if h&0x7fff == 0x7c00 {
			continue
		}
		next := halfValue(h + 1)
		if h&0x7fff == 0x7bff { // infinity stands where the next step would
			next = math.Copysign(65536, want)
		}
		middle := float32((want + next) / 2) // exact
		even := h + h&1
		inf := float32(math.Inf(int(math.Copysign(1, want))))
		for f, to := range map[float32]uint16{
			math.Nextafter32(middle, 0): h, middle: even, math.Nextafter32(middle, inf): h + 1, math.Nextafter32(f, inf): h, math.Nextafter32(float32(next), 0): h + 1,
		} {
			if got := tensor.ToF16(f); got != to {
				t.Fatalf("%g narrows to %04x, want %04x", f, got, to)
			}
		}
	}
	for _, b := range []uint32{0x7f800001, 0x7fffffff, 0xff800001, 0xffc00000} {
		if got := tensor.ToF16(math.Float32frombits(b)); got != nan16 {
			t.Errorf("NaN %08x narrows to %04x", b, got)
		}
	}
	for f, want := range map[float32]uint16{math.MaxFloat32: 0x7c00, -1e30: 0xfc00, math.SmallestNonzeroFloat32: 0, -math.SmallestNonzeroFloat32: 0x8000} {
		if got := tensor.ToF16(f); got != want {
			t.Errorf("%g narrows to %04x, want %04x", f, got, want)
		}
	}
}

// TestBF16: the same of bfloat16, whose bits are a float's first half.
func TestBF16(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		f := tensor.FromBF16(h)
		bits := uint32(h) << 16
		if math.Float32bits(f) != bits {
			t.Fatalf("%04x widens to %08x", h, math.Float32bits(f))
		}
		if h&0x7fff > 0x7f80 {
			if got := tensor.ToBF16(f); got != 0x7fc0 {
				t.Fatalf("NaN %04x narrows to %04x", h, got)
			}
			continue
		}
		for low, to := range map[uint32]uint16{0: h, 1: h, 0x7fff: h, 0x8000: h + h&1, 0x8001: h + 1, 0xffff: h + 1} {
			if h&0x7fff == 0x7f80 && low != 0 {
				to = 0x7fc0
			}
			if got := tensor.ToBF16(math.Float32frombits(bits | low)); got != to {
				t.Fatalf("%08x narrows to %04x, want %04x", bits|low, got, to)
			}
		}
	}
}

func ExampleQuantise() {
	weights := make([]float32, 32)
	for i := range weights {
		weights[i] = float32(i) / 8
	}
	block := make([]byte, 34)
	if err := tensor.Quantise(block, tensor.Q8_0, weights); err != nil {
		fmt.Println(err)
		return
	}
	if err := tensor.Dequantise(weights, tensor.Q8_0, block); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(weights[:4], weights[31])
	// Output: [0 0.12207031 0.24414062 0.36621094] 3.8757324
}
