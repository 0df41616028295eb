package wire

import (
	"maps"
	"slices"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire/internal/pb"
)

// Submission is what a submitter signs: a spec, and what a stranger to the
// submitter's disk needs to run it.
type Submission struct {
	Mesh      string
	Spec      tasks.Spec
	Nonce     []byte // makes two submissions of one spec two jobs
	Created   time.Time
	Blobs     []Blob         // programs and inputs that travel along
	Record    []byte         // the submitter's signed peer record
	Providers []tasks.PeerID // who else holds what the spec names
}

// Blob is one small file.
type Blob struct {
	CID  tasks.CID
	Data []byte
}

// MaxBlobs is how many files travel along with a submission.
const MaxBlobs = 16

const (
	maxArgs      = 1024
	maxArgsBytes = 64 << 10
	maxInputs    = 256
	maxRecord    = 8 << 10
	maxName      = 256
)

// MarshalSubmission encodes s.
func MarshalSubmission(s Submission) ([]byte, error) {
	m := &pb.Submission{Mesh: s.Mesh, Spec: specToPB(s.Spec), Nonce: s.Nonce, Record: s.Record,
		CreatedUnixMs: s.Created.UnixMilli(), Providers: textsOf(s.Providers)}
	for _, b := range s.Blobs {
		m.Blobs = append(m.Blobs, &pb.Blob{Cid: string(b.CID), Data: b.Data})
	}
	return encode("submission", MaxSubmission, m)
}

// UnmarshalSubmission decodes what MarshalSubmission wrote. Whether the spec
// makes sense is for tasks to say.
func UnmarshalSubmission(b []byte) (Submission, error) {
	var m pb.Submission
	if err := decode("submission", b, MaxSubmission, 8<<10, &m); err != nil {
		return Submission{}, err
	}
	c := &checker{}
	s := Submission{
		Mesh:    c.word("mesh", m.Mesh, 64),
		Spec:    c.spec(m.Spec),
		Nonce:   c.bytes("nonce", m.Nonce, 32),
		Created: c.time("created", m.CreatedUnixMs),
		Record:  c.bytes("record", m.Record, maxRecord),
	}
	if len(s.Nonce) < 16 {
		c.fail("nonce of %d bytes, at least 16 are needed", len(s.Nonce))
	}
	total := 0
	for _, b := range m.Blobs[:c.count("blobs", len(m.Blobs), MaxBlobs)] {
		total += len(b.Data)
		s.Blobs = append(s.Blobs, Blob{CID: c.cidText("blob", b.Cid), Data: b.Data})
	}
	if total > MaxInline {
		c.fail("blobs of %d bytes, the limit is %d", total, MaxInline)
	}
	for _, p := range m.Providers[:c.count("providers", len(m.Providers), 32)] {
		s.Providers = append(s.Providers, c.peerID("provider", p))
	}
	if c.err != nil {
		return Submission{}, c.err
	}
	return s, nil
}

func specToPB(s tasks.Spec) *pb.Spec {
	m := &pb.Spec{
		Name: s.Name, Kind: string(s.Kind), Program: string(s.Program), Args: s.Args, Env: s.Env, Tasks: s.Tasks,
		Resources: resourcesToPB(s.Resources), MaxRttNs: int64(s.Locality.MaxRTT), VerifyMode: string(s.Verify.Mode),
		Replicas: s.Verify.Replicas, RetryMax: s.Retry.Max, RetentionNs: int64(s.Retention), Nondeterministic: s.Nondeterministic,
	}
	for _, in := range s.Inputs {
		m.Inputs = append(m.Inputs, &pb.Input{Name: in.Name, Source: string(in.Source), Split: &pb.Split{By: string(in.Split.By), Size: in.Split.Size}})
	}
	if s.Reduce != nil {
		m.Reduce = &pb.Reduce{Program: string(s.Reduce.Program), Args: s.Reduce.Args}
	}
	return m
}

func (c *checker) spec(m *pb.Spec) tasks.Spec {
	if m == nil {
		c.fail("spec is missing")
		return tasks.Spec{}
	}
	s := tasks.Spec{
		Name:             c.word("name", m.Name, maxName),
		Kind:             tasks.Kind(c.word("kind", m.Kind, 32)),
		Program:          c.cidText("program", m.Program),
		Args:             c.args("args", m.Args),
		Env:              c.env(m.Env),
		Tasks:            m.Tasks,
		Resources:        c.resources(m.Resources),
		Locality:         tasks.Locality{MaxRTT: c.duration("maxRTT", m.MaxRttNs)},
		Verify:           tasks.Verify{Mode: tasks.VerifyMode(c.word("verify mode", m.VerifyMode, 32)), Replicas: c.uint("replicas", m.Replicas, 64)},
		Retry:            tasks.Retry{Max: c.uint("retry max", m.RetryMax, 1000)},
		Retention:        c.duration("retention", m.RetentionNs),
		Nondeterministic: m.Nondeterministic,
	}
	for _, in := range m.Inputs[:c.count("inputs", len(m.Inputs), maxInputs)] {
		s.Inputs = append(s.Inputs, tasks.Input{
			Name:   c.word("input name", in.Name, maxName),
			Source: c.cidText("input source", in.Source),
			Split:  tasks.Split{By: tasks.SplitBy(c.word("split", in.Split.GetBy(), 16)), Size: c.bytesCount("split size", in.Split.GetSize())},
		})
	}
	if m.Reduce != nil {
		s.Reduce = &tasks.Reduce{Program: c.cidText("reduce program", m.Reduce.Program), Args: c.args("reduce args", m.Reduce.Args)}
	}
	return s
}

func resourcesToPB(r tasks.Resources) *pb.Resources {
	return &pb.Resources{Cpu: r.CPU, Memory: r.Memory, TimeoutNs: int64(r.Timeout), CpuTimeNs: int64(r.CPUTime), Output: r.Output}
}

func (c *checker) resources(m *pb.Resources) tasks.Resources {
	return tasks.Resources{
		CPU:     c.number("cpu", m.GetCpu(), 4096),
		Memory:  c.bytesCount("memory", m.GetMemory()),
		Timeout: c.duration("timeout", m.GetTimeoutNs()),
		CPUTime: c.duration("cpuTime", m.GetCpuTimeNs()),
		Output:  c.bytesCount("output", m.GetOutput()),
	}
}

func (c *checker) args(field string, args []string) []string {
	total := 0
	for _, a := range args[:c.count(field, len(args), maxArgs)] {
		total += len(c.text(field, a, maxArgsBytes))
	}
	if total > maxArgsBytes {
		c.fail("%s of %d bytes, the limit is %d", field, total, maxArgsBytes)
	}
	return slices.Clip(args)
}

func (c *checker) env(env map[string]string) map[string]string {
	c.count("env entries", len(env), maxArgs)
	total := 0
	for _, k := range slices.Sorted(maps.Keys(env)) {
		c.word("env name", k, maxName)
		total += len(k) + len(c.text("env value", env[k], maxArgsBytes))
	}
	if total > maxArgsBytes {
		c.fail("env of %d bytes, the limit is %d", total, maxArgsBytes)
	}
	return env
}

func textsOf[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = string(v)
	}
	return out
}
