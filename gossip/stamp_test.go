package gossip

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p/coord"
)

// Stamps run as time does, whatever the wall clock does: those who hear an offer
// take it for as fresh as it is. A clock that was set far back leads them again.
func TestStampsRunSteadily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Duration(0)
		s := &Service{cfg: Config{Now: func() time.Time { return time.Now().Add(ahead) }}}
		f := newFilter(nearest{}, 100, 100, true)
		for _, c := range []struct {
			jump time.Duration
			want time.Duration // of the stamp, ahead of the true time
		}{{0, 0}, {time.Hour, time.Hour}, {0, time.Hour}, {time.Hour, time.Hour}, {30 * time.Minute, time.Hour}, {-2 * time.Hour, -2 * time.Hour}, {-2 * time.Hour, -2 * time.Hour}} {
			time.Sleep(20 * time.Second)
			ahead = c.jump
			stamp := s.nextStamp()
			if got := time.Until(stamp); got.Round(time.Second) != c.want {
				t.Errorf("with the clock %v ahead the stamp is %v ahead, want %v", c.jump, got, c.want)
			}
			if c.want < 0 {
				continue // what others make of it is another matter
			}
			if v, _ := f.judge(envelope{origin: "o", stamp: stamp, ttl: 30 * time.Second}, time.Now(), time.Now()); v != take {
				t.Errorf("with the clock %v ahead its offer comes to %v", c.jump, v)
			}
		}
		if a, b := s.nextStamp(), s.nextStamp(); !b.After(a) {
			t.Errorf("two stamps at one instant: %v, %v", a, b)
		}
	})
}

// nearest places everybody beside this node.
type nearest struct{}

func (nearest) RTT(peer.ID) (time.Duration, bool)       { return time.Millisecond, true }
func (nearest) Distance(coord.Coordinate) time.Duration { return time.Millisecond }
