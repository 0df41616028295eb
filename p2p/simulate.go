package p2p

import (
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p"
	bandwidth "github.com/libp2p/go-libp2p/core/metrics"
)

// SimulatedOptions is what Config.Options holds in a simulation: a transport's
// constructor, as libp2p.Transport takes it, with no security of libp2p's own,
// and a reporter that is told of every write and read; nil is none.
func SimulatedOptions(transport any, reporter bandwidth.Reporter) []libp2p.Option {
	opts := []libp2p.Option{libp2p.Transport(transport), libp2p.NoSecurity}
	if reporter != nil {
		opts = append(opts, libp2p.BandwidthReporter(reporter))
	}
	return opts
}

// space is where a node stands among others.
type space interface {
	Coordinate() coord.Coordinate
	DistanceTo(coord.Coordinate) time.Duration
	Update(peer string, other coord.Coordinate, rtt time.Duration, now time.Time) (coord.Coordinate, error)
	Forget(peer string)
}

// given is a place that nothing moves.
type given coord.Coordinate

func (g given) Coordinate() coord.Coordinate                { return coord.Coordinate(g) }
func (g given) DistanceTo(c coord.Coordinate) time.Duration { return coord.Coordinate(g).DistanceTo(c) }
func (g given) Forget(string)                               {}

func (g given) Update(string, coord.Coordinate, time.Duration, time.Time) (coord.Coordinate, error) {
	return coord.Coordinate(g), nil
}
