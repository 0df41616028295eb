package wire

import (
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire/internal/pb"
)

// WorkReport is what a worker sends to one origin. Worker of each report is
// known from the stream and not sent.
type WorkReport struct {
	Jobs     []tasks.Report
	Commits  []tasks.Commitment
	Reveals  []byte // sealed; nil when there are none
	Receipts []byte // sealed; nil when there are none
}

// MarshalReport encodes r.
func MarshalReport(r WorkReport) ([]byte, error) {
	m := &pb.Report{Receipts: r.Receipts, Reveals: r.Reveals}
	for _, k := range r.Commits {
		m.Commitments = append(m.Commitments, &pb.Commitment{Job: string(k.Job), Ref: refToPB(k.Ref), Replica: k.Replica, Lease: string(k.Lease), Hash: k.Hash[:]})
	}
	for _, j := range r.Jobs {
		jr := &pb.JobReport{Job: string(j.Job), Held: textsOf(j.Held), Want: j.Want, Slots: j.Slots, QueueNs: int64(j.Queue)}
		for _, ref := range j.Running {
			jr.Running = append(jr.Running, refToPB(ref))
		}
		m.Jobs = append(m.Jobs, jr)
	}
	return encode("report", MaxReport, m)
}

// UnmarshalReport decodes what MarshalReport wrote; worker is who sent it.
func UnmarshalReport(b []byte, worker tasks.PeerID) (WorkReport, error) {
	var m pb.Report
	if err := decode("report", b, MaxReport, 64<<10, &m); err != nil {
		return WorkReport{}, err
	}
	c := &checker{}
	r := WorkReport{Receipts: c.bytes("receipts", m.Receipts, MaxReceipts+MaxSmall), Reveals: c.bytes("reveals", m.Reveals, MaxReceipts+MaxSmall)}
	for _, k := range m.Commitments[:c.count("commitments", len(m.Commitments), MaxCommitments)] {
		r.Commits = append(r.Commits, tasks.Commitment{Job: c.job("job", k.Job), Ref: c.ref(k.Ref), Replica: c.uint("replica", k.Replica, 1<<16),
			Lease: c.lease("lease", k.Lease), Worker: worker, Hash: c.hash("commitment", k.Hash)})
	}
	for _, j := range m.Jobs[:c.count("jobs", len(m.Jobs), MaxLeases)] {
		jr := tasks.Report{Job: c.job("job", j.Job), Worker: worker, Want: c.uint("want", j.Want, 1<<16),
			Slots: c.uint("slots", j.Slots, 1<<16), Queue: c.duration("queue", j.QueueNs)}
		for _, l := range j.Held[:c.count("leases", len(j.Held), 4*MaxLeases)] {
			jr.Held = append(jr.Held, c.lease("lease", l))
		}
		for _, ref := range j.Running[:c.count("running tasks", len(j.Running), 16*MaxLeases)] {
			jr.Running = append(jr.Running, c.ref(ref))
		}
		r.Jobs = append(r.Jobs, jr)
	}
	if c.err != nil {
		return WorkReport{}, c.err
	}
	return r, nil
}

// MarshalTaken encodes an origin's answer to a report: the jobs in it that it
// does not hold.
func MarshalTaken(unknown []tasks.JobID) ([]byte, error) {
	return encode("taken", MaxReport, &pb.Taken{Unknown: textsOf(unknown)})
}

// UnmarshalTaken decodes what MarshalTaken wrote.
func UnmarshalTaken(b []byte) ([]tasks.JobID, error) {
	var m pb.Taken
	if err := decode("taken", b, MaxReport, MaxLeases, &m); err != nil {
		return nil, err
	}
	c := &checker{}
	var ids []tasks.JobID
	for _, id := range m.Unknown[:c.count("jobs", len(m.Unknown), MaxLeases)] {
		ids = append(ids, c.job("job", id))
	}
	return ids, c.err
}

// Orders is what an origin sends to one worker, in this order.
type Orders struct {
	Leases   [][]byte // sealed
	Renewals []Renewal
	Revokes  []Revocation
	Verdicts [][]byte // sealed batches
	Asks     []Ask
}

// Ask asks a worker to show what it committed to.
type Ask struct {
	Job     tasks.JobID
	Ref     tasks.Ref
	Replica uint32
	Lease   tasks.LeaseID
}

// Renewal lets leases run for their full duration again.
type Renewal struct {
	Job    tasks.JobID
	Leases []tasks.LeaseID
}

// Revocation takes tasks from a worker; nil Refs takes the whole lease.
type Revocation struct {
	Job   tasks.JobID
	Lease tasks.LeaseID
	Refs  []tasks.Ref
}

// MarshalOrders encodes o.
func MarshalOrders(o Orders) ([]byte, error) {
	m := &pb.Orders{Leases: o.Leases, Verdicts: o.Verdicts}
	for _, r := range o.Renewals {
		m.Renewals = append(m.Renewals, &pb.Renewal{Job: string(r.Job), Leases: textsOf(r.Leases)})
	}
	for _, r := range o.Revokes {
		pr := &pb.Revocation{Job: string(r.Job), Lease: string(r.Lease), All: r.Refs == nil}
		for _, ref := range r.Refs {
			pr.Refs = append(pr.Refs, refToPB(ref))
		}
		m.Revocations = append(m.Revocations, pr)
	}
	for _, a := range o.Asks {
		m.Asks = append(m.Asks, &pb.Ask{Job: string(a.Job), Ref: refToPB(a.Ref), Replica: a.Replica, Lease: string(a.Lease)})
	}
	return encode("orders", MaxOrders, m)
}

// UnmarshalOrders decodes what MarshalOrders wrote.
func UnmarshalOrders(b []byte) (Orders, error) {
	var m pb.Orders
	if err := decode("orders", b, MaxOrders, 64<<10, &m); err != nil {
		return Orders{}, err
	}
	c := &checker{}
	var o Orders
	for _, l := range m.Leases[:c.count("leases", len(m.Leases), MaxLeases)] {
		o.Leases = append(o.Leases, c.bytes("lease", l, MaxLease+MaxSmall))
	}
	for _, v := range m.Verdicts[:c.count("verdict batches", len(m.Verdicts), 64)] {
		o.Verdicts = append(o.Verdicts, c.bytes("verdicts", v, MaxVerdicts+MaxSmall))
	}
	for _, r := range m.Renewals[:c.count("renewals", len(m.Renewals), MaxLeases)] {
		n := Renewal{Job: c.job("job", r.Job)}
		for _, l := range r.Leases[:c.count("leases", len(r.Leases), 4*MaxLeases)] {
			n.Leases = append(n.Leases, c.lease("lease", l))
		}
		o.Renewals = append(o.Renewals, n)
	}
	for _, r := range m.Revocations[:c.count("revocations", len(m.Revocations), 4*MaxLeases)] {
		n := Revocation{Job: c.job("job", r.Job), Lease: c.lease("lease", r.Lease)}
		if r.All == (len(r.Refs) > 0) {
			c.fail("revocation names all tasks and some, or none")
		}
		for _, ref := range r.Refs[:c.count("tasks", len(r.Refs), MaxAssignments)] {
			n.Refs = append(n.Refs, c.ref(ref))
		}
		o.Revokes = append(o.Revokes, n)
	}
	for _, a := range m.Asks[:c.count("asks", len(m.Asks), MaxCommitments)] {
		o.Asks = append(o.Asks, Ask{Job: c.job("job", a.Job), Ref: c.ref(a.Ref), Replica: c.uint("replica", a.Replica, 1<<16), Lease: c.lease("lease", a.Lease)})
	}
	if c.err != nil {
		return Orders{}, c.err
	}
	return o, nil
}

// RefusedLease is a lease that its worker did not take, or was told to renew and
// does not hold.
type RefusedLease struct {
	Job        tasks.JobID
	Lease      tasks.LeaseID
	Reason     tasks.Reason
	RetryAfter time.Duration
}

// MarshalOrdersReply encodes which leases of an Orders were refused.
func MarshalOrdersReply(rs []RefusedLease) ([]byte, error) {
	m := &pb.OrdersReply{}
	for _, r := range rs {
		m.Refused = append(m.Refused, &pb.RefusedLease{Job: string(r.Job), Lease: string(r.Lease), Reason: uint32(r.Reason), RetryAfterNs: int64(r.RetryAfter)})
	}
	return encode("orders reply", MaxReport, m)
}

// UnmarshalOrdersReply decodes what MarshalOrdersReply wrote.
func UnmarshalOrdersReply(b []byte) ([]RefusedLease, error) {
	var m pb.OrdersReply
	if err := decode("orders reply", b, MaxReport, 4*MaxLeases, &m); err != nil {
		return nil, err
	}
	c := &checker{}
	var out []RefusedLease
	for _, r := range m.Refused[:c.count("refused leases", len(m.Refused), MaxLeases)] {
		n := RefusedLease{Job: c.job("job", r.Job), Lease: c.lease("lease", r.Lease), Reason: tasks.Reason(r.Reason), RetryAfter: c.duration("retry after", r.RetryAfterNs)}
		if n.Reason == tasks.OK {
			c.fail("lease refused with reason 0")
		}
		out = append(out, n)
	}
	if c.err != nil {
		return nil, c.err
	}
	return out, nil
}

// Ticket names the lease by which its bearer asks for a job's data. It is worth
// something only to the peer that the lease names.
type Ticket struct {
	Job   tasks.JobID
	Lease tasks.LeaseID
}

// MarshalTicket encodes t.
func MarshalTicket(t Ticket) ([]byte, error) {
	return encode("ticket", 256, &pb.Ticket{Job: string(t.Job), Lease: string(t.Lease)})
}

// UnmarshalTicket decodes what MarshalTicket wrote.
func UnmarshalTicket(b []byte) (Ticket, error) {
	var m pb.Ticket
	if err := decode("ticket", b, 256, 8, &m); err != nil {
		return Ticket{}, err
	}
	c := &checker{}
	t := Ticket{Job: c.job("job", m.Job), Lease: c.lease("lease", m.Lease)}
	if c.err != nil {
		return Ticket{}, c.err
	}
	return t, nil
}
