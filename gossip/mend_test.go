package gossip

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
)

// Members whose pubsub streams broke again and again, as those of one that is
// killed and restarted, hear each other again.
func TestMend(t *testing.T) {
	inMesh(t, 2, Config{}, time.Minute, func(m *testMesh) {
		mesh := m.hosts[0].Mesh()
		for range 8 { // pubsub gives up after four
			for _, h := range m.hosts {
				for _, c := range h.Raw().Network().Conns() {
					for _, s := range c.GetStreams() {
						if id := s.Protocol(); id == protocol.ID(Jobs.ID(mesh)) || id == protocol.ID(Offers.ID(mesh)) {
							if err := s.Reset(); err != nil {
								t.Error(err)
							}
						}
					}
				}
			}
			time.Sleep(3 * time.Second)
		}
		time.Sleep(30 * time.Second)
		for i, s := range m.svcs {
			name := fmt.Sprintf("from %d", i)
			if err := s.PublishJob(m.t.Context(), []byte(name)); err != nil {
				t.Fatal(err)
			}
			if err := s.PublishOffer(m.t.Context(), []byte(name), MaxRadius, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if _, ok := m.jobs[1-i].Load(name); !ok {
				t.Errorf("a job published by node %d is not heard", i)
			}
			if _, ok := m.got[1-i].Load(name); !ok {
				t.Errorf("an offer of node %d is not heard", i)
			}
		}
	})
}
