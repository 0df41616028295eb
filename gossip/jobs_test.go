package gossip

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// An origin of many jobs is heard for each of them every few seconds; one that
// sends large messages is not.
func TestJobMessagesCountByWeight(t *testing.T) {
	c := Config{}.withDefaults()
	l := &perOrigin{rate: c.JobRate, burst: c.JobBurst, of: map[peer.ID]*turn{}}
	now := time.Unix(0, 0)
	for beat := range 60 { // eighty jobs, a heartbeat of 1 KiB each every five seconds
		now = now.Add(5 * time.Second)
		for job := range 80 {
			if !l.allow("steady", 1<<10, now) {
				t.Fatalf("heartbeat %d of job %d is not heard", beat, job)
			}
		}
	}
	heard := 0
	for range 1000 {
		now = now.Add(10 * time.Millisecond)
		if l.allow("heavy", MaxJob, now) {
			heard += MaxJob
		}
	}
	if heard > 2<<20 {
		t.Errorf("%d bytes in ten seconds were let through", heard)
	}
}
