package kernel

import "golang.org/x/sys/cpu"

func machineTiers() (all []*Tier) {
	x := cpu.X86
	if x.HasAVX512F && x.HasAVX512DQ && x.HasAVX512BW && x.HasAVX512VL && x.HasBMI2 && x.HasFMA && x.HasAVX2 {
		all = append(all, &Tier{Name: "avx512", lanes: 16, rows: 14, depth: 1024, tall: 210, turn: turnAVX512, line: lineAVX512, flop: flopAVX512, chains: 28,
			ones:  [ones]func(n int, dst, x *float32){Exp: expAVX512, Tanh: tanhAVX512, GELU: geluAVX512, SiLU: siluAVX512},
			twos:  [twos]func(n int, dst, x, y *float32){Add: addAVX512, Mul: mulAVX512, GELUGrad: geluGradAVX512, SiLUGrad: siluGradAVX512},
			scale: scaleAVX512, divide: divideAVX512, addScaled: addScaledAVX512, affine: affineAVX512, weigh: weighAVX512,
			sum: sumAVX512, max: maxAVX512, dot: dotAVX512, spread: spreadAVX512, expSum: expSumAVX512,
			tile: []tileFunc{nil, gemmAVX512_1, gemmAVX512_2, gemmAVX512_3, gemmAVX512_4, gemmAVX512_5, gemmAVX512_6, gemmAVX512_7,
				gemmAVX512_8, gemmAVX512_9, gemmAVX512_10, gemmAVX512_11, gemmAVX512_12, gemmAVX512_13, gemmAVX512_14}})
	}
	if x.HasAVX2 && x.HasFMA {
		all = append(all, &Tier{Name: "avx2", lanes: 8, rows: 6, depth: 512, tall: 126, turn: turnAVX2, line: lineAVX2, flop: flopAVX2, chains: 12,
			ones:  [ones]func(n int, dst, x *float32){Exp: expAVX2, Tanh: tanhAVX2, GELU: geluAVX2, SiLU: siluAVX2},
			twos:  [twos]func(n int, dst, x, y *float32){Add: addAVX2, Mul: mulAVX2, GELUGrad: geluGradAVX2, SiLUGrad: siluGradAVX2},
			scale: scaleAVX2, divide: divideAVX2, addScaled: addScaledAVX2, affine: affineAVX2, weigh: weighAVX2,
			sum: sumAVX2, max: maxAVX2, dot: dotAVX2, spread: spreadAVX2, expSum: expSumAVX2,
			tile: []tileFunc{nil, gemmAVX2_1, gemmAVX2_2, gemmAVX2_3, gemmAVX2_4, gemmAVX2_5, gemmAVX2_6}})
	}
	return all
}
