package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/node/policy"
)

// Config is what a node is started with. The zero value of each field but Home
// stands for the default named beside it.
type Config struct {
	Home Home

	// Listen are the multiaddrs for peers. Default: TCP and QUIC on port 4101
	// of every interface.
	Listen []string
	// NoQUIC leaves UDP out.
	NoQUIC bool
	// Loopback lets loopback and bridge addresses into invites and records.
	// Default: only when every listener is on loopback.
	Loopback bool
	// Delays adds a one-way delay to connections with the peer at the address
	// "host:port", both directions, below libp2p. For demonstrations on one
	// machine.
	Delays map[string]time.Duration

	// APIListen is where the local API listens. Default 127.0.0.1:7770.
	APIListen string
	// APIHosts are further names that a request's Host header may carry.
	APIHosts []string

	// Join is an invite, or "lan" to look for an open mesh by mDNS. It is used
	// when the home belongs to no mesh yet.
	Join string
	// JoinFile is a file that holds, or will hold, an invite.
	JoinFile string
	// Init founds a mesh when the home belongs to none and none is joined.
	Init     bool
	MeshName string // of the mesh that Init founds
	OpenMesh bool   // whoever is on its LAN may join it
	// InviteOut is a file to write a reusable invite to at every start.
	InviteOut string

	// Light runs no job service: the node takes no work and adopts no jobs. It
	// can still publish.
	Light bool
	// Policy is what the device gives.
	Policy policy.Policy

	Log *slog.Logger // default: slog.Default()
	// Exe is the kith binary that runs programs in child processes. Default:
	// this process's own.
	Exe string
	// Now is the wall clock of expiries and stamps. Default time.Now.
	Now func() time.Time
	// Notify is told once, when the node is up. May be nil.
	Notify func(Started)

	// Seams replaces what a simulation replaces.
	Seams Seams

	bootstrap []peer.AddrInfo // from joining just now
	minFree   int64           // bytes on the home's volume, below which doctor complains
}

// Started is what a node prints when it is up.
type Started struct {
	Mesh    string
	Peer    string
	API     string // host:port
	Listen  []string
	Invites bool // this node may invite
}

// fill returns a copy with defaults.
func (c Config) fill() Config {
	if len(c.Listen) == 0 {
		c.Listen = []string{"/ip4/0.0.0.0/tcp/4101", "/ip6/::/tcp/4101"}
		if !c.NoQUIC {
			c.Listen = append(c.Listen, "/ip4/0.0.0.0/udp/4101/quic-v1", "/ip6/::/udp/4101/quic-v1")
		}
	}
	if c.APIListen == "" {
		c.APIListen = "127.0.0.1:7770"
	}
	if c.minFree == 0 {
		c.minFree = 512 << 20
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Exe == "" && c.Seams.Runner == nil {
		if exe, err := os.Executable(); err == nil {
			c.Exe = exe
		}
	}
	return c
}

// validate reports every fault at once.
func (c Config) validate() error {
	var faults []error
	if c.Home == "" && c.Seams.Key == nil {
		faults = append(faults, errors.New("home: empty: set --home or KITH_HOME"))
	}
	for _, s := range c.Listen {
		if _, err := ma.NewMultiaddr(s); err != nil {
			faults = append(faults, fmt.Errorf("listen: %q is not a multiaddr such as /ip4/0.0.0.0/tcp/4101: %w", s, err))
		}
	}
	if _, _, err := net.SplitHostPort(c.APIListen); err != nil {
		faults = append(faults, fmt.Errorf("api-listen: %q is not host:port such as 127.0.0.1:7770: %w", c.APIListen, err))
	}
	if c.Join != "" && c.JoinFile != "" {
		faults = append(faults, errors.New("join and join-file: give one of them"))
	}
	if c.Init && (c.Join != "" || c.JoinFile != "") {
		faults = append(faults, errors.New("init and join: a node founds a mesh or joins one"))
	}
	if c.Exe == "" && c.Seams.Runner == nil {
		faults = append(faults, fmt.Errorf("exe: the path of the running binary is not known on %s: set it", runtime.GOOS))
	}
	for addr, d := range c.Delays {
		if _, _, err := net.SplitHostPort(addr); err != nil || d < 0 {
			faults = append(faults, fmt.Errorf("delays: %q: %v: want host:port and a duration of 0 or more", addr, d))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return ofKind{fmt.Errorf("node: config not valid:\n%w", err), ErrConfig}
	}
	return nil
}

func (c Config) listenAddrs() ([]ma.Multiaddr, error) {
	out := make([]ma.Multiaddr, 0, len(c.Listen))
	for _, s := range c.Listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, err
		}
		if _, err := a.ValueForProtocol(ma.P_QUIC_V1); err == nil && c.NoQUIC {
			continue
		}
		out = append(out, a)
	}
	return out, nil
}
