package p2p

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/kith-mesh/kith/p2p/internal/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

const someID = peer.ID("\x00\x24\x08\x01\x12\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

func somePlace() coord.Coordinate {
	c := coord.Coordinate{Height: 0.01, Error: 0.3, Adjustment: 0.001}
	c.Vec[3] = 0.04
	return c
}

func someMeet() meet {
	return meet{
		coord: somePlace(), capacity: Capacity{Cores: 2.5, Memory: 1 << 30, Kinds: []string{"wasm"}}, record: []byte("own"),
		hints:  []hint{{id: someID, record: []byte("theirs"), coord: somePlace(), age: 40 * time.Second}, {id: someID}},
		linked: true, worked: 1500 * time.Microsecond,
	}
}

func TestMeetRoundTrip(t *testing.T) {
	want := someMeet()
	got, err := parseMeet(want.marshal())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestMeetRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"garbage":        []byte("\xff\xff\xff"),
		"oversize":       make([]byte, Meet.MaxMessage+1),
		"many hints":     mustMarshal(&pb.Meet{Hints: make([]*pb.Hint, maxHints+1)}),
		"no peer ID":     mustMarshal(&pb.Meet{Hints: []*pb.Hint{{Id: []byte("x")}}}),
		"long record":    mustMarshal(&pb.Meet{Record: make([]byte, maxRecord+1)}),
		"long hint":      mustMarshal(&pb.Meet{Hints: []*pb.Hint{{Id: []byte(someID), Record: make([]byte, maxRecord+1)}}}),
		"NaN cores":      mustMarshal(&pb.Meet{Capacity: &pb.Capacity{Cores: math.NaN()}}),
		"negative disk":  mustMarshal(&pb.Meet{Capacity: &pb.Capacity{Disk: -1}}),
		"too many kinds": mustMarshal(&pb.Meet{Capacity: &pb.Capacity{Kinds: make([]string, maxKinds+1)}}),
	} {
		if m, err := parseMeet(b); err == nil {
			t.Errorf("%s: taken as %+v", name, m)
		}
	}
	for name, c := range map[string]*pb.Coordinate{
		"seven axes": {Vec: make([]float64, 7), Height: 1}, "no height": {Vec: make([]float64, 8)},
		"NaN": {Vec: []float64{math.NaN(), 0, 0, 0, 0, 0, 0, 0}, Height: 1},
	} {
		m, err := parseMeet(mustMarshal(&pb.Meet{Coordinate: c}))
		if err != nil || m.coord.Valid() {
			t.Errorf("%s: %+v, %v; want no coordinate", name, m.coord, err)
		}
	}
}

func FuzzParseMeet(f *testing.F) {
	f.Add(someMeet().marshal())
	f.Add([]byte{})
	f.Add(mustMarshal(&pb.Meet{Hints: []*pb.Hint{{Id: []byte(someID), Age: math.MaxUint32}}, Worked: math.MaxUint32}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeet(b)
		if err != nil {
			return
		}
		if m.worked < 0 || len(m.hints) > maxHints {
			t.Fatalf("out of range: %+v", m)
		}
		again, err := parseMeet(m.marshal())
		if err != nil || !bytes.Equal(again.marshal(), m.marshal()) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	f.Add(linkRequest{action: linkPropose, far: true}.marshal())
	f.Add(linkAnswer{linked: true, retry: time.Minute}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseLinkRequest(b); err == nil && (r.action < linkPropose || r.action > linkEnd) {
			t.Fatalf("unknown action %d", r.action)
		}
		if a, err := parseLinkAnswer(b); err == nil && a.retry < 0 {
			t.Fatalf("retry %v", a.retry)
		}
	})
}
