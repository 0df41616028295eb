package runner

import (
	"sync"
	"time"
)

// throttle is a bucket of CPU time that all programs draw from: rate seconds a
// second, a little saved up. A nil throttle never runs dry.
type throttle struct {
	rate float64 // cores

	mu     sync.Mutex
	last   time.Time
	tokens time.Duration // below zero: overdrawn
}

// throttleBurst is what may be saved up.
const throttleBurst = 50 * time.Millisecond

// charge takes used out and says how long until there is some again.
func (t *throttle) charge(now time.Time, used time.Duration) time.Duration {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.IsZero() {
		t.last, t.tokens = now, throttleBurst
	}
	if since := now.Sub(t.last); since > 0 {
		t.tokens = min(t.tokens+time.Duration(float64(since)*t.rate), throttleBurst)
		t.last = now
	}
	t.tokens -= used
	if t.tokens >= 0 {
		return 0
	}
	return time.Duration(float64(-t.tokens) / t.rate)
}
