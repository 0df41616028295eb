package gossip

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/kith-mesh/kith/gossip/internal/pb"
	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"
)

func testKey(t testing.TB, seed int) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.KeyPairFromStdKey(new(ed25519.NewKeyFromSeed(binary.BigEndian.AppendUint64(make([]byte, ed25519.SeedSize-8), uint64(seed)))))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// bytesRecord seals as p2p.Host does, without a host.
type bytesRecord struct {
	domain string
	b      []byte
}

func (r *bytesRecord) Domain() string                 { return r.domain }
func (r *bytesRecord) Codec() []byte                  { return []byte("/kith/sealed") }
func (r *bytesRecord) MarshalRecord() ([]byte, error) { return r.b, nil }
func (r *bytesRecord) UnmarshalRecord(b []byte) error { r.b = b; return nil }

func signer(key crypto.PrivKey) func(string, []byte) ([]byte, error) {
	return func(domain string, b []byte) ([]byte, error) {
		env, err := record.Seal(&bytesRecord{domain: domain, b: b}, key)
		if err != nil {
			return nil, err
		}
		return env.Marshal()
	}
}

func testPlace() coord.Coordinate {
	c := coord.Coordinate{Height: 0.004, Error: 0.2, Adjustment: -0.001}
	c.Vec[0], c.Vec[7] = 0.03, -0.02
	return c
}

func TestEnvelopeRoundTrip(t *testing.T) {
	key, id := testKey(t, 1)
	want := envelope{payload: []byte("job"), place: testPlace(), radius: 42 * time.Millisecond, ttl: 9 * time.Second, stamp: time.Unix(1e9, 7)}
	b, err := want.seal(signer(key))
	if err != nil {
		t.Fatal(err)
	}
	got, err := openEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.origin != id || !bytes.Equal(got.payload, want.payload) || got.place != want.place ||
		got.radius != want.radius || got.ttl != want.ttl || !got.stamp.Equal(want.stamp) {
		t.Errorf("got %+v, want %+v from %s", got, want, id)
	}
}

func TestEnvelopeRefuses(t *testing.T) {
	key, _ := testKey(t, 1)
	ok := &pb.Envelope{Payload: []byte("x"), Radius: 1000, Ttl: 1000, Stamp: 1e18}
	with := func(f func(*pb.Envelope)) []byte {
		e := proto.Clone(ok).(*pb.Envelope)
		f(e)
		b, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := signer(key)(offerDomain, b)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	good := with(func(*pb.Envelope) {})
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	otherDomain, err := signer(key)("kith-other", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		b    []byte
		want error
	}{
		"good":          {good, nil},
		"empty":         {nil, errForged},
		"flipped bit":   {flipped, errForged},
		"other domain":  {otherDomain, errForged},
		"oversize":      {make([]byte, MaxOffer+sealSpace+1), errTooLarge},
		"large payload": {with(func(e *pb.Envelope) { e.Payload = make([]byte, MaxOffer+1) }), errTooLarge},
		"no radius":     {with(func(e *pb.Envelope) { e.Radius = 0 }), errFields},
		"no ttl":        {with(func(e *pb.Envelope) { e.Ttl = 0 }), errFields},
		"no stamp":      {with(func(e *pb.Envelope) { e.Stamp = 0 }), errFields},
		"short place":   {with(func(e *pb.Envelope) { e.Place = []float64{1} }), errFields},
		"NaN place": {with(func(e *pb.Envelope) {
			e.Place = make([]float64, placeFields)
			e.Place[coord.Dimensions] = 1
			e.Place[0] = math.NaN()
		}), errFields},
	} {
		if _, err := openEnvelope(tc.b); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	got, err := openEnvelope(with(func(e *pb.Envelope) { e.Radius, e.Ttl = math.MaxUint64, math.MaxUint64 }))
	if err != nil || got.radius != MaxRadius || got.ttl != MaxTTL {
		t.Errorf("radius %v and ttl %v, want them cut to %v and %v (%v)", got.radius, got.ttl, MaxRadius, MaxTTL, err)
	}
}

func FuzzOpenEnvelope(f *testing.F) {
	key, _ := testKey(f, 1)
	e := envelope{payload: []byte("job"), place: testPlace(), radius: time.Millisecond, ttl: time.Second, stamp: time.Unix(1, 0)}
	b, err := e.seal(signer(key))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{})
	inner, err := proto.Marshal(&pb.Envelope{Radius: 1, Ttl: 1, Stamp: 1, Place: []float64{math.Inf(1)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(inner)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := openEnvelope(b); err == nil && len(b) > MaxOffer+sealSpace {
			t.Fatal("an oversize offer was taken")
		}
		e, err := parseEnvelope(b)
		if err != nil {
			return
		}
		if e.radius <= 0 || e.radius > MaxRadius || e.ttl <= 0 || e.ttl > MaxTTL || len(e.payload) > MaxOffer {
			t.Fatalf("out of range: %+v", e)
		}
	})
}
