package gossip

import (
	"errors"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/gossip/internal/pb"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

// What an offer may be at most, whatever its origin asks for.
const (
	MaxOffer  = 8 << 10 // bytes of payload
	MaxJob    = 80 << 10
	MaxRadius = time.Second // of round trip; a wider one is cut to it
	MaxTTL    = 10 * time.Minute

	sealSpace   = 512 // signature, key and the envelope's own fields
	offerDomain = "kith-offer"
	placeFields = coord.Dimensions + 3
)

var (
	errTooLarge = errors.New("too large")
	errForged   = errors.New("not signed by its origin")
	errFields   = errors.New("field out of range")
)

// envelope is an offer on its way.
type envelope struct {
	origin  peer.ID
	payload []byte
	place   coord.Coordinate // zero: the origin had none
	radius  time.Duration
	ttl     time.Duration
	stamp   time.Time
}

// seal writes and signs an envelope by signer.
func (e envelope) seal(sign func(domain string, payload []byte) ([]byte, error)) ([]byte, error) {
	out := &pb.Envelope{Payload: e.payload, Radius: uint64(e.radius.Microseconds()), Ttl: uint64(e.ttl.Milliseconds()), Stamp: e.stamp.UnixNano()}
	if e.place.Valid() {
		out.Place = append(append(out.Place, e.place.Vec[:]...), e.place.Height, e.place.Error, e.place.Adjustment)
	}
	b, err := proto.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("offer: %w", err)
	}
	return sign(offerDomain, b)
}

// openEnvelope checks size, signature and ranges. A radius or a ttl above the
// most is cut to it; one that is nothing is refused.
func openEnvelope(b []byte) (envelope, error) {
	if len(b) > MaxOffer+sealSpace {
		return envelope{}, fmt.Errorf("offer: %w: %d bytes, at most %d", errTooLarge, len(b), MaxOffer+sealSpace)
	}
	origin, inner, err := p2p.OpenSealed(offerDomain, MaxOffer+sealSpace, b)
	if err != nil {
		return envelope{}, fmt.Errorf("offer: %w: %w", errForged, err)
	}
	e, err := parseEnvelope(inner)
	e.origin = origin
	return e, err
}

func parseEnvelope(b []byte) (envelope, error) {
	var in pb.Envelope
	if err := proto.Unmarshal(b, &in); err != nil {
		return envelope{}, fmt.Errorf("offer: %w", err)
	}
	switch {
	case len(in.Payload) > MaxOffer:
		return envelope{}, fmt.Errorf("offer: %w: payload of %d bytes, at most %d", errTooLarge, len(in.Payload), MaxOffer)
	case in.Radius == 0:
		return envelope{}, fmt.Errorf("offer: %w: no radius", errFields)
	case in.Ttl == 0:
		return envelope{}, fmt.Errorf("offer: %w: no ttl", errFields)
	case in.Stamp <= 0:
		return envelope{}, fmt.Errorf("offer: %w: stamp %d", errFields, in.Stamp)
	case len(in.Place) != 0 && len(in.Place) != placeFields:
		return envelope{}, fmt.Errorf("offer: %w: place of %d numbers, want %d", errFields, len(in.Place), placeFields)
	}
	e := envelope{
		payload: in.Payload, stamp: time.Unix(0, in.Stamp),
		radius: time.Duration(min(in.Radius, uint64(MaxRadius.Microseconds()))) * time.Microsecond,
		ttl:    time.Duration(min(in.Ttl, uint64(MaxTTL.Milliseconds()))) * time.Millisecond,
	}
	if p := in.Place; len(p) > 0 {
		copy(e.place.Vec[:], p)
		e.place.Height, e.place.Error, e.place.Adjustment = p[coord.Dimensions], p[coord.Dimensions+1], p[coord.Dimensions+2]
		if err := e.place.Check(); err != nil {
			return envelope{}, fmt.Errorf("offer: %w: %w", errFields, err)
		}
	}
	return e, nil
}
