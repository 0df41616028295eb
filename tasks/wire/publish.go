package wire

import (
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire/internal/pb"
)

// MarshalNotice encodes a notice for mesh, to be sealed by its sender.
func MarshalNotice(mesh string, n tasks.Notice) ([]byte, error) {
	return encode("notice", MaxNotice, &pb.Notice{Mesh: mesh, Job: string(n.Job), Term: n.Term, From: string(n.From), Kind: uint32(n.Kind), Record: n.Addresses})
}

// UnmarshalNotice decodes what MarshalNotice wrote.
func UnmarshalNotice(b []byte) (mesh string, n tasks.Notice, err error) {
	var m pb.Notice
	if err := decode("notice", b, MaxNotice, 32, &m); err != nil {
		return "", tasks.Notice{}, err
	}
	c := &checker{}
	mesh = c.word("mesh", m.Mesh, 64)
	n = tasks.Notice{Job: c.job("job", m.Job), Term: c.term(m.Term), From: c.peerID("from", m.From), Addresses: c.bytes("record", m.Record, maxRecord)}
	if m.Kind < uint32(tasks.NoticeClaim) || m.Kind > uint32(tasks.NoticeAnswered) {
		c.fail("notice of kind %d is none of 1, 2 and 3", m.Kind)
	} else {
		n.Kind = tasks.NoticeKind(m.Kind)
	}
	if c.err != nil {
		return "", tasks.Notice{}, c.err
	}
	return mesh, n, nil
}

// MarshalAnswer encodes an answer for mesh, to be sealed by its origin.
func MarshalAnswer(mesh string, a tasks.JobAnswer) ([]byte, error) {
	return encode("answer", MaxAnswer, &pb.Answer{Mesh: mesh, Job: string(a.Job), Term: a.Term, Origin: string(a.Origin), State: uint32(a.State),
		Reason: uint32(a.Reason), Detail: a.Detail, Output: string(a.Output), Size: a.Size})
}

// UnmarshalAnswer decodes what MarshalAnswer wrote.
func UnmarshalAnswer(b []byte) (mesh string, a tasks.JobAnswer, err error) {
	var m pb.Answer
	if err := decode("answer", b, MaxAnswer, 32, &m); err != nil {
		return "", tasks.JobAnswer{}, err
	}
	c := &checker{}
	mesh = c.word("mesh", m.Mesh, 64)
	a = tasks.JobAnswer{Job: c.job("job", m.Job), Term: c.term(m.Term), Origin: c.peerID("origin", m.Origin), State: c.state(m.State), Reason: tasks.Reason(m.Reason),
		Detail: c.text("detail", m.Detail, MaxSmall), Output: c.optionalCID("output", m.Output), Size: c.bytesCount("size", m.Size)}
	if !a.State.Over() {
		c.fail("answer of a job that is not over")
	}
	if (a.State == tasks.Done) != (a.Output != "") {
		c.fail("answer in state %d with output %q: an output comes with state %d and with no other", m.State, m.Output, tasks.Done)
	}
	if c.err != nil {
		return "", tasks.JobAnswer{}, c.err
	}
	return mesh, a, nil
}

func (c *checker) state(v uint32) tasks.State {
	if v > uint32(tasks.Cancelled) {
		c.fail("state %d is unknown", v)
		return 0
	}
	return tasks.State(v)
}

// MarshalAnswerReply encodes a submitter's word on an answer: accepted, or
// another was before. The origin owes nothing more either way.
func MarshalAnswerReply(accepted bool) ([]byte, error) {
	return encode("answer reply", 16, &pb.AnswerReply{Accepted: accepted})
}

// UnmarshalAnswerReply decodes what MarshalAnswerReply wrote.
func UnmarshalAnswerReply(b []byte) (bool, error) {
	var m pb.AnswerReply
	err := decode("answer reply", b, 16, 4, &m)
	return m.Accepted, err
}

// Progress is what a job's origin tells those who follow it.
type Progress struct {
	Job      tasks.JobID
	Term     uint64
	Origin   tasks.PeerID
	State    tasks.State
	Reason   tasks.Reason
	Detail   string
	Tasks    uint32
	Decided  uint32
	Leased   uint32
	Waiting  uint32
	Releases uint32
	WaitsFor string // the first reason; "" when it waits for nothing
}

// MarshalFollow encodes the question how a job stands.
func MarshalFollow(id tasks.JobID) ([]byte, error) {
	return encode("follow", 128, &pb.Follow{Job: string(id)})
}

// UnmarshalFollow decodes what MarshalFollow wrote.
func UnmarshalFollow(b []byte) (tasks.JobID, error) {
	var m pb.Follow
	if err := decode("follow", b, 128, 4, &m); err != nil {
		return "", err
	}
	c := &checker{}
	id := c.job("job", m.Job)
	if c.err != nil {
		return "", c.err
	}
	return id, nil
}

// MarshalProgress encodes p.
func MarshalProgress(p Progress) ([]byte, error) {
	return encode("progress", MaxAnswer, &pb.Progress{Job: string(p.Job), Term: p.Term, Origin: string(p.Origin), State: uint32(p.State), Reason: uint32(p.Reason),
		Detail: p.Detail, Tasks: p.Tasks, Decided: p.Decided, Leased: p.Leased, Waiting: p.Waiting, Releases: p.Releases, WaitsFor: p.WaitsFor})
}

// UnmarshalProgress decodes what MarshalProgress wrote.
func UnmarshalProgress(b []byte) (Progress, error) {
	var m pb.Progress
	if err := decode("progress", b, MaxAnswer, 32, &m); err != nil {
		return Progress{}, err
	}
	c := &checker{}
	p := Progress{Job: c.job("job", m.Job), Term: c.term(m.Term), Origin: c.peerID("origin", m.Origin), State: c.state(m.State), Reason: tasks.Reason(m.Reason),
		Detail: c.text("detail", m.Detail, MaxSmall), Tasks: m.Tasks, Decided: m.Decided, Leased: m.Leased, Waiting: m.Waiting, Releases: m.Releases,
		WaitsFor: c.text("waits for", m.WaitsFor, MaxSmall)}
	if c.err != nil {
		return Progress{}, c.err
	}
	return p, nil
}
