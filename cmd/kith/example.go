package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/tasks"
)

// examplePrefix names what is built into the binary where a path would stand:
// example:wordcount a program, example:text the text.
const examplePrefix = "example:"

// storeExamples stores the built-in programs and text that a spec names, and
// returns the spec with CIDs in their place.
func storeExamples(ctx context.Context, c *client.Client, spec tasks.Spec) (tasks.Spec, error) {
	stored := map[string]tasks.CID{}
	put := func(at *tasks.CID, program bool) error {
		name, ok := strings.CutPrefix(string(*at), examplePrefix)
		if !ok {
			return nil
		}
		if root, ok := stored[name]; ok {
			*at = root
			return nil
		}
		b, err := readExample(name, program)
		if err != nil {
			return err
		}
		root, err := c.AddFile(ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Name: name, Audience: api.AudienceJob})
		if err != nil {
			return fmt.Errorf("store %s%s: %w", examplePrefix, name, err)
		}
		*at = tasks.CID(root.CID)
		stored[name] = *at
		return nil
	}
	if err := put(&spec.Program, true); err != nil {
		return spec, err
	}
	if spec.Reduce != nil {
		r := *spec.Reduce
		if err := put(&r.Program, true); err != nil {
			return spec, err
		}
		spec.Reduce = &r
	}
	spec.Inputs = append([]tasks.Input(nil), spec.Inputs...)
	for i := range spec.Inputs {
		if err := put(&spec.Inputs[i].Source, false); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

func readExample(name string, program bool) ([]byte, error) {
	if program {
		b, err := examples.Program(name)
		return b, asUsage(err)
	}
	if name != "text" {
		return nil, usagef("no example input %q: there is %stext", name, examplePrefix)
	}
	return examples.Text()
}
