package kernel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"math/rand/v2"
	"testing"
)

// golden is what every instruction set makes of the same operands: a tier that a
// machine lacks is held to it on another. A change of these is a change of what
// strangers' results are compared with.
var golden = map[string]string{
	"gemm": "ff1ba7191a5539f09d25ac3b63c7d75d",
	"exp":  "dd7efbaee399906eaf32598dae2dda62", "tanh": "c323bb90110cb3f74e4e8fd41b6d3623", "gelu": "1d4a821e5bc1c8114717f523db830ca5", "silu": "a235ce927125ee19f1a147f3a29a5df5",
	"sum": "2ce01212b38acd86ab9c14e5f034db0e", "max": "261ea85da0040b2db4dc2e88b4f51803", "dot": "dd5e9dbc0e2d7ca94383ffbdea5d5b16", "spread": "d25c4b6d09459b4373f8c30169ce75e4", "expSum": "638db41ac85fd88426876c262c1e5ead",
	"softmax": "10b99073ef5fef9293e9aa16559da864", "layernorm": "b51896d354cfa63dba09c473fab47a6d", "rmsnorm": "9e5eef3910e3a7899a48089ae71cc7eb", "addScaled": "0749a8acff8d00581111e1b2d1c4f97c", "scale": "f4849e87eadd9d1fb7a027e524758498",
	"add": "80326c8642af451827ef29d85a90dad5", "mul": "c742bb4ba1157c094144f73a33257f0b", "geluGrad": "59c84655d208345d0ff604f723627866", "siluGrad": "1006aad7b770cf61a12beb97fcd7b0b8",
}

// floats draws float32 from the generator's bits alone, which Go promises to keep.
func floats(src *rand.PCG, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		b := src.Uint64()
		out[i] = float32(int32(b)) * 0x1p-30
		if b>>60 == 0 {
			out[i] = math.Float32frombits(uint32(b)) // anything
		}
	}
	return out
}

// tame is x with what is huge or no number left out, so that sums are neither.
func tame(x []float32) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		if v >= -2 && v <= 2 {
			out[i] = v
		}
	}
	return out
}

// hashed adds to a hash, with one NaN for all.
func hashed(h hash.Hash, x []float32) {
	for _, v := range x {
		b := math.Float32bits(v)
		if v != v {
			b = 0x7fc00000
		}
		h.Write(binary.LittleEndian.AppendUint32(nil, b))
	}
}

func TestGolden(t *testing.T) {
	ran := map[string]bool{}
	for _, tier := range Tiers() {
		ran[tier.Name] = true
		got := map[string]string{}
		h := sha256.New()
		sum := func(name string) {
			got[name] = hex.EncodeToString(h.Sum(nil)[:16])
			h.Reset()
		}
		src := rand.NewPCG(9, 10)
		var s Scratch
		for i := range 24 {
			m, n, k := 1+int(src.Uint64()%60), 1+int(src.Uint64()%80), 1+int(src.Uint64()%600)
			g := Gemm{M: m, N: n, K: k, A: floats(src, m*k), B: floats(src, k*n), C: floats(src, m*n), LDA: k, LDB: n, LDC: n, LDR: n,
				TransA: i&1 > 0, TransB: i&2 > 0, Load: i&4 > 0, Bias: floats(src, n), Act: Act(i % int(acts)), Residual: floats(src, m*n)}
			if g.TransA {
				g.LDA = m
			}
			if g.TransB {
				g.LDB = k
			}
			if err := g.Check(); err != nil {
				t.Fatal(err)
			}
			tier.Do(&g, 0, m, 0, n, &s)
			hashed(h, g.C)
		}
		sum("gemm")
		x, y := floats(src, 100_001), floats(src, 100_001)
		dst := make([]float32, len(x))
		for op, name := range [ones]string{Exp: "exp", Tanh: "tanh", GELU: "gelu", SiLU: "silu"} {
			tier.Each(One(op), dst, x)
			hashed(h, dst)
			sum(name)
		}
		for op, name := range [twos]string{Add: "add", Mul: "mul", GELUGrad: "geluGrad", SiLUGrad: "siluGrad"} {
			tier.Each2(Two(op), dst, x, y)
			hashed(h, dst)
			sum(name)
		}
		for name, f := range map[string]func(dst, x, y []float32){
			"softmax":   func(dst, x, _ []float32) { tier.Softmax(dst, x) },
			"layernorm": func(dst, x, y []float32) { tier.LayerNorm(dst, x, y, x, 1e-5) },
			"rmsnorm":   func(dst, x, y []float32) { tier.RMSNorm(dst, x, y, 1e-5) },
			"addScaled": func(dst, x, y []float32) { tier.AddScaled(dst, x, y, 0.3) },
			"scale":     func(dst, x, _ []float32) { tier.Scale(dst, x, 0.3) },
		} {
			x, y := tame(x), tame(y)
			for n := 1; n < 3000; n += 1 + n/9 {
				f(dst[:n], x[n:2*n], y[:n])
				hashed(h, dst[:n])
			}
			sum(name)
		}
		for name, f := range map[string]func(x, y []float32) float32{
			"sum":    func(x, _ []float32) float32 { return tier.Sum(x) },
			"max":    func(x, _ []float32) float32 { return tier.Max(x) },
			"dot":    tier.Dot,
			"spread": func(x, _ []float32) float32 { return tier.Spread(x, 0.25) },
			"expSum": func(x, y []float32) float32 {
				c := tier.ExpSum(dst[:len(x)], x, y[0])
				hashed(h, dst[:len(x)])
				return c
			},
		} {
			x, y := tame(x), tame(y)
			for n := 1; n < 3000; n += 1 + n/9 {
				hashed(h, []float32{f(x[:n], y[:n])})
			}
			sum(name)
		}
		for name, want := range golden {
			if got[name] != want {
				t.Errorf("%s on %s: %s, want %s", name, tier.Name, got[name], want)
			}
		}
		if len(got) != len(golden) {
			t.Errorf("%d operations on %s, %d have a golden hash", len(got), tier.Name, len(golden))
		}
	}
	for _, name := range []string{"avx512", "avx2", "neon"} {
		if !ran[name] {
			t.Logf("this machine does not run %s", name)
		}
	}
}
