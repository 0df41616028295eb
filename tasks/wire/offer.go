package wire

import (
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire/internal/pb"
)

// MarshalOffer encodes o. Who sent it is known from whom it came: the envelope
// that carries it is signed.
func MarshalOffer(o tasks.Offer) ([]byte, error) {
	return encode("offer", MaxOffer, &pb.Offer{
		Job: string(o.Job), Term: o.Term, Origin: string(o.Origin), Kind: string(o.Kind), Program: string(o.Program),
		Inputs: textsOf(o.Inputs), Needs: resourcesToPB(o.Needs), Waiting: o.Waiting, Replicas: o.Replicas, Round: o.Round,
		MaxRttNs: int64(o.MaxRTT), RadiusNs: int64(o.Radius), WindowNs: int64(o.Window), Addresses: o.Addresses,
		Coord: &pb.Coordinate{Vec: o.Coord.Vec[:], Height: o.Coord.Height, Error: o.Coord.Error, Adjustment: o.Coord.Adjustment},
	})
}

// UnmarshalOffer decodes what MarshalOffer wrote. A coordinate that can't be
// predicted from is refused, but for the zero one: its sender has none yet.
func UnmarshalOffer(b []byte) (tasks.Offer, error) {
	var m pb.Offer
	if err := decode("offer", b, MaxOffer, 1<<10, &m); err != nil {
		return tasks.Offer{}, err
	}
	c := &checker{}
	o := tasks.Offer{
		Job: c.job("job", m.Job), Term: m.Term, Origin: c.peerID("origin", m.Origin), Kind: tasks.Kind(c.word("kind", m.Kind, 32)),
		Program: c.cidText("program", m.Program), Needs: c.resources(m.Needs), Waiting: c.uint("waiting", m.Waiting, 1<<30),
		Replicas: c.uint("replicas", m.Replicas, 64), Round: c.uint("round", m.Round, 1<<16), MaxRTT: c.duration("maxRTT", m.MaxRttNs),
		Radius: c.duration("radius", m.RadiusNs), Window: c.duration("window", m.WindowNs), Addresses: c.bytes("addresses", m.Addresses, maxRecord),
	}
	for _, in := range m.Inputs[:c.count("inputs", len(m.Inputs), maxInputs)] {
		o.Inputs = append(o.Inputs, c.cidText("input", in))
	}
	zero := o.Coord
	switch n := len(m.Coord.GetVec()); n {
	case 0, len(o.Coord.Vec):
		copy(o.Coord.Vec[:], m.Coord.GetVec())
	default:
		c.fail("coordinate of %d dimensions, want %d", n, len(o.Coord.Vec))
	}
	o.Coord.Height, o.Coord.Error, o.Coord.Adjustment = m.Coord.GetHeight(), m.Coord.GetError(), m.Coord.GetAdjustment()
	if o.Coord != zero && !o.Coord.Valid() {
		c.fail("coordinate is not finite or out of range")
	}
	if c.err != nil {
		return tasks.Offer{}, c.err
	}
	return o, nil
}

// MarshalBid encodes a bid.
func MarshalBid(b tasks.Bid) ([]byte, error) {
	return encode("bid", MaxBid, &pb.Bid{Job: string(b.Job), Worker: string(b.Worker), Slots: b.Slots, QueueNs: int64(b.Queue), Speed: b.Speed, Cached: b.Cached})
}

// UnmarshalBid decodes what MarshalBid wrote.
func UnmarshalBid(b []byte) (tasks.Bid, error) {
	var m pb.Bid
	if err := decode("bid", b, MaxBid, 64, &m); err != nil {
		return tasks.Bid{}, err
	}
	c := &checker{}
	bid := tasks.Bid{
		Job: c.job("job", m.Job), Worker: c.peerID("worker", m.Worker), Slots: c.uint("slots", m.Slots, 1<<16),
		Queue: c.duration("queue", m.QueueNs), Speed: c.number("speed", m.Speed, 1e9), Cached: m.Cached,
	}
	if c.err != nil {
		return tasks.Bid{}, c.err
	}
	return bid, nil
}
