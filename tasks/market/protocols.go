package market

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// What market says on the wire. A bid and a report go from worker to origin, a
// probe and orders from origin to worker, an answer from a published job's
// origin to its submitter, and follow the other way.
var (
	bidProtocol    = p2p.Protocol{Name: "task/bid", Version: "1.0.0", MaxMessage: 4 << 10, Deadline: 10 * time.Second, Streams: 64, Rate: 500, Burst: 1000}
	probeProtocol  = p2p.Protocol{Name: "task/probe", Version: "1.0.0", MaxMessage: wire.MaxOffer + envelope, Deadline: 10 * time.Second, Streams: 16, Rate: 50, Burst: 100}
	ordersProtocol = p2p.Protocol{Name: "task/orders", Version: "2.0.0", MaxMessage: wire.MaxOrders + envelope, Deadline: 30 * time.Second, Streams: 2, Rate: 1000, Burst: 2000}
	reportProtocol = p2p.Protocol{Name: "task/report", Version: "2.0.0", MaxMessage: wire.MaxReport + envelope, Deadline: 30 * time.Second, Streams: 8, Rate: 1000, Burst: 2000}
	answerProtocol = p2p.Protocol{Name: "job/answer", Version: "1.0.0", MaxMessage: wire.MaxAnswer + envelope, Deadline: 2 * time.Minute, Streams: 16, Rate: 20, Burst: 100}
	followProtocol = p2p.Protocol{Name: "job/follow", Version: "1.0.0", MaxMessage: wire.MaxAnswer + envelope, Deadline: 10 * time.Second, Streams: 16, Rate: 50, Burst: 100}
)

// envelope is what a signature adds: key, domain and signature.
const envelope = 512

// Protocols lists what a Service may serve and call.
func Protocols() []p2p.Protocol {
	return []p2p.Protocol{bidProtocol, probeProtocol, ordersProtocol, reportProtocol, answerProtocol, followProtocol}
}

// codeBase is where a tasks.Reason stands among p2p's refusal codes.
const codeBase p2p.Code = 1000

// refuse makes a refusal of a reason.
func refuse(r tasks.Reason, after time.Duration, text string) *p2p.Refusal {
	if text == "" {
		text = r.String()
	}
	return &p2p.Refusal{Code: codeBase + p2p.Code(r), Text: text, RetryAfter: after}
}

// reasonOf reads what a call was refused with. A peer that could not be reached
// gives WorkerFault.
func reasonOf(err error) (tasks.Reason, time.Duration) {
	var r *p2p.Refusal
	if !errors.As(err, &r) {
		return tasks.WorkerFault, 0
	}
	after := min(max(r.RetryAfter, 0), time.Hour)
	switch {
	case r.Code > codeBase && r.Code < codeBase+1000:
		return tasks.Reason(r.Code - codeBase), after
	case r.Code == p2p.CodeRights || r.Code == p2p.CodeNotMember:
		return tasks.NotMember, after
	case r.Code == p2p.CodeBusy || r.Code == p2p.CodeRate:
		return tasks.WorkerBusy, after
	}
	return tasks.WorkerFault, after
}

// may checks a peer's rights at the edge of a handler.
func (s *Service) may(id peer.ID, want auth.Rights) error {
	if id == s.host.ID() {
		if !s.rights().Has(want) {
			return p2p.Refuse(p2p.CodeRights, "this node's own token does not allow %s", want)
		}
		return nil
	}
	m, ok := s.host.Member(id)
	if !ok {
		return p2p.Refuse(p2p.CodeNotMember, "no member")
	}
	if !m.Grant.Rights.Has(want) {
		return p2p.Refuse(p2p.CodeRights, "your token does not allow %s", want)
	}
	return nil
}

// rights are what this node's own token allows.
func (s *Service) rights() auth.Rights {
	g, err := s.host.Token().Verify(s.host.Mesh(), s.host.ID(), s.cfg.Now(), nil)
	if err != nil {
		return 0
	}
	return g.Rights
}

// peerOf turns a domain peer ID into libp2p's.
func peerOf(p tasks.PeerID) (peer.ID, error) { return peer.Decode(string(p)) }

func idOf(p peer.ID) tasks.PeerID { return tasks.PeerID(p.String()) }
