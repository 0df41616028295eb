// Package coord places nodes in a virtual space where distance predicts
// round-trip time (Vivaldi). It is pure: it never measures and never keeps time.
package coord

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/serf/coordinate"
)

// Dimensions of the space; the height stands beside them.
const Dimensions = 8

// Bounds of what a peer may claim, in seconds where they have a unit. Sound
// travels round the Earth's fibre in 0.3 s; a satellite adds 0.6.
const (
	maxAxis       = 10.0
	maxHeight     = 5.0
	maxError      = 1.5
	maxAdjustment = 5.0
)

// Coordinate is a place in the space. Units are seconds. The zero value is no
// coordinate: Valid reports it.
type Coordinate struct {
	Vec        [Dimensions]float64
	Height     float64 // the access link's share, paid at both ends
	Error      float64 // relative error of its own predictions, 0 to about 1.5
	Adjustment float64
}

// ErrInvalid is what a coordinate from a peer is refused with.
var ErrInvalid = errors.New("coordinate: not finite or out of range")

// Check says why c can't be used, wrapping ErrInvalid; nil if it can.
func (c Coordinate) Check() error {
	for i, v := range c.Vec {
		if !within(v, -maxAxis, maxAxis) {
			return fmt.Errorf("%w: axis %d is %g s, want within %g s", ErrInvalid, i, v, maxAxis)
		}
	}
	switch {
	case c.Height == 0 && c == Coordinate{}:
		return fmt.Errorf("%w: the zero coordinate is no place", ErrInvalid)
	case !within(c.Height, math.SmallestNonzeroFloat64, maxHeight):
		return fmt.Errorf("%w: height is %g s, want above 0 and at most %g s", ErrInvalid, c.Height, maxHeight)
	case !within(c.Error, 0, maxError):
		return fmt.Errorf("%w: error is %g, want 0 to %g", ErrInvalid, c.Error, maxError)
	case !within(c.Adjustment, -maxAdjustment, maxAdjustment):
		return fmt.Errorf("%w: adjustment is %g s, want within %g s", ErrInvalid, c.Adjustment, maxAdjustment)
	}
	return nil
}

// Valid reports whether c is a place that predictions can be made from.
func (c Coordinate) Valid() bool { return c.Check() == nil }

// within is false for NaN.
func within(v, lo, hi float64) bool { return v >= lo && v <= hi }

// DistanceTo is the predicted round trip between c and other, or 0 when either
// is no valid place.
func (c Coordinate) DistanceTo(other Coordinate) time.Duration {
	if !c.Valid() || !other.Valid() {
		return 0
	}
	raw := c.separation(other) + c.Height + other.Height
	if adjusted := raw + c.Adjustment + other.Adjustment; adjusted > 0 {
		raw = adjusted
	}
	return time.Duration(raw * float64(time.Second))
}

// separation is the length of the straight line between two places, heights
// left out, in seconds.
func (c Coordinate) separation(other Coordinate) float64 {
	sum := 0.0
	for i := range c.Vec {
		d := c.Vec[i] - other.Vec[i]
		sum += d * d
	}
	return math.Sqrt(sum)
}

func (c Coordinate) toSerf() *coordinate.Coordinate {
	return &coordinate.Coordinate{Vec: append([]float64(nil), c.Vec[:]...), Error: c.Error, Adjustment: c.Adjustment, Height: c.Height}
}

func fromSerf(s *coordinate.Coordinate) Coordinate {
	c := Coordinate{Height: s.Height, Error: s.Error, Adjustment: s.Adjustment}
	copy(c.Vec[:], s.Vec)
	return c
}
