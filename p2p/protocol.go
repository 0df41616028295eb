package p2p

import (
	"errors"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"
)

// Protocol is all there is to know of one protocol: its name, and what a peer
// can make us spend on it. The zero value of a bound takes the default beside
// it. An incompatible change is a new Version.
type Protocol struct {
	Name    string // one or more lower-case words joined by - or /
	Version string // semantic version, such as 1.0.0

	MaxMessage int           // bytes of one message; default 64 KiB, at most 64 MiB
	MaxRequest int           // of a request, or of a message to who serves a Stream; default MaxMessage
	Deadline   time.Duration // of one request, or of one message on a Stream; default 30 s
	Streams    int           // inbound per peer: requests at work at once, or open streams; default 64
	Rate       rate.Limit    // inbound requests or streams per peer and second; default 1000
	Burst      int           // above Rate at once; default 2000
	Open       bool          // served to strangers too
	Direct     bool          // never over a relay: bulk waits for a direct path
}

const (
	defaultMaxMessage = 64 << 10
	mostMaxMessage    = 64 << 20
	defaultDeadline   = 30 * time.Second
	defaultStreams    = 64
	defaultRate       = 1000
	defaultBurst      = 2000
)

// ID is the protocol's name on the wire in a mesh.
func (p Protocol) ID(mesh auth.MeshID) protocol.ID {
	return protocol.ID("/kith/" + mesh.Prefix() + "/" + p.Name + "/" + p.Version)
}

func (p Protocol) withDefaults() Protocol {
	if p.MaxMessage == 0 {
		p.MaxMessage = defaultMaxMessage
	}
	if p.MaxRequest == 0 {
		p.MaxRequest = p.MaxMessage
	}
	if p.Deadline == 0 {
		p.Deadline = defaultDeadline
	}
	if p.Streams == 0 {
		p.Streams = defaultStreams
	}
	if p.Rate == 0 {
		p.Rate = defaultRate
	}
	if p.Burst == 0 {
		p.Burst = defaultBurst
	}
	return p
}

// Check reports every fault of a protocol at once.
func (p Protocol) Check() error {
	var errs []error
	if p.Name == "" {
		errs = append(errs, errors.New("no name"))
	}
	for _, r := range p.Name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '/' {
			errs = append(errs, fmt.Errorf("name holds %q: use a-z, 0-9, - and /", r))
			break
		}
	}
	if p.Version == "" {
		errs = append(errs, errors.New("no version"))
	}
	if p.MaxMessage < 0 || p.MaxMessage > mostMaxMessage {
		errs = append(errs, fmt.Errorf("MaxMessage %d: want 1 to %d", p.MaxMessage, mostMaxMessage))
	}
	if p.MaxRequest < 0 || p.MaxRequest > max(p.MaxMessage, defaultMaxMessage) {
		errs = append(errs, fmt.Errorf("MaxRequest %d: want at most MaxMessage", p.MaxRequest))
	}
	if p.Deadline < 0 || p.Streams < 0 || p.Rate < 0 || p.Burst < 0 {
		errs = append(errs, errors.New("a bound is below zero"))
	}
	if len(errs) > 0 {
		return fmt.Errorf("protocol %q: %w", p.Name, errors.Join(errs...))
	}
	return nil
}
