package p2p

import (
	"bytes"
	"strings"
	"testing"
)

// What opens under a domain was sealed under it, whole, and within its limit.
func FuzzOpenSealed(f *testing.F) {
	key, id := newKey(f)
	h := &Host{cfg: Config{Key: key}}
	sealed := func(domain, payload string) []byte {
		b, err := h.Seal(domain, []byte(payload))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	for _, domain := range []string{"kith/test/1", "kith/other/1"} {
		for _, payload := range []string{"", "payload", strings.Repeat("x", 500)} {
			f.Add(sealed(domain, payload))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const max = 400
		who, payload, err := OpenSealed("kith/test/1", max, b)
		if err != nil {
			if who != "" || payload != nil {
				t.Error("refused, and something came of it")
			}
			return
		}
		if len(b) > max || len(payload) >= len(b) {
			t.Errorf("%d bytes gave %d", len(b), len(payload))
		}
		if who == id && !bytes.Equal(sealed("kith/test/1", string(payload)), b) {
			// Another encoding of the same envelope, at most: the signature holds.
			if again, same, err := OpenSealed("kith/test/1", max, sealed("kith/test/1", string(payload))); err != nil || again != id || !bytes.Equal(same, payload) {
				t.Errorf("sealed again: %v", err)
			}
		}
	})
}
