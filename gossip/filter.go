package gossip

import (
	"slices"
	"sync"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// verdict is what becomes of a message.
type verdict uint8

const (
	take    verdict = iota // deliver it here and pass it on
	outside                // of its radius: not for us, nor for those behind us
	limited                // its origin sends too much
	stale                  // replayed or long past
	forged                 // unsigned, oversize or out of range: its sender should have known
)

const (
	// slack of the radius is for what differs between both ends' ideas of one round
	// trip. That coordinates err is in the radius already.
	slack      = 1.05
	slackLeast = 500 * time.Microsecond
	maxOrigins = 2048
	// reorder is how late an offer may come beside others of its origin. Pubsub
	// remembers what it saw for longer than that and the longest ttl, so that
	// nothing can be replayed while its origin is remembered.
	reorder   = 30 * time.Second
	seenTTL   = MaxTTL + 2*reorder
	silence   = seenTTL // after which an origin is forgotten
	clockSkew = time.Hour
)

// nearness is what the filter asks of a host.
type nearness interface {
	RTT(peer.ID) (time.Duration, bool)
	Distance(coord.Coordinate) time.Duration
}

// filter decides about offers. It has no clock: now comes in.
type filter struct {
	near         nearness
	rate         rate.Limit
	burst        int
	ignoreRadius bool

	mu      sync.Mutex
	origins map[peer.ID]*origin
}

// origin is what is remembered of one that offers.
type origin struct {
	limiter *rate.Limiter
	newest  time.Time // its latest stamp
	came    time.Time // when that came
	taken   []int64   // stamps of what was taken last, in order, at most maxTaken
	floor   int64     // nothing stamped up to here is taken: it may have been
}

// maxTaken stamps of each origin are remembered. Pubsub knows an offer by its
// bytes, but the seal around what is signed can be written in many ways: whoever
// passes one offer on could use up its origin's rate with them.
const maxTaken = 128

// repeats reports whether an offer of that stamp was or may have been taken.
func (o *origin) repeats(stamp int64) bool {
	_, found := slices.BinarySearch(o.taken, stamp)
	return found || stamp <= o.floor
}

func (o *origin) take(stamp int64) {
	i, _ := slices.BinarySearch(o.taken, stamp)
	o.taken = slices.Insert(o.taken, i, stamp)
	if len(o.taken) > maxTaken {
		o.floor = o.taken[0]
		o.taken = slices.Delete(o.taken, 0, 1)
	}
}

func newFilter(near nearness, limit rate.Limit, burst int, ignoreRadius bool) *filter {
	return &filter{near: near, rate: limit, burst: burst, ignoreRadius: ignoreRadius, origins: make(map[peer.ID]*origin)}
}

// judge decides, and gives the round trip that it went by: measured if this
// node ever measured it, else predicted by the place the origin claims; 0 if
// there is neither, and then the offer is outside of any radius.
func (f *filter) judge(e envelope, now, wall time.Time) (verdict, time.Duration) {
	if e.stamp.Sub(wall).Abs() > clockSkew+e.ttl {
		return stale, 0
	}
	away, ok := f.near.RTT(e.origin)
	if !ok {
		away = f.near.Distance(e.place)
	}
	if !f.ignoreRadius && !inside(away, e.radius) {
		return outside, away
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.origins[e.origin]
	if o == nil || now.Sub(o.came) > silence {
		f.makeRoom()
		o = &origin{limiter: rate.NewLimiter(f.rate, f.burst), newest: e.stamp, came: now}
		f.origins[e.origin] = o
	}
	// The origin's clock runs as ours does: that is all that is asked of it.
	if age := o.newest.Add(now.Sub(o.came)).Sub(e.stamp); age > e.ttl+reorder {
		return stale, away
	}
	if o.repeats(e.stamp.UnixNano()) {
		return stale, away
	}
	if !o.limiter.AllowN(now, 1) {
		return limited, away
	}
	o.take(e.stamp.UnixNano())
	if e.stamp.After(o.newest) {
		o.newest, o.came = e.stamp, now
	}
	return take, away
}

func inside(away, radius time.Duration) bool {
	return away > 0 && away <= max(time.Duration(slack*float64(radius)), radius+slackLeast)
}

// makeRoom forgets the origin that was silent longest.
func (f *filter) makeRoom() {
	if len(f.origins) < maxOrigins {
		return
	}
	var oldest peer.ID
	for id, o := range f.origins {
		if oldest == "" || o.came.Before(f.origins[oldest].came) {
			oldest = id
		}
	}
	delete(f.origins, oldest)
}
