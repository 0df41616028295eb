package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// Resolve stores what a spec names by local paths, relative to dir, for the
// audience of jobs, and returns the spec with CIDs in their place. A path that
// stands twice is stored once. started is told each path before it is stored;
// both callbacks may be nil.
func (c *Client) Resolve(ctx context.Context, spec tasks.Spec, dir string, started func(what, path string), progress Progress) (tasks.Spec, error) {
	type place struct {
		what string
		cid  *tasks.CID
		file bool // a program
	}
	places := []place{{"program", &spec.Program, true}}
	if spec.Reduce != nil {
		r := *spec.Reduce
		spec.Reduce = &r
		places = append(places, place{"reduce.program", &r.Program, true})
	}
	spec.Inputs = append([]tasks.Input(nil), spec.Inputs...)
	for i := range spec.Inputs {
		places = append(places, place{fmt.Sprintf("inputs[%d].source", i), &spec.Inputs[i].Source, false})
	}
	// Every path is looked at before the first is sent.
	var faults []error
	for _, p := range places {
		if text := string(*p.cid); text != "" && !tasks.IsCID(text) {
			faults = append(faults, checkPath(p.what, at(dir, text), p.file))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return spec, err
	}
	stored := map[string]tasks.CID{}
	for _, p := range places {
		text := string(*p.cid)
		if text == "" || tasks.IsCID(text) {
			continue
		}
		path := at(dir, text)
		root, ok := stored[path]
		if !ok {
			if started != nil {
				started(p.what, path)
			}
			r, err := c.AddPath(ctx, path, api.AddOptions{Audience: api.AudienceJob}, progress)
			if err != nil {
				return spec, fmt.Errorf("%s: store %s: %w", p.what, path, err)
			}
			root = tasks.CID(r.CID)
			stored[path] = root
		}
		*p.cid = root
	}
	return spec, nil
}

func at(dir, path string) string {
	if filepath.IsAbs(path) || dir == "" {
		return path
	}
	return filepath.Join(dir, path)
}

func checkPath(what, path string, file bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &PathError{fmt.Errorf("%s: %q is neither a file here nor a CID", what, path)}
	case err != nil:
		return &PathError{fmt.Errorf("%s: %w", what, err)}
	case file && !info.Mode().IsRegular():
		return &PathError{fmt.Errorf("%s: %q is not a file: name a .wasm module", what, path)}
	}
	return nil
}

// PathError says that a spec names what is not on this machine.
type PathError struct{ Err error }

func (e *PathError) Error() string { return e.Err.Error() }
func (e *PathError) Unwrap() error { return e.Err }
