package auth

// Domains keep a signature made for one purpose from serving another.
const (
	grantDomain   = "kith-grant-v1"
	charterDomain = "kith-charter-v1"
)

// sealed carries bytes through libp2p's envelopes under a domain of ours.
type sealed struct {
	domain  string
	payload []byte
}

func (s *sealed) Domain() string                 { return s.domain }
func (s *sealed) Codec() []byte                  { return []byte("/kith/" + s.domain) }
func (s *sealed) MarshalRecord() ([]byte, error) { return s.payload, nil }
func (s *sealed) UnmarshalRecord(b []byte) error { s.payload = b; return nil }
