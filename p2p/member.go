package p2p

import (
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/coord"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Path is how packets to a peer travel.
type Path string

// The paths, from the nearest to the dearest.
const (
	PathNone     Path = ""
	PathLoopback Path = "loopback"
	PathLAN      Path = "lan"
	PathDirect   Path = "direct"
	PathRelayed  Path = "relayed"
)

// Capacity is what a member offers others. Peers only claim it: nothing but
// ranking rests on it.
type Capacity struct {
	Cores  float64
	Memory int64 // bytes
	Disk   int64 // bytes
	Kinds  []string
	Paused bool
	Full   bool // no room on its disk for more work
	Rights auth.Rights
}

const (
	maxKinds   = 16
	maxKindLen = 32
)

// Member is a connected peer that has shown a valid token.
type Member struct {
	ID       peer.ID
	Grant    auth.Grant
	Agent    string
	Path     Path
	Addr     ma.Multiaddr  // of the best open connection
	RTT      time.Duration // measured; 0: not yet
	Capacity Capacity
	Coord    coord.Coordinate // zero: not told yet
	Since    time.Time
	Inbound  bool // the peer dialled us

	ClockAhead time.Duration // how far its wall clock was before ours at hello; a claim
}
