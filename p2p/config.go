package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// Local says what becomes of loopback and bridge addresses: are they told to
// others, and dialled when others tell them.
type Local int

const (
	// LocalAuto keeps them to this machine, unless the node listens on loopback
	// alone: then its mesh can only be on this machine.
	LocalAuto Local = iota
	// LocalNever keeps them to this machine always.
	LocalNever
	// LocalAlways tells and dials them.
	LocalAlways
)

// Redeemer counts how often invites were used, durably. Redeem is idempotent
// per peer: one that was redeemed before gets the same answer again without
// being counted. It answers with auth.ErrInvite... when it does not redeem.
// expires is the latest that the member's token may end; zero leaves it to p2p.
type Redeemer interface {
	Redeem(ctx context.Context, secretHash [32]byte, by peer.ID) (rights auth.Rights, expires time.Time, err error)
}

// Config is what a Host is made from. Key, Mesh and Token are needed; the zero
// value of everything else is its default.
type Config struct {
	Key     crypto.PrivKey // this node's identity
	Root    crypto.PrivKey // the mesh's root key, at its founder only
	Mesh    auth.MeshID
	Token   auth.Token             // this node's member token
	OnToken func(auth.Token) error // stores a renewed token; nil: it lasts until the process ends
	Charter []byte                 // signed; nil: the mesh is closed and has no name
	Agent   string                 // told to peers, at most 64 bytes; default "kith"
	Listen  []ma.Multiaddr         // default: TCP and QUIC on a free port of every interface
	NoQUIC  bool                   // TCP only
	Dialer  tcp.DialerForAddr      // the only TCP dialler, when set (p2p/shape)
	Options []libp2p.Option        // replaces our transports and security (p2p/memnet)
	Local   Local                  // loopback and bridge addresses
	Private []netip.Prefix         // private ranges reached through routers of ours, dialled besides the LAN's own

	// Simulated makes a host for a testing/synctest bubble: no NAT, relay,
	// AutoNAT, mDNS, connection manager or resource limits. Options must hold
	// the transport.
	Simulated bool

	NoRelay   bool // neither be a relay nor use one
	NoPortMap bool // don't ask the router to map a port
	NoMDNS    bool // don't advertise an open mesh on the LAN

	MaxMemory      int64 // bytes libp2p may hold; default: an eighth of the machine's, 128 MiB to 1 GiB
	MaxConnections int   // above it, what is not protected is closed; default 192
	MaxStrangers   int   // peers without a token at once; default 64

	Home      string // folder of the peer cache; "": none is kept
	Bootstrap []peer.AddrInfo

	Redeemer Redeemer           // nil: this node redeems no invites
	Revoked  func(peer.ID) bool // nil: nobody is
	TokenTTL time.Duration      // of tokens issued here; default 90 days

	Now        func() time.Time // wall clock, for expiries and stamps only; default time.Now
	Log        *slog.Logger     // default: none
	Registerer prometheus.Registerer

	Neighbourhood NeighbourhoodConfig
	Seed          uint64 // of backoff jitter and of the neighbourhood's choices; 0: from the peer ID
}

// StrangerTime is how long a peer may take to say hello.
const StrangerTime = 5 * time.Second

const maxAgent = 64

func (c Config) withDefaults() Config {
	if c.Agent == "" {
		c.Agent = "kith"
	}
	if c.Listen == nil && !c.Simulated {
		for _, s := range []string{"/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"} {
			c.Listen = append(c.Listen, ma.StringCast(s))
		}
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 192
	}
	if c.MaxStrangers == 0 {
		c.MaxStrangers = 64
		if c.Simulated {
			c.MaxStrangers = 4096
		}
	}
	if c.TokenTTL == 0 {
		c.TokenTTL = 90 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Key == nil {
		fault("Key: missing: make one with LoadOrCreateKey")
	}
	if _, err := auth.ParseMeshID(string(c.Mesh)); err != nil {
		fault("Mesh: %w", err)
	}
	if c.Key != nil {
		if id, err := peer.IDFromPrivateKey(c.Key); err != nil {
			fault("Key: %w", err)
		} else if _, err := c.Token.Verify(c.Mesh, id, c.Now(), nil); err != nil {
			fault("Token: %w", err)
		}
	}
	if c.Root != nil {
		if m, err := auth.MeshOf(c.Root.GetPublic()); err != nil || m != c.Mesh {
			fault("Root: it is not the root key of mesh %s", c.Mesh.Prefix())
		}
	}
	if c.Charter != nil {
		if ch, err := auth.ParseCharter(c.Charter); err != nil {
			fault("Charter: %w", err)
		} else if ch.Mesh != c.Mesh {
			fault("Charter: it is of mesh %s, this is %s", ch.Mesh.Prefix(), c.Mesh.Prefix())
		}
	}
	if len(c.Agent) > maxAgent {
		fault("Agent: %d bytes, the most is %d", len(c.Agent), maxAgent)
	}
	if err := c.Neighbourhood.withDefaults().validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Simulated && len(c.Options) == 0 {
		fault("Simulated: Options must hold a transport")
	}
	if c.MaxMemory < 0 || c.MaxConnections < 0 || c.MaxStrangers < 0 || c.TokenTTL < 0 {
		fault("MaxMemory, MaxConnections, MaxStrangers, TokenTTL: below zero")
	}
	if c.MaxConnections > math.MaxInt32 {
		fault("MaxConnections: %d is too many", c.MaxConnections)
	}
	if len(errs) > 0 {
		return fmt.Errorf("p2p config: %w", errors.Join(errs...))
	}
	return nil
}
