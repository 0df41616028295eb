package p2p

import (
	"cmp"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	rttSamples    = 5                // of which the median counts
	maxHints      = 16               // read from one message
	nearHints     = 6                // sent: the nearest to the receiver
	randomHints   = 3                // sent besides
	againHints    = 2                // of both, told before: they only keep others from forgetting
	tellAgain     = 20 * time.Minute // before a member is hinted to the same peer again
	maxUnmet      = 64               // members kept that one peer alone vouched for
	maxFails      = 3                // dials in a row before a member is forgotten
	dialBackoff   = 10 * time.Second
	longestRefuse = 5 * time.Minute
)

// overlay decides: whom to exchange with, whom to link to, whom to forget. It
// is pure: times come in, steps go out. One lock around it serves its callers.
type overlay struct {
	self   peer.ID
	cfg    NeighbourhoodConfig
	rng    *rand.Rand
	space  space
	known  map[peer.ID]*contact
	order  []*contact            // of known, by ID; replaced when it changes, never written
	banned map[peer.ID]time.Time // forgotten because they could not be reached: no hint brings them back before

	version int // of the set of links
	inPlay  int // steps that were handed out and not answered
	rounds  int // exchanges since the start
	pace    time.Duration
	nextRun time.Time
}

// contact is all that is known of one member.
type contact struct {
	id       peer.ID
	coord    coord.Coordinate
	capacity Capacity
	record   []byte // signed peer record; nil: not told
	seen     time.Time
	via      peer.ID // who vouched for it; "" once we met it

	connected, relayed bool
	outbound           bool      // we dialled it
	probe              bool      // nobody but the neighbourhood asked for the connection
	idle               time.Time // when we last exchanged with it
	warm               bool      // an exchange went over this connection, so that the next is worth timing

	rtts     []time.Duration
	rtt      time.Duration // median of rtts; 0 if there is none
	measured time.Time

	busy    bool // a step is under way
	fails   int
	retry   time.Time // no dial before
	refused time.Time // no proposal before
	refuse  time.Duration

	told         map[peer.ID]telling // hints that this peer gave us or had from us
	shown        []byte              // the record of our own that it has
	mine, theirs want
	since        time.Time // of the link
	term         time.Time // when another far link is drawn instead
}

// telling is when a member was hinted at over a connection, and by which record:
// the same bytes don't travel twice. Only their sum is kept, or a peer could make
// us hold megabytes.
type telling struct {
	at     time.Time
	record uint64
}

var telltale = maphash.MakeSeed()

// sumOf is 0 for no record.
func sumOf(record []byte) uint64 {
	if len(record) == 0 {
		return 0
	}
	return maphash.Bytes(telltale, record) | 1
}

// want is what one side holds a link for.
type want uint8

const (
	wantNone want = iota
	wantNear
	wantFar
)

func (c *contact) linked() bool { return c.mine != wantNone || c.theirs != wantNone }

// reachable: connected, or not known to be out of reach just now.
func (c *contact) reachable(now time.Time) bool { return c.connected || !now.Before(c.retry) }

func newOverlay(self peer.ID, cfg NeighbourhoodConfig, rng *rand.Rand) *overlay {
	o := &overlay{
		self: self, cfg: cfg, rng: rng, space: coord.NewClient(rng), pace: cfg.Fast,
		known: make(map[peer.ID]*contact), banned: make(map[peer.ID]time.Time),
	}
	if cfg.Given != nil {
		o.space = given(*cfg.Given)
	}
	return o
}

// joined notes a new connection to a member.
func (o *overlay) joined(id peer.ID, relayed, outbound bool, now time.Time) {
	c := o.known[id]
	if c == nil {
		c = o.add(id, now)
	}
	if !c.connected {
		c.told, c.warm, c.idle = make(map[peer.ID]telling), false, now
	}
	c.connected, c.relayed, c.outbound, c.via, c.seen = true, relayed, outbound, "", now
	c.fails, c.retry = 0, time.Time{}
	if near, _ := o.degree(); near < o.cfg.Near {
		o.hurry(now)
	}
}

// left notes that the last connection to a member ended, and with it its link.
func (o *overlay) left(id peer.ID, now time.Time) {
	c := o.known[id]
	if c == nil || !c.connected {
		return
	}
	if c.linked() {
		o.unlink(c)
		o.hurry(now)
	}
	c.connected, c.relayed, c.outbound, c.probe, c.warm, c.told, c.shown = false, false, false, false, false, nil, nil
}

// met takes what a peer told of itself.
func (o *overlay) met(id peer.ID, at coord.Coordinate, capacity Capacity, now time.Time) {
	c := o.known[id]
	if c == nil {
		return
	}
	c.seen, c.capacity = now, capacity
	if at.Valid() {
		c.coord = at
	}
}

// timed takes a measured round trip.
func (o *overlay) timed(id peer.ID, rtt time.Duration, now time.Time) {
	c := o.known[id]
	if c == nil || rtt < 0 || rtt > coord.MaxRTT {
		return
	}
	c.rtts = append(c.rtts, max(rtt, time.Microsecond))
	if len(c.rtts) > rttSamples {
		c.rtts = c.rtts[1:]
	}
	c.rtt = slices.Sorted(slices.Values(c.rtts))[len(c.rtts)/2]
	c.measured = now
	if c.coord.Valid() {
		// The only errors are of bounds that were checked above.
		_, _ = o.space.Update(string(id), c.coord, rtt, now)
	}
}

// failed notes that a member could not be reached.
func (o *overlay) failed(id peer.ID, now time.Time) {
	c := o.known[id]
	if c == nil {
		return
	}
	c.fails++
	c.retry = now.Add(dialBackoff << min(c.fails, 6))
	if c.connected {
		return
	}
	if c.fails >= maxFails || c.via != "" {
		o.forget(id)
		o.banned[id] = now.Add(o.cfg.Expire / 3)
	}
}

// hear takes a hint from a peer; record is verified. Whoever is new gets a place
// only while the peer that vouches has not filled its share.
func (o *overlay) hear(from, id peer.ID, record []byte, at coord.Coordinate, age time.Duration, now time.Time) {
	if id == o.self {
		return
	}
	seen := now.Add(-min(max(age, 0), o.cfg.Expire))
	c := o.known[id]
	if s := o.known[from]; s != nil && s.told != nil && len(s.told) < 4*o.cfg.Candidates {
		t := telling{at: now, record: sumOf(record)}
		if len(record) == 0 {
			t.record = s.told[id].record
		}
		s.told[id] = t
	}
	if c == nil {
		if len(record) == 0 || now.Before(o.banned[id]) || !now.Add(-o.cfg.Expire).Before(seen) || o.vouched(from) >= maxUnmet {
			return
		}
		c = o.add(id, seen)
		c.via = from
		if o.pace > o.cfg.Fast && o.worthMeasuring(at) {
			o.hurry(now)
		}
	}
	if len(record) > 0 {
		c.record = record
	}
	if seen.After(c.seen) {
		c.seen = seen
	}
	if at.Valid() && !c.connected {
		c.coord = at
	}
}

func (o *overlay) vouched(by peer.ID) int {
	n := 0
	for _, c := range o.known {
		if c.via == by {
			n++
		}
	}
	return n
}

// add makes room and a contact in it.
func (o *overlay) add(id peer.ID, seen time.Time) *contact {
	if len(o.known) >= o.cfg.Candidates {
		o.evict()
	}
	c := &contact{id: id, seen: seen}
	o.known[id] = c
	i, _ := o.place(id)
	o.order = slices.Insert(slices.Clone(o.order), i, c)
	return c
}

// evict forgets one that is neither connected nor linked: one of the far half,
// drawn at random so that the rest stays a fair sample.
func (o *overlay) evict() {
	var spare []*contact
	for _, c := range o.sorted() {
		if !c.connected && !c.linked() && !c.busy {
			spare = append(spare, c)
		}
	}
	if len(spare) == 0 {
		return // all are connected: the connection manager bounds those
	}
	byKey(spare, o.guess)
	half := len(spare) / 2
	o.forget(spare[half+o.rng.IntN(len(spare)-half)].id)
}

func (o *overlay) forget(id peer.ID) {
	if c := o.known[id]; c != nil && c.linked() {
		o.unlink(c)
	}
	delete(o.known, id)
	if i, is := o.place(id); is {
		o.order = slices.Delete(slices.Clone(o.order), i, i+1)
	}
	o.space.Forget(string(id))
}

// expire forgets who was not met for long, and old measurements.
func (o *overlay) expire(now time.Time) {
	for id, c := range o.known {
		switch {
		case c.connected || c.busy:
		case now.Sub(c.seen) >= o.cfg.Expire:
			o.forget(id)
		case now.Sub(c.measured) >= 4*o.cfg.Expire:
			c.rtts, c.rtt = nil, 0
		}
	}
	for id, until := range o.banned {
		if now.After(until) {
			delete(o.banned, id)
		}
	}
}

// guess is the best idea of the round trip: measured, else predicted, else long.
func (o *overlay) guess(c *contact) time.Duration {
	if c.rtt > 0 {
		return c.rtt
	}
	if c.coord.Valid() {
		return o.space.DistanceTo(c.coord)
	}
	return coord.MaxRTT
}

// byKey sorts by a key that costs something to compute.
func byKey(cs []*contact, key func(*contact) time.Duration) {
	type keyed struct {
		key time.Duration
		c   *contact
	}
	all := make([]keyed, len(cs))
	for i, c := range cs {
		all[i] = keyed{key(c), c}
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	for i, k := range all {
		cs[i] = k.c
	}
}

// sorted lists the contacts in the order of their IDs, so that one seed gives
// one sequence of choices. It is not the caller's to change.
func (o *overlay) sorted() []*contact { return o.order }

// place is where a contact of this ID is in that order, or would be.
func (o *overlay) place(id peer.ID) (int, bool) {
	return slices.BinarySearchFunc(o.order, id, func(c *contact, id peer.ID) int { return cmp.Compare(c.id, id) })
}

func (o *overlay) shuffled() []*contact {
	all := slices.Clone(o.order)
	o.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// hint is what one member is told of another.
type hint struct {
	id     peer.ID
	record []byte
	coord  coord.Coordinate
	age    time.Duration
}

// hintsFor picks what to tell a peer: members near to where it stands, as long
// as it stands somewhere, and a few at random; none that it knows from us.
func (o *overlay) hintsFor(to peer.ID, now time.Time) []hint {
	peerAt := o.known[to]
	if peerAt == nil || peerAt.told == nil {
		return nil
	}
	var fit []*contact
	again := 0
	for _, c := range o.shuffled() {
		last, told := peerAt.told[c.id]
		if c.id == to || len(c.record) == 0 || c.fails > 0 || told && now.Sub(last.at) < tellAgain {
			continue
		}
		if told {
			if again++; again > againHints {
				continue
			}
		}
		fit = append(fit, c)
	}
	if where := peerAt.coord; where.Valid() && where.Error < 0.9 && len(fit) > randomHints {
		byKey(fit[randomHints:], func(c *contact) time.Duration { return apart(where, c.coord) })
	}
	fit = fit[:min(len(fit), nearHints+randomHints)]
	hints := make([]hint, 0, len(fit))
	for _, c := range fit {
		age := now.Sub(c.seen)
		if c.connected {
			age = 0
		}
		told := hint{id: c.id, record: c.record, coord: c.coord, age: age}
		sum := sumOf(c.record)
		if peerAt.told[c.id].record == sum {
			told.record = nil
		}
		hints = append(hints, told)
		peerAt.told[c.id] = telling{at: now, record: sum}
	}
	return hints
}

// apart is the predicted round trip between two others, long if unknown.
func apart(a, b coord.Coordinate) time.Duration {
	if d := a.DistanceTo(b); d > 0 {
		return d
	}
	return coord.MaxRTT
}
