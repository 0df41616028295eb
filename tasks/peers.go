package tasks

import (
	"math"
	"slices"
	"time"
)

// peer is a worker as the origin sees it.
type peer struct {
	id       PeerID
	standing Standing
	slots    uint32
	queue    time.Duration // its own word
	speed    float64       // its own word: tasks a second
	want     uint32
	wantAt   time.Time
	wanting  bool // in Origin.wants
	gone     bool
	heard    time.Time
	backoff  time.Time // how long this node keeps it away
	declined time.Time // how long it takes nothing, by its own word; a bid takes that back
	strikes  uint
	refused  Reason // why it last refused; OK: it did not

	leases []*lease // live ones
	holds  uint32   // assignments in them
	used   bool     // a task's history names it: its index is taken for good

	promises map[uint32]bool // tasks that it committed to an answer for

	answered, accepted, failed, rejected uint32

	busy     time.Time // since when it has had work without a break
	mark     time.Time // its last receipt
	num, den float64   // receipts and seconds, decaying: num/den is its speed
}

const (
	maxSlots   = 1024
	maxWant    = 4096
	maxQueued  = time.Hour
	paceMemory = 10.0 // seconds: how long a receipt counts for a peer's speed
)

// meet finds or makes a peer. It is nil when too many are known and none can be
// forgotten.
func (o *Origin) meet(id PeerID) *peer {
	if i, ok := o.byID[id]; ok {
		return o.peers[i]
	}
	if id == "" || len(id) > 128 {
		return nil
	}
	if len(o.byID) >= o.cfg.MaxWorkers && !o.forget() {
		return nil
	}
	p := &peer{id: id, slots: 1, standing: Standing{Unknown: true}}
	if n := len(o.spare); n > 0 {
		o.byID[id] = o.spare[n-1]
		o.peers[o.spare[n-1]] = p
		o.spare = o.spare[:n-1]
		return p
	}
	o.byID[id] = int32(len(o.peers))
	o.peers = append(o.peers, p)
	return p
}

// forget drops the peer that was heard longest ago of those that did nothing.
func (o *Origin) forget() bool {
	oldest := int32(-1)
	for i, p := range o.peers {
		if p.id != "" && !p.used && !p.wanting && (oldest < 0 || p.heard.Before(o.peers[oldest].heard)) {
			oldest = int32(i)
		}
	}
	if oldest < 0 {
		return false
	}
	delete(o.byID, o.peers[oldest].id)
	o.peers[oldest] = &peer{}
	o.spare = append(o.spare, oldest)
	return true
}

func (o *Origin) index(p *peer) int32 { return o.byID[p.id] }

// hear notes a sign of life.
func (o *Origin) hear(p *peer, s Standing) {
	p.gone, p.heard, p.standing = false, o.now, s
	p.standing.RTT = max(s.RTT, 0)
	if p.id == o.cfg.Self {
		p.standing.RTT, p.standing.Unknown = 0, false
	}
}

func (o *Origin) setWant(p *peer, want uint32) {
	p.want, p.wantAt = min(want, maxWant), o.now
	if p.want > 0 && !p.wanting {
		p.wanting = true
		o.wants = append(o.wants, o.index(p))
	}
}

// tooFar reports whether the job's locality forbids the peer.
func (o *Origin) tooFar(p *peer) bool {
	most := o.job.Spec.Locality.MaxRTT
	return most > 0 && p.id != o.cfg.Self && (p.standing.Unknown || p.standing.RTT > most)
}

// doubtful reports whether a peer gave too many answers that others contradict
// or whose bytes never came. Each more keeps it away for long.
func (p *peer) doubtful() bool { return p.rejected >= 3 && p.rejected*2 > p.accepted }

// stranger reports whether nothing good is known of a peer yet, or too much bad
// from other jobs.
func (p *peer) stranger() bool {
	s := p.standing
	known := s.Accepted > 0 && (s.Rejected < 3 || s.Rejected*2 <= s.Accepted)
	return !known && p.accepted == 0 && p.answered == 0
}

// free reports whether a peer may be given work now.
func (o *Origin) free(p *peer) bool {
	return p.want > 0 && !p.gone && !o.tooFar(p) && !o.now.Before(p.away()) &&
		o.now.Sub(p.wantAt) < o.cfg.BidLife
}

// away is until when a peer gets no work.
func (p *peer) away() time.Time {
	if p.declined.After(p.backoff) {
		return p.declined
	}
	return p.backoff
}

// cost is when one more task would start at a peer, as far as is known: what it
// says of its queue, and the round trip as measured here.
func (p *peer) cost() time.Duration {
	c := p.queue + p.standing.RTT
	if p.standing.Unknown {
		c += 300 * time.Millisecond
	}
	return c
}

// punish backs a peer off, longer each time until a receipt is accepted.
func (o *Origin) punish(p *peer) {
	d := doubled(time.Second, p.strikes, time.Minute)
	if p.doubtful() {
		d = max(d, 5*time.Minute)
	}
	p.strikes++
	o.rest(p, d)
}

// onInputsBack gives work again at once to those that are kept away only because
// this node had not the bytes to give them.
func (o *Origin) onInputsBack() {
	for _, p := range o.peers {
		if p.refused == InputUnavailable && !p.doubtful() {
			p.refused, p.strikes, p.backoff = OK, 0, time.Time{}
		}
	}
	s := &o.search
	if s.tries = 0; !s.again.IsZero() {
		s.again = earlier(s.again, s.opened.Add(o.cfg.Reannounce))
	}
	o.dirty, o.hint = true, nil
}

// fullPause is before a worker whose disk was full is asked again.
const fullPause = 5 * time.Second

// rest does not ask a peer before d has passed.
func (o *Origin) rest(p *peer, d time.Duration) {
	if until := o.now.Add(d); until.After(p.backoff) {
		p.backoff = until
		o.timers.push(timer{at: until, kind: timerBackoff})
	}
}

func (p *peer) resetRate() { p.num, p.den, p.mark, p.busy = 0, 0, time.Time{}, time.Time{} }

// worked notes that a receipt came in at now.
func (p *peer) worked(now time.Time) {
	from := p.busy
	if p.mark.After(from) {
		from = p.mark
	}
	if from.IsZero() {
		from = now
	}
	dt := max(now.Sub(from).Seconds(), 0)
	decay := math.Exp(-dt / paceMemory)
	p.num, p.den = p.num*decay+1, p.den*decay+dt
	p.mark = now
}

// pace is the time between two receipts of a busy peer; 0: not known.
func (p *peer) pace() time.Duration {
	if p.num == 0 {
		return 0
	}
	return max(time.Duration(p.den/p.num*float64(time.Second)), time.Microsecond)
}

// pace is what is known of a stage's tasks across peers.
type pace struct {
	service time.Duration // of one task on one slot, a moving mean; 0: not known
	ratios  [128]float64  // actual by predicted duration, of the last receipts
	n       int
	p95     float64
	fresh   int // ratios since p95 was taken
}

func (s *pace) served(d time.Duration) {
	if s.service == 0 {
		s.service = max(d, 1)
		return
	}
	s.service = max(s.service+(d-s.service)/16, 1)
}

func (s *pace) ratio(r float64) {
	s.ratios[s.n%len(s.ratios)] = r
	s.n++
	if s.fresh++; s.fresh >= 16 || s.n <= 16 {
		s.fresh = 0
		s.p95 = percentile(s.ratios[:min(s.n, len(s.ratios))], 0.95)
	}
}

func percentile(list []float64, p float64) float64 {
	sorted := append([]float64(nil), list...)
	slices.Sort(sorted)
	return sorted[int(p*float64(len(sorted)-1))]
}
