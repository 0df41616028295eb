package transfer

import (
	"bytes"
	"testing"

	"github.com/ipfs/go-cid"
)

func FuzzParseAsk(f *testing.F) {
	c := cid.MustParse("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
	b, err := ask{root: c, ticket: []byte("t"), blocks: []cid.Cid{c, c}}.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAsk(b)
		if err != nil {
			return
		}
		if len(a.blocks) == 0 || len(a.blocks) > maxAsk || len(a.ticket) > maxTicket || !a.root.Defined() {
			t.Fatalf("out of bounds: %d blocks, a ticket of %d", len(a.blocks), len(a.ticket))
		}
		again, err := a.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if a2, err := parseAsk(again); err != nil || a2.root != a.root || len(a2.blocks) != len(a.blocks) || !bytes.Equal(a2.ticket, a.ticket) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	b, err := marshalAnswer([]state{absent, follows, refused})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, 3)
	f.Add(b, 2)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		s, err := parseAnswer(b, n)
		if err == nil && len(s) != n {
			t.Fatalf("%d states for %d blocks", len(s), n)
		}
	})
}
