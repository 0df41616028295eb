package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kith-mesh/kith/tasks"
)

// A hash binds to all three: bytes, nonce and worker, and to where each ends.
func TestHashReceipt(t *testing.T) {
	nonce := bytes.Repeat([]byte{1}, NonceSize)
	seen := map[tasks.Hash]string{}
	for name, h := range map[string]tasks.Hash{
		"itself":         HashReceipt([]byte("receipt"), nonce, "worker"),
		"other bytes":    HashReceipt([]byte("receipu"), nonce, "worker"),
		"other nonce":    HashReceipt([]byte("receipt"), bytes.Repeat([]byte{2}, NonceSize), "worker"),
		"another worker": HashReceipt([]byte("receipt"), nonce, "another"),
		"moved":          HashReceipt(append([]byte("receipt"), nonce[0]), nonce[1:], "worker"),
	} {
		if other := seen[h]; other != "" {
			t.Errorf("%s hashes like %s", name, other)
		}
		seen[h] = name
	}
	if h := HashReceipt([]byte("receipt"), nonce, "worker"); seen[h] != "itself" {
		t.Error("the hash does not repeat")
	}
}

func TestBadReveals(t *testing.T) {
	r := Reveal{Body: []byte{0xff}, Nonce: make([]byte, NonceSize)}
	short := Reveal{Nonce: make([]byte, NonceSize-1)}
	for name, list := range map[string][]Reveal{"no receipt": {r}, "a short nonce": {short}, "too many": make([]Reveal, MaxBatch+1)} {
		b, err := MarshalReveals("m", list)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := UnmarshalReveals(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := MarshalReport(WorkReport{Commits: make([]tasks.Commitment, MaxCommitments+1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := UnmarshalReport(b, "w"); !errors.Is(err, ErrMalformed) {
		t.Errorf("too many commitments: %v", err)
	}
}
