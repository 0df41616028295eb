package tasks

import (
	"bytes"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// FormatSpec writes a spec as YAML that ParseSpec reads back to an equal one.
func FormatSpec(s Spec) ([]byte, error) {
	type yamlSplit struct {
		By   SplitBy
		Size any `yaml:",omitempty"`
	}
	type yamlInput struct {
		Name   string `yaml:",omitempty"`
		Source CID
		Split  *yamlSplit `yaml:",omitempty,flow"`
	}
	type yamlReduce struct {
		Program CID
		Args    []quoted `yaml:",omitempty,flow"`
	}
	type resources struct {
		CPU     float64 `yaml:"cpu,omitempty"`
		Memory  string  `yaml:",omitempty"`
		Timeout string  `yaml:",omitempty"`
		CPUTime string  `yaml:"cpuTime,omitempty"`
		Output  string  `yaml:",omitempty"`
	}
	type locality struct {
		MaxRTT string `yaml:"maxRTT,omitempty"`
	}
	type verify struct {
		Mode     VerifyMode `yaml:",omitempty"`
		Replicas uint32     `yaml:",omitempty"`
	}
	type retry struct {
		Max uint32 `yaml:",omitempty"`
	}
	out := struct {
		Name             string            `yaml:",omitempty"`
		Kind             Kind              `yaml:",omitempty"`
		Program          CID               `yaml:",omitempty"`
		Args             []quoted          `yaml:",omitempty,flow"`
		Env              map[string]quoted `yaml:",omitempty"`
		Inputs           []yamlInput       `yaml:",omitempty"`
		Tasks            uint32            `yaml:",omitempty"`
		Reduce           *yamlReduce       `yaml:",omitempty"`
		Resources        resources         `yaml:",omitempty,flow"`
		Locality         locality          `yaml:",omitempty,flow"`
		Verify           verify            `yaml:",omitempty,flow"`
		Retry            retry             `yaml:",omitempty,flow"`
		Retention        string            `yaml:",omitempty"`
		Nondeterministic bool              `yaml:",omitempty"`
	}{
		Name: s.Name, Kind: s.Kind, Program: s.Program, Args: quote(s.Args), Tasks: s.Tasks,
		Resources: resources{s.Resources.CPU, sizeText(s.Resources.Memory), durationText(s.Resources.Timeout),
			durationText(s.Resources.CPUTime), sizeText(s.Resources.Output)},
		Locality: locality{durationText(s.Locality.MaxRTT)},
		Verify:   verify{s.Verify.Mode, s.Verify.Replicas}, Retry: retry{s.Retry.Max},
		Retention: durationText(s.Retention), Nondeterministic: s.Nondeterministic,
	}
	if len(s.Env) > 0 {
		out.Env = make(map[string]quoted, len(s.Env))
		for k, v := range s.Env {
			out.Env[k] = quoted(v)
		}
	}
	for _, in := range s.Inputs {
		y := yamlInput{Name: in.Name, Source: in.Source}
		if in.Split.By != SplitNone {
			y.Split = &yamlSplit{By: in.Split.By}
			switch in.Split.By {
			case SplitLines:
				y.Split.Size = in.Split.Size
			case SplitBytes:
				y.Split.Size = FormatSize(in.Split.Size)
			}
		}
		out.Inputs = append(out.Inputs, y)
	}
	if s.Reduce != nil {
		out.Reduce = &yamlReduce{s.Reduce.Program, quote(s.Reduce.Args)}
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("format spec: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("format spec: %w", err)
	}
	return b.Bytes(), nil
}

// quoted is always written in double quotes: the library's block style loses
// texts that begin with a tab.
type quoted string

// MarshalYAML implements yaml.Marshaler.
func (q quoted) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: string(q)}, nil
}

func quote(list []string) []quoted {
	out := make([]quoted, len(list))
	for i, t := range list {
		out[i] = quoted(t)
	}
	return out
}

func sizeText(n int64) string {
	if n == 0 {
		return ""
	}
	return FormatSize(n)
}

func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return FormatDuration(d)
}
