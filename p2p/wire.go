package p2p

import (
	"fmt"
	"math"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/kith-mesh/kith/p2p/internal/pb"
)

// What a peer may claim to offer at most.
const (
	maxCores = 1 << 20
	maxBytes = 1 << 60
)

func wireCoord(c coord.Coordinate) *pb.Coordinate {
	if !c.Valid() {
		return nil
	}
	return &pb.Coordinate{Vec: append([]float64(nil), c.Vec[:]...), Height: c.Height, Error: c.Error, Adjustment: c.Adjustment}
}

// readCoord gives the zero coordinate for what is absent or no valid place.
func readCoord(in *pb.Coordinate) coord.Coordinate {
	if len(in.GetVec()) != coord.Dimensions {
		return coord.Coordinate{}
	}
	c := coord.Coordinate{Height: in.Height, Error: in.Error, Adjustment: in.Adjustment}
	copy(c.Vec[:], in.Vec)
	if !c.Valid() {
		return coord.Coordinate{}
	}
	return c
}

func wireCapacity(c Capacity) *pb.Capacity {
	return &pb.Capacity{Cores: c.Cores, Memory: c.Memory, Disk: c.Disk, Kinds: c.Kinds, Paused: c.Paused, Rights: uint32(c.Rights), Full: c.Full}
}

// readCapacity takes an absent one for an offer of nothing.
func readCapacity(in *pb.Capacity) (Capacity, error) {
	if in == nil {
		return Capacity{}, nil
	}
	if math.IsNaN(in.Cores) || in.Cores < 0 || in.Cores > maxCores {
		return Capacity{}, fmt.Errorf("capacity: %g cores, want 0 to %d", in.Cores, maxCores)
	}
	if in.Memory < 0 || in.Memory > maxBytes || in.Disk < 0 || in.Disk > maxBytes {
		return Capacity{}, fmt.Errorf("capacity: memory %d, disk %d bytes, want 0 to %d", in.Memory, in.Disk, int64(maxBytes))
	}
	if len(in.Kinds) > maxKinds {
		return Capacity{}, fmt.Errorf("capacity: %d kinds, at most %d", len(in.Kinds), maxKinds)
	}
	for _, k := range in.Kinds {
		if len(k) > maxKindLen {
			return Capacity{}, fmt.Errorf("capacity: a kind of %d bytes, at most %d", len(k), maxKindLen)
		}
		if cleanText(k) != k {
			return Capacity{}, fmt.Errorf("capacity: kind %q holds what can't be shown", k)
		}
	}
	return Capacity{Cores: in.Cores, Memory: in.Memory, Disk: in.Disk, Kinds: in.Kinds, Paused: in.Paused, Rights: auth.Rights(in.Rights), Full: in.Full}, nil
}
