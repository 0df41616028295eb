package tensor

import (
	"encoding/binary"
	"math"
)

// Blocks of 256 elements, whose parts have scales that are quantised too.

// partsQ4K gives scale and minimum of part j, 6 bits each, from the 12 bytes that
// hold eight of both: the first four lie in the low bits of eight bytes, the
// others in four more and in the high bits of the eight.
func partsQ4K(scales []byte, j int) (scale, minimum byte) {
	if j < 4 {
		return scales[j] & 63, scales[j+4] & 63
	}
	return scales[j+4]&15 | scales[j-4]>>6<<4, scales[j+4]>>4 | scales[j]>>6<<4
}

func dequantQ4_K(dst []float32, src []byte) {
	d := FromF16(binary.LittleEndian.Uint16(src))
	dmin := FromF16(binary.LittleEndian.Uint16(src[2:]))
	scales, q := src[4:16], src[16:144]
	for j := range 8 {
		s, m := partsQ4K(scales, j)
		scale, minimum := float32(d*float32(s)), float32(dmin*float32(m))
		shift := 4 * (j & 1)
		for i, b := range q[j/2*32:][:32] {
			dst[32*j+i] = float32(scale*float32(b>>shift&15)) - minimum
		}
	}
}

func quantQ4_K(dst []byte, src []float32) {
	var levels [256]byte
	var scales, minima [8]float32
	mostScale, mostMin := float32(0), float32(0)
	for j := range 8 {
		x := (*[32]float32)(src[32*j:])
		sum := float32(0)
		for _, v := range x {
			sum += float32(v * v)
		}
		mean := float32(math.Sqrt(float64(sum / 32)))
		var weights [32]float32
		for i, v := range x {
			weights[i] = mean + abs(v)
		}
		scales[j], minima[j] = fitScaleMin(x, &weights, (*[32]byte)(levels[32*j:]))
		if scales[j] > mostScale {
			mostScale = scales[j]
		}
		if minima[j] > mostMin {
			mostMin = minima[j]
		}
	}
	inverse := func(most float32) float32 {
		if most > 0 {
			return 63 / most
		}
		return 0
	}
	inverseScale, inverseMin := inverse(mostScale), inverse(mostMin)
	packed := dst[4:16]
	for j := range 8 {
		s := min(63, byte(nearest(float32(inverseScale*scales[j]))))
		m := min(63, byte(nearest(float32(inverseMin*minima[j]))))
		if j < 4 {
			packed[j], packed[j+4] = s, m
		} else {
			packed[j+4] = s&15 | m<<4
			packed[j-4] |= s >> 4 << 6
			packed[j] |= m >> 4 << 6
		}
	}
	half, halfMin := ToF16(mostScale/63), ToF16(mostMin/63)
	binary.LittleEndian.PutUint16(dst, half)
	binary.LittleEndian.PutUint16(dst[2:], halfMin)
	for j := range 8 {
		s, m := partsQ4K(packed, j)
		d, dm := float32(FromF16(half)*float32(s)), float32(FromF16(halfMin)*float32(m))
		if d == 0 {
			continue
		}
		for i := 32 * j; i < 32*j+32; i++ {
			levels[i] = byte(max(0, min(15, nearest(float32(src[i]+dm)/d))))
		}
	}
	for i := range 128 {
		low := i/32*64 + i%32
		dst[16+i] = levels[low] | levels[low+32]<<4
	}
}

// fitScaleMin finds a scale and a minimum with which levels of 0 to 15 come near
// to x, by weighted squares: ggml's make_qkx2_quants(32, 15, ..., -1, 0.1, 20).
// The minimum is given negated, so that it is not negative.
func fitScaleMin(x, weights *[32]float32, levels *[32]byte) (scale, minimum float32) {
	const most, steps = 15, 20
	low, high := x[0], x[0]
	sumW := weights[0]
	sumX := float32(sumW * x[0])
	for i := 1; i < 32; i++ {
		if x[i] < low {
			low = x[i]
		}
		if x[i] > high {
			high = x[i]
		}
		sumW += weights[i]
		sumX += float32(weights[i] * x[i])
	}
	if low > 0 {
		low = 0
	}
	if high == low {
		clear(levels[:])
		return 0, -low
	}
	level := func(inverse, v, low float32) byte {
		return byte(max(0, min(most, nearest(float32(inverse*float32(v-low))))))
	}
	inverse := most / float32(high-low)
	scale = 1 / inverse
	best := float32(0)
	for i, v := range x {
		levels[i] = level(inverse, v, low)
		diff := float32(float32(scale*float32(levels[i]))+low) - v
		best += float32(weights[i] * float32(diff*diff))
	}
	start := low // of the best so far; each step measures from there
	var tried [32]byte
	for step := range steps + 1 {
		inverse := float32(float32(-1+float32(float32(0.1)*float32(step)))+most) / float32(high-start)
		var sumL, sumL2, sumXL float32
		for i, v := range x {
			tried[i] = level(inverse, v, start)
			l, w := float32(tried[i]), weights[i]
			wl := float32(w * l)
			sumL += wl
			sumL2 += float32(wl * l)
			sumXL += float32(wl * v)
		}
		det := float32(sumW*sumL2) - float32(sumL*sumL)
		if !(det > 0) {
			continue
		}
		s := float32(float32(sumW*sumXL)-float32(sumX*sumL)) / det
		m := float32(float32(sumL2*sumX)-float32(sumL*sumXL)) / det
		if m > 0 {
			s, m = sumXL/sumL2, 0
		}
		off := float32(0)
		for i, v := range x {
			diff := float32(float32(s*float32(tried[i]))+m) - v
			off += float32(weights[i] * float32(diff*diff))
		}
		if off < best {
			*levels, best, scale, start = tried, off, s, m
		}
	}
	return scale, -start
}

func dequantQ6_K(dst []float32, src []byte) {
	d := FromF16(binary.LittleEndian.Uint16(src[208:]))
	for half := range 2 {
		low, high, scales, y := src[64*half:][:64], src[128+32*half:][:32], src[192+8*half:][:8], dst[128*half:][:128]
		for i, h := range high {
			for part, q := range [4]byte{
				low[i]&15 | h&3<<4,
				low[i+32]&15 | h>>2&3<<4,
				low[i]>>4 | h>>4&3<<4,
				low[i+32]>>4 | h>>6<<4,
			} {
				scale := float32(d * float32(int8(scales[2*part+i/16])))
				y[32*part+i] = scale * float32(int(q)-32)
			}
		}
	}
}

func quantQ6_K(dst []byte, src []float32) {
	var levels [256]byte
	var scales [16]float32
	most, at := float32(0), float32(0)
	for j := range scales {
		scales[j] = fitScale((*[16]float32)(src[16*j:]), (*[16]byte)(levels[16*j:]))
		if a := abs(scales[j]); a > most {
			most, at = a, scales[j]
		}
	}
	if most < noScale {
		clear(dst)
		return
	}
	inverse := -128 / at
	half := ToF16(1 / inverse)
	binary.LittleEndian.PutUint16(dst[208:], half)
	for j, s := range scales {
		n := int8(min(127, nearest(float32(inverse*s))))
		dst[192+j] = byte(n)
		d := float32(FromF16(half) * float32(n))
		if d == 0 {
			continue
		}
		for i := 16 * j; i < 16*j+16; i++ {
			levels[i] = byte(max(-32, min(31, nearest(src[i]/d))) + 32)
		}
	}
	for half := range 2 {
		low, high, l := dst[64*half:][:64], dst[128+32*half:][:32], levels[128*half:][:128]
		for i := range high {
			low[i] = l[i]&15 | l[i+64]<<4
			low[i+32] = l[i+32]&15 | l[i+96]<<4
			high[i] = l[i]>>4 | l[i+32]>>4<<2 | l[i+64]>>4<<4 | l[i+96]>>4<<6
		}
	}
}

// noScale is what magnitudes count as zero below.
const noScale = 1e-15

// fitScale finds a scale with which levels of -32 to 31, stored 32 higher, come
// near to x, by squares weighted with x's: ggml's make_qx_quants(16, 32, ..., 1).
func fitScale(x *[16]float32, levels *[16]byte) float32 {
	const n = 32
	most, at := float32(0), float32(0)
	for _, v := range x {
		if abs(v) > most {
			most, at = abs(v), v
		}
	}
	if most < noScale {
		clear(levels[:])
		return 0
	}
	try := func(inverse float32) (tried [16]byte, sumLX, sumL2 float32) {
		for i, v := range x {
			l := max(-n, min(n-1, nearest(float32(inverse*v))))
			tried[i] = byte(l + n)
			w := float32(v * v)
			sumLX += float32(float32(w*v) * float32(l))
			sumL2 += float32(float32(w*float32(l)) * float32(l))
		}
		return tried, sumLX, sumL2
	}
	var sumLX, sumL2, scale float32
	*levels, sumLX, sumL2 = try(-n / at)
	if sumL2 != 0 {
		scale = sumLX / sumL2
	}
	best := float32(scale * sumLX)
	for step := -9; step <= 9; step++ {
		if step == 0 {
			continue
		}
		tried, sumLX, sumL2 := try(-float32(n+float32(float32(0.1)*float32(step))) / at)
		if sumL2 > 0 && float32(sumLX*sumLX) > float32(best*sumL2) {
			*levels, scale = tried, sumLX/sumL2
			best = float32(scale * sumLX)
		}
	}
	return scale
}

// nearest rounds half to even where |x| < 2^22. Beyond, it gives the low bits of
// what the addition makes, as ggml's nearest_int does.
func nearest(x float32) int32 {
	const magic = 3 << 22
	return int32(math.Float32bits(x+magic)&(1<<23-1)) - 1<<22
}
