package p2p

import (
	"fmt"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/kith-mesh/kith/p2p/internal/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

const maxRecord = 4 << 10 // bytes of a signed peer record

// meet is one half of an exchange.
type meet struct {
	coord    coord.Coordinate
	capacity Capacity
	record   []byte
	hints    []hint
	linked   bool
	worked   time.Duration
}

func (m meet) marshal() []byte {
	out := &pb.Meet{
		Coordinate: wireCoord(m.coord), Capacity: wireCapacity(m.capacity), Record: m.record,
		Linked: m.linked, Worked: uint32(min(m.worked.Microseconds(), 1e9)),
	}
	for _, h := range m.hints {
		out.Hints = append(out.Hints, &pb.Hint{
			Id: []byte(h.id), Record: h.record, Coordinate: wireCoord(h.coord), Age: uint32(min(h.age/time.Second, 1e9)),
		})
	}
	return mustMarshal(out)
}

// parseMeet reads a half. An invalid coordinate counts as none: one that has
// only just started may send it.
func parseMeet(b []byte) (meet, error) {
	if len(b) > Meet.MaxMessage {
		return meet{}, fmt.Errorf("meet: %d bytes, at most %d", len(b), Meet.MaxMessage)
	}
	var in pb.Meet
	if err := proto.Unmarshal(b, &in); err != nil {
		return meet{}, fmt.Errorf("meet: %w", err)
	}
	if len(in.Hints) > maxHints {
		return meet{}, fmt.Errorf("meet: %d hints, at most %d", len(in.Hints), maxHints)
	}
	if len(in.Record) > maxRecord {
		return meet{}, fmt.Errorf("meet: record of %d bytes, at most %d", len(in.Record), maxRecord)
	}
	m := meet{coord: readCoord(in.Coordinate), record: in.Record, linked: in.Linked, worked: time.Duration(in.Worked) * time.Microsecond}
	var err error
	if m.capacity, err = readCapacity(in.Capacity); err != nil {
		return meet{}, fmt.Errorf("meet: %w", err)
	}
	for i, h := range in.Hints {
		id, err := peer.IDFromBytes(h.Id)
		if err != nil {
			return meet{}, fmt.Errorf("meet: hint %d: %w", i, err)
		}
		if len(h.Record) > maxRecord {
			return meet{}, fmt.Errorf("meet: hint %d: record of %d bytes, at most %d", i, len(h.Record), maxRecord)
		}
		m.hints = append(m.hints, hint{id: id, record: h.Record, coord: readCoord(h.Coordinate), age: time.Duration(h.Age) * time.Second})
	}
	return m, nil
}

type linkAction uint8

const (
	linkPropose linkAction = iota + 1
	linkRelease
	linkEnd
)

type linkRequest struct {
	action linkAction
	far    bool
}

func (r linkRequest) marshal() []byte {
	return mustMarshal(&pb.LinkRequest{Action: pb.LinkRequest_Action(r.action), Far: r.far})
}

func parseLinkRequest(b []byte) (linkRequest, error) {
	var in pb.LinkRequest
	if err := proto.Unmarshal(b, &in); err != nil {
		return linkRequest{}, fmt.Errorf("link: %w", err)
	}
	if in.Action < pb.LinkRequest_PROPOSE || in.Action > pb.LinkRequest_END {
		return linkRequest{}, fmt.Errorf("link: unknown action %d", in.Action)
	}
	return linkRequest{action: linkAction(in.Action), far: in.Far}, nil
}

type linkAnswer struct {
	linked bool
	retry  time.Duration
}

func (a linkAnswer) marshal() []byte {
	return mustMarshal(&pb.LinkAnswer{Linked: a.linked, RetryAfter: uint32(a.retry / time.Second)})
}

func parseLinkAnswer(b []byte) (linkAnswer, error) {
	var in pb.LinkAnswer
	if err := proto.Unmarshal(b, &in); err != nil {
		return linkAnswer{}, fmt.Errorf("link: %w", err)
	}
	return linkAnswer{linked: in.Linked, retry: time.Duration(in.RetryAfter) * time.Second}, nil
}

// mustMarshal writes a message of ours: only a string that is no UTF-8 could
// fail, and there is none in them.
func mustMarshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("p2p: " + err.Error())
	}
	return b
}
