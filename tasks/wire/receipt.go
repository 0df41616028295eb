package wire

import (
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire/internal/pb"
)

// MarshalReceipts encodes what one signature of a worker covers.
func MarshalReceipts(mesh string, rs []tasks.Receipt) ([]byte, error) {
	m := &pb.Receipts{Mesh: mesh}
	for _, r := range rs {
		m.Receipts = append(m.Receipts, receiptToPB(r))
	}
	return encode("receipts", MaxReceipts, m)
}

// UnmarshalReceipts decodes what MarshalReceipts wrote.
func UnmarshalReceipts(b []byte) (mesh string, rs []tasks.Receipt, err error) {
	var m pb.Receipts
	if err := decode("receipts", b, MaxReceipts, 32*MaxBatch, &m); err != nil {
		return "", nil, err
	}
	c := &checker{}
	mesh = c.word("mesh", m.Mesh, 64)
	for _, r := range m.Receipts[:c.count("receipts", len(m.Receipts), MaxBatch)] {
		rs = append(rs, c.receipt(r))
	}
	if c.err != nil {
		return "", nil, c.err
	}
	return mesh, rs, nil
}

// MarshalReceipt encodes one receipt, as a store keeps it.
func MarshalReceipt(r tasks.Receipt) ([]byte, error) {
	return encode("receipt", MaxReceipt, receiptToPB(r))
}

// UnmarshalReceipt decodes what MarshalReceipt wrote.
func UnmarshalReceipt(b []byte) (tasks.Receipt, error) {
	var m pb.Receipt
	if err := decode("receipt", b, MaxReceipt, 64, &m); err != nil {
		return tasks.Receipt{}, err
	}
	c := &checker{}
	r := c.receipt(&m)
	if c.err != nil {
		return tasks.Receipt{}, c.err
	}
	return r, nil
}

func receiptToPB(r tasks.Receipt) *pb.Receipt {
	return &pb.Receipt{
		Job: string(r.Job), Ref: refToPB(r.Ref), Replica: r.Replica, Lease: string(r.Lease), Worker: string(r.Worker),
		Reason: uint32(r.Reason), Detail: r.Detail, Output: string(r.Output), Inline: r.Inline, Log: r.Log, Runner: r.Runner,
		Usage: &pb.Usage{WallNs: int64(r.Usage.Wall), CpuNs: int64(r.Usage.CPU), Memory: r.Usage.Memory, Input: r.Usage.Input, Output: r.Usage.Output},
	}
}

func (c *checker) receipt(m *pb.Receipt) tasks.Receipt {
	r := tasks.Receipt{
		Job: c.job("job", m.Job), Ref: c.ref(m.Ref), Replica: c.uint("replica", m.Replica, 1<<16), Lease: c.lease("lease", m.Lease),
		Worker: c.peerID("worker", m.Worker), Reason: tasks.Reason(m.Reason), Detail: c.text("detail", m.Detail, MaxDetail),
		Output: c.optionalCID("output", m.Output), Inline: c.bytes("inline output", m.Inline, MaxInline), Log: c.bytes("log", m.Log, MaxLog),
		Runner: c.word("runner", m.Runner, 128),
		Usage: tasks.Usage{
			Wall: c.duration("wall", m.Usage.GetWallNs()), CPU: c.duration("cpu", m.Usage.GetCpuNs()), Memory: c.bytesCount("memory", m.Usage.GetMemory()),
			Input: c.bytesCount("input", m.Usage.GetInput()), Output: c.bytesCount("output", m.Usage.GetOutput()),
		},
	}
	if (r.Reason == tasks.OK) != (r.Output != "") {
		c.fail("receipt with reason %d and output %q: an output comes with reason 0 and with no other", m.Reason, m.Output)
	}
	return r
}

// MarshalVerdicts encodes what one signature of an origin covers.
func MarshalVerdicts(mesh string, vs []tasks.Verdict) ([]byte, error) {
	m := &pb.Verdicts{Mesh: mesh}
	for _, v := range vs {
		m.Verdicts = append(m.Verdicts, &pb.Verdict{Job: string(v.Job), Ref: refToPB(v.Ref), Replica: v.Replica, Lease: string(v.Lease),
			Worker: string(v.Worker), Status: uint32(v.Status), Reason: uint32(v.Reason), Related: v.Related})
	}
	return encode("verdicts", MaxVerdicts, m)
}

// UnmarshalVerdicts decodes what MarshalVerdicts wrote.
func UnmarshalVerdicts(b []byte) (mesh string, vs []tasks.Verdict, err error) {
	var m pb.Verdicts
	if err := decode("verdicts", b, MaxVerdicts, 16*MaxBatch, &m); err != nil {
		return "", nil, err
	}
	c := &checker{}
	mesh = c.word("mesh", m.Mesh, 64)
	for _, v := range m.Verdicts[:c.count("verdicts", len(m.Verdicts), MaxBatch)] {
		vs = append(vs, tasks.Verdict{Job: c.job("job", v.Job), Ref: c.ref(v.Ref), Replica: c.uint("replica", v.Replica, 1<<16), Lease: c.lease("lease", v.Lease),
			Worker: c.peerID("worker", v.Worker), Status: c.status(v.Status), Reason: tasks.Reason(v.Reason), Related: v.Related})
	}
	if c.err != nil {
		return "", nil, c.err
	}
	return mesh, vs, nil
}

func (c *checker) status(v uint32) tasks.VerdictStatus {
	if v < uint32(tasks.Pending) || v > uint32(tasks.Rejected) {
		c.fail("verdict status %d is none of 1, 2 and 3", v)
		return 0
	}
	return tasks.VerdictStatus(v)
}
