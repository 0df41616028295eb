// Package wire turns tasks' nouns into bytes and back: protobuf inside, domain
// types outside. Decoders believe nothing: they bound size, count and range
// before anything grows, and name the field that is wrong. Who signed the bytes
// and whether they may say so is not this package's business; whoever signs or
// hashes a message does so over the bytes as they came, never over a second
// encoding.
package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Domains separate signatures: bytes signed in one are nothing in another.
const (
	DomainSubmission = "kith/submission/1"
	DomainLease      = "kith/lease/1"
	DomainReceipts   = "kith/receipts/1"
	DomainReveals    = "kith/reveals/1"
	DomainVerdicts   = "kith/verdicts/1"
	DomainNotice     = "kith/notice/1"
	DomainAnswer     = "kith/answer/1"
)

// What one message may weigh, signature aside.
const (
	MaxSubmission = 160 << 10
	MaxOffer      = 32 << 10
	MaxBid        = 1 << 10
	MaxLease      = 8 << 20 // a reduce task names every output
	MaxReceipts   = 2 << 20
	MaxVerdicts   = 1 << 20
	MaxReport     = 9 << 18
	MaxOrders     = 9 << 20
	MaxNotice     = 16 << 10
	MaxAnswer     = 24 << 10
	MaxTask       = 8 << 20
	MaxSmall      = 8 << 10
)

// What one message may count.
const (
	MaxInline      = 64 << 10 // bytes of a small output, and of all blobs of a submission
	MaxLog         = 16 << 10 // bytes of a receipt's log
	MaxDetail      = 1 << 10
	MaxAssignments = 1 << 10
	MaxBatch       = 4 << 10 // receipts or verdicts under one signature
	MaxSpans       = 1 << 16 // inputs of a reduce task, so map tasks before one
	MaxLeases      = 256     // that one report speaks of
	MaxCommitments = 1 << 10 // in one report, and asked for in one message
	MaxReceipt     = MaxInline + MaxLog + MaxSmall
)

// ErrMalformed is wrapped by everything that a decoder refuses.
var ErrMalformed = errors.New("wire: malformed message")

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, a...))
}

// decode parses b into m. It refuses before it allocates: a message of many
// empty parts would otherwise take some fifty times its size in memory.
func decode(what string, b []byte, size, fields int, m proto.Message) error {
	if len(b) > size {
		return malformed("%s of %d bytes, the limit is %d", what, len(b), size)
	}
	if left := countFields(m.ProtoReflect().Descriptor(), b, fields, 0); left < 0 {
		return malformed("%s has more than %d fields or is cut short", what, fields)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return malformed("%s: %v", what, err)
	}
	return nil
}

// countFields takes the fields in b, nested ones too, from budget; it returns a
// negative number when that is not enough or b does not parse.
func countFields(md protoreflect.MessageDescriptor, b []byte, budget, depth int) int {
	if depth > 16 {
		return -1
	}
	for len(b) > 0 {
		if budget--; budget < 0 {
			return -1
		}
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return -1
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return -1
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return -1
		}
		b = b[n:]
		fd := md.Fields().ByNumber(num)
		switch {
		case fd == nil:
		case fd.Message() != nil:
			if budget = countFields(fd.Message(), v, budget, depth+1); budget < 0 {
				return -1
			}
		case fd.IsList() && fd.Kind() != protoreflect.StringKind && fd.Kind() != protoreflect.BytesKind:
			if budget -= len(v); budget < 0 { // packed numbers take a byte or more each
				return -1
			}
		}
	}
	return budget
}

// encode is the reverse. A nil message or one over its limit is the caller's
// fault, told before a peer tells it.
func encode(what string, size int, m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("wire: encode %s: %w", what, err)
	}
	if len(b) > size {
		return nil, fmt.Errorf("wire: encode %s: %d bytes, the limit is %d", what, len(b), size)
	}
	return b, nil
}
