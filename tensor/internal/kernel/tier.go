package kernel

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// Tier is an instruction set and the loops written for it.
type Tier struct {
	Name string

	lanes int // float32 in a register; a tile is two registers wide
	rows  int // of the largest tile
	// depth is how much of K one pass takes: a strip of B so deep stays in the
	// first cache. tall is how many rows of A stay in the second one.
	depth, tall int

	// tile, by rows, makes C = A B, or C + A B if load, of packed strips. Strides
	// are in bytes.
	tile []tileFunc
	// turn writes as many rows as a register has lanes, of 4 x fours columns, as
	// columns; what overlaps in dst is the later line's.
	turn func(dst, src *float32, dstStride, srcStride, fours int)
	// line copies n lines as wide as a tile.
	line func(dst, src *float32, dstStride, srcStride, n int)

	// flop does n times chains multiply-adds on whole registers.
	flop   func(n int)
	chains int

	ones [ones]func(n int, dst, x *float32)
	twos [twos]func(n int, dst, x, y *float32)

	scale, divide func(n int, dst, x *float32, s float32)
	addScaled     func(n int, dst, x, y *float32, s float32)
	affine        func(n int, dst, x, w, b *float32, c, s float32)
	weigh         func(n int, dst, x, w *float32, s float32)

	sum    func(n int, x *float32) float32
	max    func(n int, x *float32) float32
	dot    func(n int, x, y *float32) float32
	spread func(n int, x *float32, c float32) float32
	expSum func(n int, dst, x *float32, c float32) float32
}

// tileFunc also asks the second cache for what comes next: a line of 64 bytes each k,
// nextStride apart, and after each 32 of them from nextStep further on.
type tileFunc func(k int, a, b, c *float32, aStride, bStride, cStride int, load bool, next *float32, nextStride, nextStep int)

func (t *Tier) cols() int { return 2 * t.lanes }

// Tiers are those that this machine runs, the fastest first, the portable one
// last.
var Tiers = sync.OnceValue(func() []*Tier { return append(machineTiers(), portable()) })

// Env names the environment variable that picks a tier by name.
const Env = "KITH_TENSOR_TIER"

// Best is the fastest tier of this machine, or the one that Env names. It fails if
// that is none that the machine runs.
var Best = sync.OnceValues(func() (*Tier, error) { return pick(os.Getenv(Env)) })

func pick(name string) (*Tier, error) {
	all := Tiers()
	if name == "" {
		return all[0], nil
	}
	var names []string
	for _, t := range all {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return nil, fmt.Errorf("%s is %q, which this machine does not run; unset it or name one of %s", Env, name, strings.Join(names, ", "))
}

// Spin waits for some n pauses of a thread that expects something at once.
func Spin(n int) { spin(n) }

// Spend does rounds of multiply-adds on registers, for nothing.
func (t *Tier) Spend(rounds int) { t.flop(rounds) }

// Flops is how many operations Spend does, a multiply-add being two.
func (t *Tier) Flops(rounds int) float64 {
	return 2 * float64(rounds) * float64(t.chains) * float64(t.lanes)
}
