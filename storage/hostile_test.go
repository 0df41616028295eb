package storage

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// A folder of a few shards that name each other many times must not keep
// whoever lists it busy for ever.
func TestEndlessFolder(t *testing.T) {
	s := newStore(t, false)
	data, err := unixfs.HAMTShardData(nil, 256, 0x22)
	if err != nil {
		t.Fatal(err)
	}
	leaf := add(t, s, []byte("x"), AddOptions{}).CID
	for name, bottom := range map[string][]*ipld.Link{"empty": nil, "one entry": {{Name: "00name", Cid: leaf}}} {
		c := craft(t, s, data, bottom...)
		for range 6 {
			var links []*ipld.Link
			for i := range 256 {
				links = append(links, &ipld.Link{Name: string("0123456789ABCDEF"[i>>4]) + string("0123456789ABCDEF"[i&15]), Cid: c})
			}
			c = craft(t, s, data, links...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if got, err := s.Ls(ctx, c, ""); !errors.Is(err, ErrNode) {
			t.Errorf("%s: listed %d, %v", name, len(got), err)
		}
		if err := s.Walk(ctx, c, "", func(Entry) error { return nil }); !errors.Is(err, ErrNode) {
			t.Errorf("%s: walked: %v", name, err)
		}
		cancel()
	}
}

// A narrow chain of wide folders must not make a fetch hold all that it names.
func TestWidePlan(t *testing.T) {
	s := newStore(t, false)
	empty, err := mh.Sum(nil, mh.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	nothing := cid.NewCidV1(cid.Raw, empty)
	const wide = 1 << 14
	c := craft(t, s, unixfs.FolderPBData())
	for range maxSteps/wide + 2 {
		links := make([]*ipld.Link, 0, wide+1)
		links = append(links, &ipld.Link{Name: "a", Cid: c})
		for range wide {
			links = append(links, &ipld.Link{Name: "b", Cid: nothing})
		}
		c = craft(t, s, unixfs.FolderPBData(), links...)
	}
	if ok, err := s.CompleteSpan(t.Context(), Whole(c)); !errors.Is(err, ErrNode) {
		t.Errorf("planned: %v, %v", ok, err)
	}
}

func TestWeakHash(t *testing.T) {
	h, err := mh.Sum([]byte("x"), mh.SHA1, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckCID(cid.NewCidV1(cid.Raw, h)); !errors.Is(err, ErrNode) {
		t.Errorf("SHA-1: %v", err)
	}
}
