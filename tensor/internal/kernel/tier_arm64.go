package kernel

// machineTiers is NEON, which every arm64 has, for products; the rest is plain Go.
func machineTiers() []*Tier {
	t := portable()
	t.Name, t.rows, t.tall = "neon", 8, 128
	t.tile = []tileFunc{nil, gemmNEON_1, gemmNEON_2, gemmNEON_3, gemmNEON_4, gemmNEON_5, gemmNEON_6, gemmNEON_7, gemmNEON_8}
	return []*Tier{t}
}

// spin has no instruction here that is kind to others.
func spin(int) {}

// fetch is a hint that is not given here.
func fetch(*float32, int, int, int) {}
