package tensor_test

import (
	"math"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/tensor"
)

func TestDTypeNames(t *testing.T) {
	seen := 0
	for d := tensor.F32; d.Valid(); d++ {
		seen++
		if got, err := tensor.ParseDType(d.String()); err != nil || got != d {
			t.Errorf("%v reads back as %v, %v", d, got, err)
		}
	}
	if seen != 14 {
		t.Errorf("%d types", seen)
	}
	if _, err := tensor.ParseDType("f31"); err == nil || !strings.Contains(err.Error(), `"f31"`) {
		t.Errorf("f31: %v", err)
	}
	if s := tensor.DType(200).String(); s != "dtype(200)" {
		t.Error(s)
	}
}

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		d     tensor.DType
		shape []int
		want  int
		err   string
	}{
		{tensor.F32, nil, 4, ""},
		{tensor.F32, []int{2, 3}, 24, ""},
		{tensor.F32, []int{0, 3}, 0, ""},
		{tensor.Q8_0, []int{2, 64}, 2 * 2 * 34, ""},
		{tensor.Q4_K, []int{3, 256}, 3 * 144, ""},
		{tensor.Q6_K, []int{256}, 210, ""},
		{tensor.Q4_0, []int{64, 3}, 0, "multiple of 32"},
		{tensor.Q4_0, nil, 0, "multiple of 32"},
		{tensor.F32, []int{-1}, 0, "negative"},
		{tensor.F32, []int{0, -1}, 0, "negative"},
		{tensor.F32, []int{math.MaxInt, 2}, 0, "more elements"},
		{tensor.F32, []int{0, math.MaxInt, math.MaxInt}, 0, "more elements"},
		{tensor.F32, []int{math.MaxInt / 2}, 0, "more bytes"},
		{tensor.DType(0), []int{1}, 0, "no element type"},
	} {
		got, err := c.d.Bytes(c.shape)
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%v %v: %d, %v; want %d, %q", c.d, c.shape, got, err, c.want, c.err)
		}
	}
}
