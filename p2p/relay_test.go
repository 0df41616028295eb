package p2p

import (
	"testing"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
)

// reserve takes a slot at a relay, as AutoRelay does once a node knows that it
// is not reachable.
func reserve(t *testing.T, h, relay *Host) {
	t.Helper()
	if _, err := client.Reserve(t.Context(), h.raw, addrInfo(relay)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reserve(t.Context(), stranger(t), addrInfo(relay)); err == nil {
		t.Error("a stranger was given a slot")
	}
}
