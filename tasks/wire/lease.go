package wire

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire/internal/pb"
)

const maxPath = 4096

// CheckPath tells why a file's path can't stand in a task.
func CheckPath(path string) error {
	c := &checker{}
	c.text("path "+strconv.Quote(path[:min(len(path), 64)]), path, maxPath)
	return c.err
}

// MarshalLease encodes a lease, to be sealed by its origin.
func MarshalLease(l tasks.Lease) ([]byte, error) {
	m := &pb.Lease{
		Id: string(l.ID), Job: string(l.Job), Term: l.Term, Origin: string(l.Origin), Worker: string(l.Worker), Program: string(l.Program),
		Args: l.Args, Env: l.Env, Kind: string(l.Kind), Needs: resourcesToPB(l.Needs), Tasks: l.Tasks, Nondeterministic: l.Nondeterministic,
		DurationNs: int64(l.Duration), GraceNs: int64(l.Grace), Commit: l.Commit,
	}
	for _, a := range l.Assignments {
		m.Assignments = append(m.Assignments, &pb.Assignment{Task: taskToPB(a.Task), Replica: a.Replica})
	}
	return encode("lease", MaxLease, m)
}

// UnmarshalLease decodes what MarshalLease wrote.
func UnmarshalLease(b []byte) (tasks.Lease, error) {
	var m pb.Lease
	if err := decode("lease", b, MaxLease, 8*MaxSpans, &m); err != nil {
		return tasks.Lease{}, err
	}
	c := &checker{}
	l := tasks.Lease{
		ID: c.lease("lease", m.Id), Job: c.job("job", m.Job), Term: c.term(m.Term), Origin: c.peerID("origin", m.Origin), Worker: c.peerID("worker", m.Worker),
		Program: c.cidText("program", m.Program), Args: c.args("args", m.Args), Env: c.env(m.Env), Kind: tasks.Kind(c.word("kind", m.Kind, 32)),
		Needs: c.resources(m.Needs), Tasks: c.uint("tasks", m.Tasks, 1<<30), Nondeterministic: m.Nondeterministic, Commit: m.Commit,
		Duration: c.duration("duration", m.DurationNs), Grace: c.duration("grace", m.GraceNs),
	}
	if len(m.Assignments) == 0 {
		c.fail("lease has no assignments")
	}
	for _, a := range m.Assignments[:c.count("assignments", len(m.Assignments), MaxAssignments)] {
		l.Assignments = append(l.Assignments, tasks.Assignment{Task: c.task(a.Task), Replica: c.uint("replica", a.Replica, 1<<16)})
	}
	if c.err != nil {
		return tasks.Lease{}, c.err
	}
	return l, nil
}

// MarshalTask encodes a task, as a store keeps it.
func MarshalTask(t tasks.Task) ([]byte, error) { return encode("task", MaxTask, taskToPB(t)) }

// UnmarshalTask decodes what MarshalTask wrote.
func UnmarshalTask(b []byte) (tasks.Task, error) {
	var m pb.Task
	if err := decode("task", b, MaxTask, 8*MaxSpans, &m); err != nil {
		return tasks.Task{}, err
	}
	c := &checker{}
	t := c.task(&m)
	if c.err != nil {
		return tasks.Task{}, c.err
	}
	return t, nil
}

func taskToPB(t tasks.Task) *pb.Task {
	m := &pb.Task{Ref: refToPB(t.Ref), Size: t.Size, Numbered: numbered(t)}
	for _, s := range t.Stdin {
		m.Stdin = append(m.Stdin, spanToPB(s))
	}
	if !m.Numbered && len(t.Inputs) > 0 {
		m.Inputs = make(map[string]*pb.Span, len(t.Inputs))
		for name, s := range t.Inputs {
			m.Inputs[name] = spanToPB(s)
		}
	}
	return m
}

// numbered reports whether a task is shaped like a reduce: its inputs are the
// parts of its stdin, named by their place.
func numbered(t tasks.Task) bool {
	if len(t.Inputs) == 0 || len(t.Inputs) != len(t.Stdin) {
		return false
	}
	for i, s := range t.Stdin {
		if in, ok := t.Inputs[placeName(i)]; !ok || in != s {
			return false
		}
	}
	return true
}

func placeName(i int) string { return fmt.Sprintf("%06d", i) }

func (c *checker) task(m *pb.Task) tasks.Task {
	if m == nil {
		c.fail("task is missing")
		return tasks.Task{}
	}
	t := tasks.Task{Ref: c.ref(m.Ref), Size: c.bytesCount("size", m.Size)}
	for _, s := range m.Stdin[:c.count("stdin spans", len(m.Stdin), MaxSpans)] {
		t.Stdin = append(t.Stdin, c.span(s))
	}
	if m.Numbered && len(m.Inputs) > 0 {
		c.fail("task names inputs twice")
	}
	c.count("inputs", len(m.Inputs), MaxSpans)
	if n := len(m.Inputs); n > 0 && c.err == nil {
		t.Inputs = make(map[string]tasks.Span, n)
		for name, s := range m.Inputs {
			t.Inputs[c.inputName(name)] = c.span(s)
		}
	}
	if m.Numbered && len(t.Stdin) == 0 {
		c.fail("task has numbered inputs but no stdin")
	}
	if m.Numbered && c.err == nil {
		t.Inputs = make(map[string]tasks.Span, len(t.Stdin))
		for i, s := range t.Stdin {
			t.Inputs[placeName(i)] = s
		}
	}
	return t
}

// inputName is a file's name under /in: one element, never a way out.
func (c *checker) inputName(v string) string {
	c.word("input name", v, 255)
	if v == "" || v == "." || v == ".." || slices.ContainsFunc([]byte(v), func(b byte) bool { return b == '/' || b == '\\' }) {
		c.fail("input name %q is not a plain file name", v)
	}
	return v
}

func refToPB(r tasks.Ref) *pb.Ref { return &pb.Ref{Stage: uint32(r.Stage), Index: r.Index} }

func (c *checker) ref(m *pb.Ref) tasks.Ref {
	return tasks.Ref{Stage: tasks.Stage(c.uint("stage", m.GetStage(), uint32(tasks.StageReduce))), Index: c.uint("index", m.GetIndex(), 1<<30)}
}

func spanToPB(s tasks.Span) *pb.Span {
	return &pb.Span{Root: string(s.Root), Path: s.Path, Offset: s.Offset, Length: s.Length}
}

func (c *checker) span(m *pb.Span) tasks.Span {
	s := tasks.Span{Root: c.cidText("span root", m.GetRoot()), Path: c.text("span path", m.GetPath(), maxPath), Offset: c.bytesCount("span offset", m.GetOffset()), Length: m.GetLength()}
	if s.Length < -1 || s.Length > 1<<50 {
		c.fail("span length %d is not -1 to 2^50", s.Length)
	}
	return s
}

// MarshalGrant encodes the tasks of a grant, as a store keeps them.
func MarshalGrant(g tasks.GrantRecord) ([]byte, error) {
	if len(g.Indexes) != len(g.Replicas) {
		return nil, fmt.Errorf("wire: encode grant %s: %d tasks with %d replicas", g.Lease, len(g.Indexes), len(g.Replicas))
	}
	return encode("grant", MaxSmall*2, &pb.Grant{Indexes: g.Indexes, Replicas: g.Replicas})
}

// UnmarshalGrant fills in what MarshalGrant wrote.
func UnmarshalGrant(g tasks.GrantRecord, b []byte) (tasks.GrantRecord, error) {
	var m pb.Grant
	if err := decode("grant", b, MaxSmall*2, 2*MaxSmall+4, &m); err != nil {
		return g, err
	}
	if len(m.Indexes) != len(m.Replicas) {
		return g, malformed("grant of %d tasks with %d replicas", len(m.Indexes), len(m.Replicas))
	}
	g.Indexes, g.Replicas = m.Indexes, m.Replicas
	return g, nil
}
