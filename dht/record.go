package dht

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"google.golang.org/protobuf/proto"

	"github.com/kith-mesh/kith/dht/internal/pb"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
)

// MaxPayload is the largest payload of a record, in bytes.
const MaxPayload = 8 << 10

const (
	namespace = "kith"
	domain    = "kith-mesh-record"
	maxToken  = 4 << 10
	maxName   = 64
	maxRecord = MaxPayload + maxToken + 1<<10
	maxTTL    = 7 * 24 * time.Hour
	skew      = time.Hour
)

// ErrRecord: a record is not valid, whoever handed it over.
var ErrRecord = errors.New("not a valid record")

// ErrNotFound: nobody who was asked has a record or an address.
var ErrNotFound = routing.ErrNotFound

// Record is a member's statement under a name of its choice: the newest
// sequence counts, until it expires.
type Record struct {
	Signer   peer.ID
	Name     string
	Sequence uint64
	Expires  time.Time
	Payload  []byte
}

// key is where a record of signer's is kept.
func key(name string, signer peer.ID) string {
	return "/" + namespace + "/" + name + "/" + string(signer)
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("record name %.80q: want 1 to %d characters", name, maxName)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("record name %q holds %q: use a-z, 0-9 and -", name, r)
		}
	}
	return nil
}

// Put signs and publishes a record of this node's under name. The sequence
// must grow from one to the next.
func (s *Service) Put(ctx context.Context, name string, sequence uint64, payload []byte, ttl time.Duration) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("record %s: %d bytes, at most %d are kept", name, len(payload), MaxPayload)
	}
	if ttl <= 0 || ttl > maxTTL {
		return fmt.Errorf("record %s: lifetime %v: want up to %v", name, ttl, maxTTL)
	}
	k, err := s.running(ctx)
	if err != nil {
		return fmt.Errorf("put record %s: %w", name, err)
	}
	raw, err := proto.Marshal(&pb.Record{Token: s.h.Token(), Name: name, Sequence: sequence,
		Expires: s.cfg.Now().Add(ttl).UnixMilli(), Payload: payload})
	if err != nil {
		return fmt.Errorf("put record %s: %w", name, err)
	}
	sealed, err := s.h.Seal(domain, raw)
	if err != nil {
		return fmt.Errorf("put record %s: %w", name, err)
	}
	if err := k.PutValue(ctx, key(name, s.h.ID()), sealed); err != nil {
		return fmt.Errorf("put record %s: %w", name, err)
	}
	return nil
}

// Get finds the newest record that signer published under name.
func (s *Service) Get(ctx context.Context, name string, signer peer.ID) (Record, error) {
	if err := checkName(name); err != nil {
		return Record{}, err
	}
	k, err := s.running(ctx)
	if err != nil {
		return Record{}, fmt.Errorf("get record %s: %w", name, err)
	}
	b, err := k.GetValue(ctx, key(name, signer))
	if err != nil {
		return Record{}, fmt.Errorf("get record %s of %s: %w", name, signer, err)
	}
	return s.validator().open(key(name, signer), b)
}

// validator decides what is stored and believed.
type validator struct {
	mesh    auth.MeshID
	revoked func(peer.ID) bool
	now     func() time.Time
}

func (s *Service) validator() validator {
	return validator{mesh: s.h.Mesh(), revoked: s.cfg.Revoked, now: s.cfg.Now}
}

// Validate reports why a record does not belong under key.
func (v validator) Validate(key string, value []byte) error {
	_, err := v.open(key, value)
	return err
}

// Select picks the newest of valid records.
func (v validator) Select(key string, values [][]byte) (int, error) {
	best, at := -1, Record{}
	for i, b := range values {
		r, err := v.open(key, b)
		if err != nil {
			continue
		}
		if best < 0 || r.Sequence > at.Sequence || r.Sequence == at.Sequence && r.Expires.After(at.Expires) {
			best, at = i, r
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("none of %d: %w", len(values), ErrRecord)
	}
	return best, nil
}

func (v validator) open(k string, b []byte) (Record, error) {
	signer, raw, err := p2p.OpenSealed(domain, maxRecord, b)
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", err, ErrRecord)
	}
	var m pb.Record
	if err := proto.Unmarshal(raw, &m); err != nil {
		return Record{}, fmt.Errorf("%w: %w", err, ErrRecord)
	}
	r := Record{Signer: signer, Name: m.Name, Sequence: m.Sequence, Expires: time.UnixMilli(m.Expires), Payload: m.Payload}
	if err := checkName(r.Name); err != nil {
		return Record{}, fmt.Errorf("%w: %w", err, ErrRecord)
	}
	if k != key(r.Name, signer) {
		return Record{}, fmt.Errorf("record %s of %s under key %.100q: %w", r.Name, signer, strings.ToValidUTF8(k, "?"), ErrRecord)
	}
	if len(m.Payload) > MaxPayload || len(m.Token) > maxToken {
		return Record{}, fmt.Errorf("record of %d bytes with a token of %d: %w", len(m.Payload), len(m.Token), ErrRecord)
	}
	now := v.now()
	if now.After(r.Expires.Add(skew)) || r.Expires.After(now.Add(maxTTL+skew)) {
		return Record{}, fmt.Errorf("record that expires at %v, it is %v: %w", r.Expires, now, ErrRecord)
	}
	if _, err := auth.Token(m.Token).Verify(v.mesh, signer, now, v.revoked); err != nil {
		return Record{}, fmt.Errorf("record's token: %w: %w", err, ErrRecord)
	}
	return r, nil
}
