package p2p

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
)

// sealed carries bytes through libp2p's signed envelopes.
type sealed struct {
	domain  string
	payload []byte
}

func (s *sealed) Domain() string                 { return s.domain }
func (s *sealed) Codec() []byte                  { return []byte("/kith/sealed") }
func (s *sealed) MarshalRecord() ([]byte, error) { return s.payload, nil }
func (s *sealed) UnmarshalRecord(b []byte) error { s.payload = b; return nil }

// Seal signs payload with this node's key under a domain, which keeps a
// signature made for one purpose from serving another.
func (h *Host) Seal(domain string, payload []byte) ([]byte, error) {
	env, err := record.Seal(&sealed{domain: domain, payload: payload}, h.cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", domain, err)
	}
	return env.Marshal()
}

// OpenSealed checks what Seal made and returns its signer and payload. max
// bounds the bytes of b.
func OpenSealed(domain string, max int, b []byte) (peer.ID, []byte, error) {
	if domain == "" {
		return "", nil, errors.New("open sealed: no domain")
	}
	if len(b) == 0 || len(b) > max {
		return "", nil, fmt.Errorf("open %s: %d bytes: want 1 to %d", domain, len(b), max)
	}
	in := &sealed{domain: domain}
	env, err := record.ConsumeTypedEnvelope(b, in)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", domain, err)
	}
	if string(env.PayloadType) != string(in.Codec()) {
		return "", nil, fmt.Errorf("open %s: it is another kind of envelope", domain)
	}
	id, err := peer.IDFromPublicKey(env.PublicKey)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", domain, err)
	}
	return id, in.payload, nil
}
