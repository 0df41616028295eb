package tasks

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds of a job. What exceeds one is a fault that names it.
const (
	MaxTasks        = 1_000_000 // of one job
	MaxReduceInputs = 10_000    // map tasks of a job with a reduce: its one lease names each output
	MaxSpecBytes    = 256 << 10
	MaxArgs         = 256
	MaxEnv          = 128
	MaxTextBytes    = 32 << 10 // all args, or all env, of one stage
	MaxInputs       = 64
	MaxReplicas     = 16
	MaxRetry        = 100

	minCPU, maxCPU       = 0.01, 1024
	minMemory, maxMemory = 1 << 20, 1 << 42
	minOutput, maxOutput = 1, 1 << 40
	minWall, maxWall     = 10 * time.Millisecond, 7 * 24 * time.Hour
	maxMaxRTT            = time.Minute
	minKept, maxKept     = time.Minute, 366 * 24 * time.Hour
)

// What WithDefaults fills.
const (
	DefaultCPU       = 1.0
	DefaultMemory    = 256 << 20
	DefaultTimeout   = time.Minute
	DefaultOutput    = 64 << 20
	DefaultReplicas  = 2 // of a quorum
	DefaultRetry     = 5
	DefaultRetention = 24 * time.Hour
)

var (
	jobName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	envName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	fileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	cidText  = regexp.MustCompile(`^b[a-z2-7]{7,127}$`)
)

// IsCID reports whether text has the form of a base32 CIDv1. Whether it is one
// is for the store to say.
func IsCID(text string) bool { return cidText.MatchString(text) }

// WithDefaults gives a copy with every zero field that has a default filled.
func (s Spec) WithDefaults() Spec {
	if s.Name == "" {
		s.Name = "job"
	}
	if s.Kind == "" {
		s.Kind = KindWasm
	}
	inputs, split := append([]Input(nil), s.Inputs...), false
	for i := range inputs {
		if inputs[i].Split.By != SplitNone {
			split = true
		} else if inputs[i].Name == "" {
			if inputs[i].Name = "input"; i > 0 {
				inputs[i].Name = fmt.Sprintf("input%d", i)
			}
		}
	}
	s.Inputs = inputs
	if s.Tasks == 0 && !split {
		s.Tasks = 1
	}
	r := &s.Resources
	if r.CPU == 0 {
		r.CPU = DefaultCPU
	}
	if r.Memory == 0 {
		r.Memory = DefaultMemory
	}
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	if r.CPUTime == 0 {
		r.CPUTime = time.Duration(float64(r.Timeout) * r.CPU)
	}
	if r.Output == 0 {
		r.Output = DefaultOutput
	}
	v := &s.Verify
	if v.Mode == "" {
		if v.Mode = VerifyNone; v.Replicas > 1 {
			v.Mode = VerifyQuorum
		}
	}
	if v.Replicas == 0 {
		if v.Replicas = 1; v.Mode == VerifyQuorum {
			v.Replicas = DefaultReplicas
		}
	}
	if s.Retry.Max == 0 {
		s.Retry.Max = DefaultRetry
	}
	if s.Retention == 0 {
		s.Retention = DefaultRetention
	}
	return s
}

// Validate reports every fault of a spec at once, as a *SpecError. Zero fields
// that have a default are faults: fill them first.
func (s Spec) Validate() error {
	var f faults
	if !jobName.MatchString(s.Name) {
		f.add(0, "name", "%q: write 1 to 63 letters, digits, dots, dashes or underscores, a letter or digit first", clip(s.Name))
	}
	if s.Kind != KindWasm {
		f.add(0, "kind", "%q: this version runs %s", clip(string(s.Kind)), KindWasm)
	}
	f.cid("program", s.Program)
	f.texts("args", s.Args)
	f.env(s.Env)
	f.inputs(s)
	if s.Reduce != nil {
		f.cid("reduce.program", s.Reduce.Program)
		f.texts("reduce.args", s.Reduce.Args)
		if s.Tasks > MaxReduceInputs {
			f.add(0, "tasks", "%d are more than the %d that one reduce takes: make fewer, larger tasks", s.Tasks, MaxReduceInputs)
		}
	}
	f.resources(s.Resources)
	f.duration("locality.maxRTT", s.Locality.MaxRTT, 0, maxMaxRTT)
	f.verify(s)
	if s.Retry.Max < 1 || s.Retry.Max > MaxRetry {
		f.add(0, "retry.max", "%d: write 1 to %d", s.Retry.Max, MaxRetry)
	}
	f.duration("retention", s.Retention, minKept, maxKept)
	return f.err()
}

func (f *faults) inputs(s Spec) {
	if len(s.Inputs) > MaxInputs {
		f.add(0, "inputs", "%d are more than %d: put them in a folder", len(s.Inputs), MaxInputs)
		return
	}
	names, split := make(map[string]bool), false
	for i, in := range s.Inputs {
		at := fmt.Sprintf("inputs[%d]", i)
		f.cid(at+".source", in.Source)
		if in.Name != "" && !fileName.MatchString(in.Name) {
			f.add(0, at+".name", "%q: write a plain file name of letters, digits, dots, dashes or underscores", clip(in.Name))
		}
		if in.Split.By == SplitNone {
			if in.Name == "" {
				f.add(0, at+".name", "missing: an input that is not split is read from /in/NAME")
			} else if names[in.Name] {
				f.add(0, at+".name", "%q is used twice", clip(in.Name))
			}
			names[in.Name] = true
		}
		split = split || in.Split.By != SplitNone
		switch in.Split.By {
		case SplitNone, SplitFiles:
			if in.Split.Size != 0 {
				f.add(0, at+".split.size", "%d: only a split by lines or bytes takes a size", in.Split.Size)
			}
		case SplitLines, SplitBytes:
			if in.Split.Size < 1 {
				f.add(0, at+".split.size", "%d: write how many %s go to one task, 1 or more", in.Split.Size, in.Split.By)
			}
		default:
			f.add(0, at+".split.by", "%q: write %s, %s or %s", clip(string(in.Split.By)), SplitLines, SplitBytes, SplitFiles)
		}
	}
	switch {
	case split && s.Tasks != 0:
		f.add(0, "tasks", "%d: the split decides how many tasks there are: remove tasks or the split", s.Tasks)
	case !split && (s.Tasks < 1 || s.Tasks > MaxTasks):
		f.add(0, "tasks", "%d: write 1 to %d", s.Tasks, MaxTasks)
	}
}

func (f *faults) resources(r Resources) {
	if !(r.CPU >= minCPU && r.CPU <= maxCPU) { // not NaN either
		f.add(0, "resources.cpu", "%v: write cores, from %v to %d", r.CPU, minCPU, maxCPU)
	}
	f.size("resources.memory", r.Memory, minMemory, maxMemory)
	f.size("resources.output", r.Output, minOutput, maxOutput)
	f.duration("resources.timeout", r.Timeout, minWall, maxWall)
	f.duration("resources.cpuTime", r.CPUTime, minWall/10, maxWall*maxCPU)
}

func (f *faults) verify(s Spec) {
	switch v := s.Verify; v.Mode {
	case VerifyNone:
		if v.Replicas != 1 {
			f.add(0, "verify.replicas", "%d: mode none takes 1; for more write mode: quorum", v.Replicas)
		}
	case VerifyQuorum:
		if v.Replicas < 2 || v.Replicas > MaxReplicas {
			f.add(0, "verify.replicas", "%d: a quorum takes 2 to %d", v.Replicas, MaxReplicas)
		}
		if s.Nondeterministic {
			f.add(0, "verify.mode", "quorum compares outputs, which a nondeterministic program does not repeat: write mode: none")
		}
	default:
		f.add(0, "verify.mode", "%q: this version knows %s and %s", clip(string(v.Mode)), VerifyNone, VerifyQuorum)
	}
}

func (f *faults) env(env map[string]string) {
	if len(env) > MaxEnv {
		f.add(0, "env", "%d are more than %d", len(env), MaxEnv)
		return
	}
	names, total := make([]string, 0, len(env)), 0
	for k, v := range env {
		names = append(names, k)
		total += len(k) + len(v) + 2
	}
	sort.Strings(names)
	for _, k := range names {
		switch {
		case !envName.MatchString(k):
			f.add(0, "env", "%q: a name is letters, digits and underscores", clip(k))
		case strings.HasPrefix(k, "KITH_"):
			f.add(0, "env", "%q: names with KITH_ are kith's own", clip(k))
		}
		f.plain("env."+clip(k), env[k])
	}
	f.total("env", total)
}

func (f *faults) texts(at string, list []string) {
	if len(list) > MaxArgs {
		f.add(0, at, "%d are more than %d", len(list), MaxArgs)
		return
	}
	total := 0
	for i, t := range list {
		f.plain(fmt.Sprintf("%s[%d]", at, i), t)
		total += len(t) + 1
	}
	f.total(at, total)
}

func (f *faults) total(at string, n int) {
	if n > MaxTextBytes {
		f.add(0, at, "%d bytes are more than %d: pass data as an input", n, MaxTextBytes)
	}
}

func (f *faults) plain(at, t string) {
	if !utf8.ValidString(t) || strings.IndexByte(t, 0) >= 0 {
		f.add(0, at, "%q: must be UTF-8 without zero bytes", clip(t))
	}
}

func (f *faults) cid(at string, c CID) {
	if c == "" {
		f.add(0, at, "missing: write a path or a CID")
	} else if !IsCID(string(c)) {
		f.add(0, at, "%q is not a CID: add the path first (kith add) and use what it prints", clip(string(c)))
	}
}

func (f *faults) size(at string, n, least, most int64) {
	if n < least || n > most {
		f.add(0, at, "%s: write a size from %s to %s", FormatSize(n), FormatSize(least), FormatSize(most))
	}
}

func (f *faults) duration(at string, d, least, most time.Duration) {
	if d < least || d > most {
		f.add(0, at, "%s: write a duration from %s to %s", FormatDuration(d), FormatDuration(least), FormatDuration(most))
	}
}
