package p2p

import (
	"errors"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
)

// NeighbourhoodConfig says how many links a node keeps and how fast it looks
// for them. Zero fields take the defaults.
type NeighbourhoodConfig struct {
	Near    int // links wanted to the nearest members; 6
	MaxNear int // near links held at most, those that others want included; 16
	Far     int // links wanted to random members; 2
	MaxFar  int // far links held at most; 8

	Fast time.Duration // between exchanges while much is new; 500 ms
	Slow time.Duration // between exchanges when nothing changes; 15 s

	Candidates int           // members known at most; 512
	Explore    int           // how many of the predicted nearest are measured; 48
	FarTerm    time.Duration // how long a far link is wanted before another is drawn; 15 min
	Expire     time.Duration // when a member that nobody met is forgotten; 30 min

	// Given keeps the node at this place instead of learning one from round
	// trips. It is what the simulation leaves out to show what learning is worth;
	// no node sets it.
	Given *coord.Coordinate
}

func (c NeighbourhoodConfig) withDefaults() NeighbourhoodConfig {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defD := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Near, 6)
	def(&c.MaxNear, max(16, c.Near))
	def(&c.Far, 2)
	def(&c.MaxFar, max(8, c.Far))
	def(&c.Candidates, 512)
	def(&c.Explore, 48)
	defD(&c.Fast, 500*time.Millisecond)
	defD(&c.Slow, 15*time.Second)
	defD(&c.FarTerm, 15*time.Minute)
	defD(&c.Expire, 30*time.Minute)
	return c
}

// validate reports every fault at once.
func (c NeighbourhoodConfig) validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("neighbourhood: "+format, args...))
		}
	}
	bad(c.Near >= 1, "Near is %d, want at least 1", c.Near)
	bad(c.MaxNear >= c.Near && c.MaxNear <= 64, "MaxNear is %d, want %d (Near) to 64", c.MaxNear, c.Near)
	bad(c.Far >= 0, "Far is %d, want at least 0", c.Far)
	bad(c.MaxFar >= c.Far && c.MaxFar <= 64, "MaxFar is %d, want %d (Far) to 64", c.MaxFar, c.Far)
	bad(c.Candidates >= c.MaxNear+c.MaxFar, "Candidates is %d, want at least %d (MaxNear and MaxFar)", c.Candidates, c.MaxNear+c.MaxFar)
	bad(c.Explore >= c.Near, "Explore is %d, want at least %d (Near)", c.Explore, c.Near)
	bad(c.Fast >= time.Millisecond, "Fast is %v, want at least 1ms", c.Fast)
	bad(c.Slow >= c.Fast, "Slow is %v, want at least %v (Fast)", c.Slow, c.Fast)
	bad(c.Given == nil || c.Given.Valid(), "Given is no valid coordinate")
	bad(c.FarTerm > 0 && c.Expire > 0, "FarTerm is %v and Expire %v, want both above 0", c.FarTerm, c.Expire)
	return errors.Join(errs...)
}

// Candidate is a member that this node knows of, connected or not.
type Candidate struct {
	ID        peer.ID
	Coord     coord.Coordinate // zero where unknown
	RTT       time.Duration    // measured by this node, median of recent; 0 where it was not
	Capacity  Capacity         // as last told; zero where unknown
	Connected bool
	Seen      time.Time // when somebody last met it, as far as we were told
}

// Neighbour is the other end of a link that both sides agreed to.
type Neighbour struct {
	ID      peer.ID
	Far     bool          // drawn at random, not for nearness
	RTT     time.Duration // measured; 0 where it was not
	Relayed bool          // reached through a relay only
	Since   time.Time
}
