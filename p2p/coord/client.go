package coord

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"
)

const (
	// MaxRTT is the longest round trip that is believed.
	MaxRTT = 10 * time.Second

	// maxSurprise bounds how far, in seconds, one sample may lie from its
	// prediction: what lies further is drawn in to it. With cc = 0.25 one update
	// then moves us by at most 50 ms and the adjustment by at most 5 ms, whatever
	// a peer claims.
	maxSurprise = 0.2
	// maxClimb bounds one update's change of height, in seconds.
	maxClimb = 0.05
	// minPeerError is the least error a peer is believed to have: who claims
	// none would otherwise have the whole weight.
	minPeerError = 0.02

	vivaldiCC  = 0.25 // serf's default, which its paper recommends
	minHeight  = 1e-5 // serf's default
	everyone   = ""   // the one name under which serf, whose filter is off, sees samples
	filterSize = 3
	maxPeers   = 512 // peers whose last samples are kept for the median filter
	scatter    = 1e-3
)

// ErrRTT is what an absurd round trip is refused with.
var ErrRTT = errors.New("coordinate: round trip out of range")

// Client holds this node's place and moves it as samples come. It is safe for
// concurrent use.
//
// serf draws from the global random source when two places coincide to within
// a microsecond and offers no way to give it another, so a Client starts from a
// seeded place a little off the origin, where that practically can't happen:
// the same seed and samples give the same coordinate.
type Client struct {
	mu    sync.Mutex
	serf  *coordinate.Client
	start Coordinate
	seen  map[string]samples
}

// NewClient returns a Client at a place drawn from rng, near the origin.
func NewClient(rng *rand.Rand) *Client {
	cfg := coordinate.DefaultConfig()
	cfg.Dimensionality = Dimensions
	cfg.VivaldiCE, cfg.VivaldiCC, cfg.HeightMin = 0.25, vivaldiCC, minHeight
	cfg.LatencyFilterSize = 1 // ours comes before the bounds: a median of old samples could escape them
	s, err := coordinate.NewClient(cfg)
	if err != nil {
		panic("coordinate: " + err.Error()) // only for zero dimensions
	}
	c := &Client{serf: s, seen: make(map[string]samples)}
	c.start = fromSerf(s.GetCoordinate())
	for i := range c.start.Vec {
		c.start.Vec[i] = (rng.Float64() - 0.5) * scatter
	}
	c.set(c.start)
	return c
}

// Coordinate is the present place; always valid. Its Error tells how far to
// trust it: 1.5 before any sample.
func (c *Client) Coordinate() Coordinate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fromSerf(c.serf.GetCoordinate())
}

// DistanceTo is the predicted round trip to other, 0 if other is invalid.
func (c *Client) DistanceTo(other Coordinate) time.Duration {
	return c.Coordinate().DistanceTo(other)
}

// Update moves the place by one measured round trip to peer, which said it
// stands at other. A refused sample changes nothing: the error wraps ErrInvalid
// or ErrRTT. Now only decides whose samples are forgotten first.
func (c *Client) Update(peer string, other Coordinate, rtt time.Duration, now time.Time) (Coordinate, error) {
	if err := other.Check(); err != nil {
		return Coordinate{}, err
	}
	if rtt < 0 || rtt > MaxRTT {
		return Coordinate{}, fmt.Errorf("%w: %v, want 0 to %v", ErrRTT, rtt, MaxRTT)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := fromSerf(c.serf.GetCoordinate())
	other, rtt = temper(before, other, c.filter(peer, rtt, now))
	s, err := c.serf.Update(everyone, other.toSerf(), rtt)
	if err != nil {
		return Coordinate{}, fmt.Errorf("coordinate: %w", err)
	}
	after := fromSerf(s)
	settled := settle(before, after)
	if !settled.Valid() {
		settled = c.start
	}
	if settled != after {
		c.set(settled)
	}
	return settled, nil
}

// Forget drops what the median filter holds of peer.
func (c *Client) Forget(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, peer)
}

// temper bounds what one sample can do: a place too far away for its round trip
// is drawn in along the same line, and a round trip is drawn to what its place
// predicts, the more the closer the two places are for their heights (serf
// changes the height by heights times force over distance, which would explode).
func temper(self, other Coordinate, rtt time.Duration) (Coordinate, time.Duration) {
	other.Error = max(other.Error, minPeerError)
	sample := max(rtt.Seconds(), 1e-6)
	other.Height = min(other.Height, max(sample-self.Height, minHeight))
	other.Adjustment = max(-maxSurprise/4, min(other.Adjustment, maxSurprise/4))
	heights := self.Height + other.Height
	apart := self.separation(other)
	if limit := max(sample+maxSurprise-heights, 1e-3); apart > limit {
		for i := range other.Vec {
			other.Vec[i] = self.Vec[i] + (other.Vec[i]-self.Vec[i])*limit/apart
		}
		apart = limit
	}
	predicted := self.DistanceTo(other).Seconds()
	bound := maxSurprise
	if apart > 1e-6 { // closer than that serf leaves the height alone
		bound = min(bound, maxClimb/vivaldiCC*apart/heights)
	}
	sample = max(predicted-bound, min(sample, predicted+bound), 0)
	return other, min(time.Duration(sample*float64(time.Second)), MaxRTT)
}

// settle bounds one update's change of height: serf divides by the distance
// between the places, which may be next to nothing.
func settle(before, after Coordinate) Coordinate {
	after.Height = math.Min(after.Height, math.Min(before.Height+maxClimb, maxHeight))
	after.Adjustment = math.Max(-maxAdjustment, math.Min(after.Adjustment, maxAdjustment))
	return after
}

// samples are the last round trips to one peer, newest last.
type samples struct {
	at  time.Time
	rtt []time.Duration
}

// filter keeps rtt and returns the median of the peer's last three.
func (c *Client) filter(peer string, rtt time.Duration, now time.Time) time.Duration {
	s, ok := c.seen[peer]
	if !ok && len(c.seen) >= maxPeers {
		oldest, found := "", false
		for p, t := range c.seen {
			if o := c.seen[oldest].at; !found || t.at.Before(o) || t.at.Equal(o) && p < oldest {
				oldest, found = p, true
			}
		}
		delete(c.seen, oldest)
	}
	s.at, s.rtt = now, append(s.rtt, rtt)
	if len(s.rtt) > filterSize {
		s.rtt = s.rtt[1:]
	}
	c.seen[peer] = s
	sorted := slices.Sorted(slices.Values(s.rtt))
	return sorted[len(sorted)/2]
}

func (c *Client) set(to Coordinate) {
	if err := c.serf.SetCoordinate(to.toSerf()); err != nil {
		panic("coordinate: " + err.Error()) // only for another dimension or what is not finite
	}
}
