package p2p

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Bytes are told by protocol and direction, our own protocols without the
// mesh's prefix, and a peer can't make more rows than there are protocols.
func TestTraffic(t *testing.T) {
	c := newTraffic("/kith/abc/")
	c.LogSentMessageStream(10, "/kith/abc/meet/1.0.0", "p")
	c.LogRecvMessageStream(3, "/kith/abc/meet/1.0.0", "q")
	c.LogRecvMessageStream(2, "/kith/abc/meet/1.0.0", "p")
	if f := c.of("/kith/abc/meet/1.0.0"); f.out.Load() != 10 || f.in.Load() != 5 {
		t.Errorf("out %d, in %d, want 10 and 5", f.out.Load(), f.in.Load())
	}
	if n := testutil.CollectAndCount(c); n != 4 { // meet and the others, two ways
		t.Errorf("%d rows, want 4", n)
	}
	for i := range 10 * maxFlows {
		c.LogSentMessageStream(1, protocol.ID(fmt.Sprint("/made/up/", i)), "p")
	}
	if n := testutil.CollectAndCount(c); n != 2*(maxFlows+1) {
		t.Errorf("%d rows of made-up protocols, want %d", n, 2*(maxFlows+1))
	}
	if got := c.rest.out.Load(); got != int64(10*maxFlows-(maxFlows-1)) {
		t.Errorf("%d bytes of other protocols", got)
	}
}
