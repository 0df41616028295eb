package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
)

// Latency says where nodes stand, and so the round trip between any two. It may
// change while a mesh runs.
type Latency struct {
	mu sync.RWMutex
	at []place
}

// place is on a continent, at a point whose unit is a millisecond.
type place struct {
	continent int
	x, y      float64
}

// between continents, in milliseconds on top of the way inside.
var between = [3][3]float64{{0, 80, 140}, {80, 0, 110}, {140, 110, 0}}

// Continents spreads n nodes over three continents by turns, node i on continent
// i modulo 3: round trips of 10 to 30 ms inside, 90 to 170 ms between. The same
// seed gives the same places.
func Continents(seed uint64, n int) *Latency {
	rng := rand.New(rand.NewPCG(seed, 3))
	l := &Latency{at: make([]place, n)}
	for i := range l.at {
		l.at[i] = place{i % 3, rng.Float64() * 13, rng.Float64() * 13}
	}
	return l
}

// RTT is the round trip between two nodes; 1 ms from a node to itself.
func (l *Latency) RTT(i, j int) time.Duration {
	if i == j {
		return time.Millisecond
	}
	l.mu.RLock()
	a, b := l.at[i], l.at[j]
	l.mu.RUnlock()
	ms := 10 + math.Hypot(a.x-b.x, a.y-b.y) + between[a.continent][b.continent]
	return 2 * time.Duration(ms/2*float64(time.Millisecond))
}

// Swap has two nodes change places.
func (l *Latency) Swap(i, j int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at[i], l.at[j] = l.at[j], l.at[i]
}

// Nearest lists all other nodes from the nearest to i on.
func (l *Latency) Nearest(i int) []int {
	order := make([]int, 0, len(l.at)-1)
	for j := range l.at {
		if j != i {
			order = append(order, j)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(l.RTT(i, a) - l.RTT(i, b)) })
	return order
}

// Coordinates are places in Vivaldi's space that fit the round trips of now, as
// an oracle would give them: from many more samples than a node takes.
func (l *Latency) Coordinates(seed uint64) []coord.Coordinate {
	rng := rand.New(rand.NewPCG(seed, 4))
	clients := make([]*coord.Client, len(l.at))
	for i := range clients {
		clients[i] = coord.NewClient(rng)
	}
	const rounds = 400
	for range rounds {
		for i, c := range clients {
			j := rng.IntN(len(clients))
			if j == i {
				continue
			}
			// A refused sample leaves the place as it is: there are plenty.
			_, _ = c.Update(string(rune(j)), clients[j].Coordinate(), l.RTT(i, j), time.Time{})
		}
	}
	out := make([]coord.Coordinate, len(clients))
	for i, c := range clients {
		out[i] = c.Coordinate()
	}
	return out
}
