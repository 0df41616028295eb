package api

import (
	"errors"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kith-mesh/kith/tasks"
)

var (
	stringSchema  = &huma.Schema{Type: huma.TypeString}
	objectSchema  = &huma.Schema{Type: huma.TypeObject}
	specType      = reflect.TypeFor[jobSpec]()
	submittedType = reflect.TypeFor[Submitted]()
)

// jobSpec documents the shape of a job spec; tasks.ParseSpec reads it.
type jobSpec struct {
	Name    string            `json:"name,omitempty"`
	Kind    string            `json:"kind,omitempty" enum:"wasm" default:"wasm"`
	Program string            `json:"program" doc:"CID"`
	Args    []string          `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Inputs  []struct {
		Name   string `json:"name,omitempty" doc:"under /in, for an input that is not split"`
		Source string `json:"source" doc:"CID"`
		Split  *struct {
			By   string `json:"by" enum:"lines,bytes,files"`
			Size any    `json:"size,omitempty" doc:"lines, or bytes such as 1Mi"`
		} `json:"split,omitempty"`
	} `json:"inputs,omitempty"`
	Tasks  uint32 `json:"tasks,omitempty" doc:"how many, when no input is split"`
	Reduce *struct {
		Program string   `json:"program" doc:"CID"`
		Args    []string `json:"args,omitempty"`
	} `json:"reduce,omitempty" doc:"a second stage over all outputs"`
	Resources *struct {
		CPU     float64 `json:"cpu,omitempty" doc:"cores"`
		Memory  any     `json:"memory,omitempty" doc:"bytes, or text such as 256Mi"`
		Timeout string  `json:"timeout,omitempty" example:"60s"`
		CPUTime string  `json:"cpuTime,omitempty"`
		Output  any     `json:"output,omitempty" doc:"bytes of output, or text such as 64Mi"`
	} `json:"resources,omitempty" doc:"of one task"`
	Locality *struct {
		MaxRTT string `json:"maxRTT,omitempty" example:"80ms"`
	} `json:"locality,omitempty"`
	Verify *struct {
		Mode     string `json:"mode,omitempty" enum:"none,quorum"`
		Replicas uint32 `json:"replicas,omitempty"`
	} `json:"verify,omitempty"`
	Retry *struct {
		Max uint32 `json:"max,omitempty"`
	} `json:"retry,omitempty"`
	Retention        string `json:"retention,omitempty" example:"24h"`
	Nondeterministic bool   `json:"nondeterministic,omitempty"`
}

// ParseSpec reads a job spec as the API takes it: its program and inputs are
// CIDs. The error names every fault.
func ParseSpec(text []byte) (tasks.Spec, error) {
	spec, err := tasks.ParseSpec(text)
	if err == nil {
		spec = spec.WithDefaults()
		err = spec.Validate()
	}
	if err == nil {
		return spec, nil
	}
	e := Invalid("'kith submit --help' shows a spec", "%v", err)
	var faulty *tasks.SpecError
	if errors.As(err, &faulty) {
		for _, fault := range faulty.Faults {
			e.Faults = append(e.Faults, fault.String())
		}
	}
	e.Code = uint32(tasks.BadSpec)
	return tasks.Spec{}, e
}
