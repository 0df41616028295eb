package tasks

// The bounds of a job. What exceeds one is a fault that names it.
const (
	MaxTasks        = 1_000_000 // of one job
	MaxReduceInputs = 10_000    // map tasks of a job with a reduce: its one lease names each output
	MaxSpecBytes    = 64 << 10
	MaxArgs         = 256
	MaxEnv          = 128
	MaxTextBytes    = 32 << 10 // all args, or all env, of a job
	MaxInputs       = 64
	MaxReplicas     = 16
	MaxRetry        = 100
)

// ParseSpec reads a job spec from YAML. Keys are strict: an unknown one is a
// fault that names the nearest known one. All faults are reported at once, as
// a *SpecError. Program and source texts are kept as written: a path is for the
// client to add and replace by its CID, so the result is not yet validated;
// call WithDefaults and Validate when it holds CIDs.
func ParseSpec(text []byte) (Spec, error) { return Spec{}, nil }

// FormatSpec writes a spec as YAML that ParseSpec reads back to an equal one.
func FormatSpec(s Spec) ([]byte, error) { return nil, nil }

// WithDefaults gives a copy with every zero field that has a default filled.
func (s Spec) WithDefaults() Spec { return s }

// Validate reports every fault of a spec at once, as a *SpecError.
func (s Spec) Validate() error { return nil }

// ParseSplit reads a split as the command line takes it: "lines:1000",
// "bytes:1MiB" or "files".
func ParseSplit(text string) (Split, error) { return Split{}, nil }

// ParseSize reads a size in bytes: "256Mi", "1GB", "1.5GiB" or "4096".
func ParseSize(text string) (int64, error) { return 0, nil }

// FormatSize writes n so that ParseSize reads it back exactly.
func FormatSize(n int64) string { return "" }
