package wire

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire/internal/pb"
)

// NonceSize is the bytes of a commitment's nonce. Without it, whoever guesses an
// answer could see from the hash that the guess is right.
const NonceSize = 32

// HashReceipt makes the hash that a worker commits to. Each part is preceded by
// its length, so that no two triples make the same bytes.
func HashReceipt(body, nonce []byte, worker tasks.PeerID) (out tasks.Hash) {
	h := sha256.New()
	for _, part := range [][]byte{[]byte("kith commitment 1"), body, nonce, []byte(worker)} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // a hash never fails
		_, _ = h.Write(part)
	}
	h.Sum(out[:0])
	return out
}

// Reveal shows a receipt that was committed to.
type Reveal struct {
	Receipt tasks.Receipt // decoded from Body; not encoded
	Body    []byte        // the receipt's bytes, as they were hashed
	Nonce   []byte
}

// MarshalReveals encodes what one signature of a worker covers.
func MarshalReveals(mesh string, rs []Reveal) ([]byte, error) {
	m := &pb.Reveals{Mesh: mesh}
	for _, r := range rs {
		m.Reveals = append(m.Reveals, &pb.Reveal{Receipt: r.Body, Nonce: r.Nonce})
	}
	return encode("reveals", MaxReceipts, m)
}

// UnmarshalReveals decodes what MarshalReveals wrote, and the receipts in it.
func UnmarshalReveals(b []byte) (mesh string, rs []Reveal, err error) {
	var m pb.Reveals
	if err := decode("reveals", b, MaxReceipts, 4*MaxBatch, &m); err != nil {
		return "", nil, err
	}
	c := &checker{}
	mesh = c.word("mesh", m.Mesh, 64)
	for _, r := range m.Reveals[:c.count("reveals", len(m.Reveals), MaxBatch)] {
		n := Reveal{Body: r.Receipt, Nonce: c.bytes("nonce", r.Nonce, NonceSize)}
		if len(n.Nonce) != NonceSize {
			c.fail("nonce of %d bytes, not %d", len(n.Nonce), NonceSize)
		}
		if n.Receipt, err = UnmarshalReceipt(r.Receipt); err != nil {
			return "", nil, err
		}
		rs = append(rs, n)
	}
	if c.err != nil {
		return "", nil, c.err
	}
	return mesh, rs, nil
}
