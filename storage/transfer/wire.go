package transfer

import (
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/proto"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer/internal/pb"
)

// The protocols. Blocks is for members; PublicBlocks serves public roots to
// strangers as well.
var (
	Blocks = p2p.Protocol{Name: "blocks", Version: "1.0.0",
		MaxMessage: storage.MaxBlock, MaxRequest: maxAskBytes, Deadline: 30 * time.Second, Streams: 16, Rate: 100, Burst: 400, Direct: true}
	PublicBlocks = p2p.Protocol{Name: "public-blocks", Version: "1.0.0",
		MaxMessage: storage.MaxBlock, MaxRequest: maxAskBytes, Deadline: 30 * time.Second, Streams: 2, Rate: 2, Burst: 8, Open: true, Direct: true}
)

// The refusals of these protocols.
const (
	CodeTicket p2p.Code = 300 // the root needs a ticket, and this one is not good
)

const (
	maxAsk    = 128  // blocks
	maxTicket = 8192 // bytes
	maxCID    = 128  // bytes

	maxAskBytes = maxTicket + (maxAsk+1)*(maxCID+8)
)

// state of a block in an answer.
type state byte

const (
	absent  state = 0
	follows state = 1
	refused state = 2
)

var errWire = errors.New("malformed message")

// ask is a request for blocks under a root.
type ask struct {
	root   cid.Cid
	ticket []byte
	blocks []cid.Cid
}

func (a ask) marshal() ([]byte, error) {
	m := &pb.Ask{Root: a.root.Bytes(), Ticket: a.ticket}
	for _, c := range a.blocks {
		m.Blocks = append(m.Blocks, c.Bytes())
	}
	return proto.Marshal(m)
}

func parseAsk(b []byte) (ask, error) {
	if len(b) > maxAskBytes {
		return ask{}, fmt.Errorf("ask of %d bytes: %w", len(b), errWire)
	}
	var m pb.Ask
	if err := proto.Unmarshal(b, &m); err != nil {
		return ask{}, fmt.Errorf("ask: %w: %w", err, errWire)
	}
	if len(m.Ticket) > maxTicket || len(m.Blocks) == 0 || len(m.Blocks) > maxAsk {
		return ask{}, fmt.Errorf("ask with a ticket of %d bytes and %d blocks: %w", len(m.Ticket), len(m.Blocks), errWire)
	}
	a := ask{ticket: m.Ticket, blocks: make([]cid.Cid, len(m.Blocks))}
	var err error
	if a.root, err = parseCID(m.Root); err != nil {
		return ask{}, err
	}
	for i, raw := range m.Blocks {
		if a.blocks[i], err = parseCID(raw); err != nil {
			return ask{}, err
		}
	}
	return a, nil
}

func parseCID(b []byte) (cid.Cid, error) {
	if len(b) > maxCID {
		return cid.Undef, fmt.Errorf("cid of %d bytes: %w", len(b), errWire)
	}
	c, err := cid.Cast(b)
	if err != nil {
		return cid.Undef, fmt.Errorf("cid: %w: %w", err, errWire)
	}
	if err := storage.CheckCID(c); err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", err, errWire)
	}
	return c, nil
}

func marshalAnswer(states []state) ([]byte, error) {
	m := &pb.Answer{States: make([]byte, len(states))}
	for i, s := range states {
		m.States[i] = byte(s)
	}
	return proto.Marshal(m)
}

// parseAnswer reads the answer to an ask for n blocks.
func parseAnswer(b []byte, n int) ([]state, error) {
	if len(b) > maxAsk+16 {
		return nil, fmt.Errorf("answer of %d bytes: %w", len(b), errWire)
	}
	var m pb.Answer
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("answer: %w: %w", err, errWire)
	}
	if len(m.States) != n {
		return nil, fmt.Errorf("answer for %d of %d blocks: %w", len(m.States), n, errWire)
	}
	out := make([]state, n)
	for i, s := range m.States {
		if s > byte(refused) {
			return nil, fmt.Errorf("answer with state %d: %w", s, errWire)
		}
		out[i] = state(s)
	}
	return out, nil
}
