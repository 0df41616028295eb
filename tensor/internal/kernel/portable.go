package kernel

import (
	"runtime"
	"unsafe"
)

// portable is plain Go, for machines without a tier of their own, and what the
// others are compared with.
func portable() *Tier {
	t := &Tier{Name: "portable", lanes: 4, rows: 4, depth: 256, tall: 128, turn: turnPortable, line: linePortable, flop: flopPortable, chains: 1, tile: []tileFunc{nil}}
	foldsPortable(t)
	rowsPortable(t)
	for op, f := range onesPortable {
		t.ones[op] = func(n int, dst, x *float32) {
			to := at(dst, 0, n)
			for i, v := range at(x, 0, n) {
				to[i] = f(v)
			}
		}
	}
	for op, f := range twosPortable {
		t.twos[op] = func(n int, dst, x, y *float32) {
			to, from := at(dst, 0, n), at(y, 0, n)
			for i, v := range at(x, 0, n) {
				to[i] = f(v, from[i])
			}
		}
	}
	for rows := 1; rows <= t.rows; rows++ {
		t.tile = append(t.tile, func(k int, a, b, c *float32, aStride, bStride, cStride int, load bool, _ *float32, _, _ int) {
			tilePortable(rows, k, a, b, c, aStride, bStride, cStride, load)
		})
	}
	return t
}

// at is the n elements that stand so many bytes behind p.
func at(p *float32, bytes, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), bytes)), n)
}

func tilePortable(rows, k int, a, b, c *float32, aStride, bStride, cStride int, load bool) {
	var acc [4][8]float32
	for i := 0; load && i < rows; i++ {
		copy(acc[i][:], at(c, i*cStride, 8))
	}
	for p := range k {
		line := at(b, p*bStride, 8)
		for i, x := range at(a, p*aStride, rows) {
			for j := range acc[i] {
				acc[i][j] = FMA(x, line[j], acc[i][j])
			}
		}
	}
	for i := range rows {
		copy(at(c, i*cStride, 8), acc[i][:])
	}
}

func turnPortable(dst, src *float32, dstStride, srcStride, fours int) {
	for j := range 4 * fours {
		to := at(dst, j*dstStride, 4)
		for i := range to {
			to[i] = at(src, i*srcStride+4*j, 1)[0]
		}
	}
}

func linePortable(dst, src *float32, dstStride, srcStride, n int) {
	for i := range n {
		copy(at(dst, i*dstStride, 8), at(src, i*srcStride, 8))
	}
}

func flopPortable(n int) {
	var acc [4]float32
	for range n {
		for i := range acc {
			acc[i] = FMA(acc[i], 0, 1)
		}
	}
	runtime.KeepAlive(acc)
}
