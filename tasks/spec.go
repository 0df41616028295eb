package tasks

import "time"

// Kind says which runner a job needs.
type Kind string

// The kinds that run today.
const KindWasm Kind = "wasm"

// Spec is what a user asks for. ParseSpec reads one from YAML; Validate reports
// every fault of one at once.
type Spec struct {
	Name             string
	Kind             Kind
	Program          CID
	Args             []string
	Env              map[string]string
	Inputs           []Input
	Tasks            uint32 // a plain count, when no input is split
	Reduce           *Reduce
	Resources        Resources
	Locality         Locality
	Verify           Verify
	Retry            Retry
	Retention        time.Duration
	Nondeterministic bool
}

// Input is one dataset that a job reads.
type Input struct {
	Name   string // under /in when not split; optional when it is
	Source CID
	Split  Split // zero: every task gets the whole of it, as /in/<Name>
}

// SplitBy says where an input may be cut.
type SplitBy string

// The ways to cut.
const (
	SplitNone  SplitBy = ""
	SplitLines SplitBy = "lines"
	SplitBytes SplitBy = "bytes"
	SplitFiles SplitBy = "files"
)

// Split cuts an input into tasks of Size lines or bytes, or one a file.
type Split struct {
	By   SplitBy
	Size int64
}

// Reduce is a second stage: one task over all outputs in task order.
type Reduce struct {
	Program CID
	Args    []string
}

// Resources bound one task. A worker that has less does not bid; a program that
// takes more is stopped with a Reason.
type Resources struct {
	CPU     float64       // cores
	Memory  int64         // bytes
	Timeout time.Duration // wall time
	CPUTime time.Duration // 0: Timeout times CPU
	Output  int64         // bytes of stdout and /out together
}

// Locality bounds where a job may run.
type Locality struct {
	MaxRTT time.Duration // 0: anywhere
}

// VerifyMode says how results are checked.
type VerifyMode string

// The ways to check that work today.
const (
	VerifyNone   VerifyMode = "none"
	VerifyQuorum VerifyMode = "quorum"
)

// Verify asks for Replicas equal outputs from different peers.
type Verify struct {
	Mode     VerifyMode
	Replicas uint32
}

// Retry bounds how often one task is tried again after failing or disagreeing.
// A worker that died or was slow does not count against it.
type Retry struct {
	Max uint32
}
