package client_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/tasks"
)

func evilTar(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: name, Mode: 0o644}
	if strings.HasSuffix(name, "link") {
		h.Typeflag, h.Linkname = tar.TypeSymlink, "../../evil"
	}
	if err := w.WriteHeader(h); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	return b.Bytes()
}

func TestResolve(t *testing.T) {
	c, n := pair(t, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"p.wasm": "\x00asm", "in/a": "a", "in/b": "b"})
	there := n.Put([]byte("already there"))
	spec := tasks.Spec{
		Program: "./p.wasm", Reduce: &tasks.Reduce{Program: tasks.CID(filepath.Join(dir, "p.wasm"))},
		Inputs: []tasks.Input{{Source: "in"}, {Source: there}},
	}
	var told []string
	got, err := c.Resolve(t.Context(), spec, dir, func(what, _ string) { told = append(told, what) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []string{"program", "inputs[0].source"}) {
		t.Errorf("stored %q: the same path is stored once", told)
	}
	if !tasks.IsCID(string(got.Program)) || got.Reduce.Program != got.Program || !tasks.IsCID(string(got.Inputs[0].Source)) || got.Inputs[1].Source != there {
		t.Errorf("resolved %+v %+v", got, got.Reduce)
	}
	if spec.Program != "./p.wasm" || spec.Inputs[0].Source != "in" || spec.Reduce.Program == got.Program {
		t.Error("the caller's spec was changed")
	}
	for _, o := range n.Adds[1:] {
		if o.Audience != api.AudienceJob || o.Pin {
			t.Errorf("stored with %+v", o)
		}
	}
}

func TestResolveTellsEveryFault(t *testing.T) {
	c, n := pair(t, nil)
	spec := tasks.Spec{Program: tasks.CID(t.TempDir()), Inputs: []tasks.Input{{Source: "nope.txt"}, {Source: "./gone"}}}
	_, err := c.Resolve(t.Context(), spec, t.TempDir(), nil, nil)
	var p *client.PathError
	if !errors.As(err, &p) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"program:", "nope.txt", "gone", "neither a file here nor a CID"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if len(n.Adds) != 0 {
		t.Error("something was stored before all was looked at")
	}
}

func TestFollow(t *testing.T) {
	c, n := pair(t, nil)
	program := n.Put([]byte("\x00asm"))
	id, err := c.Submit(t.Context(), tasks.Spec{Kind: tasks.KindWasm, Program: program, Tasks: 2}.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	job, err := c.Follow(t.Context(), id, func(j api.Job) {
		states = append(states, j.State)
		switch len(states) {
		case 1:
			n.SetJob(id, func(j *api.Job) { j.Done = 1 })
		case 2:
			n.SetJob(id, func(j *api.Job) { j.State, j.Done = "done", 2 })
		}
	})
	if err != nil || job.State != "done" || job.Done != 2 || len(states) != 3 {
		t.Errorf("%+v %v, states %q", job, err, states)
	}
	if _, err := c.Follow(t.Context(), "zzzz", nil); client.ClassOf(err) != client.Failed {
		t.Errorf("unknown job: %v", err)
	}
}

func TestJobVerbs(t *testing.T) {
	c, n := pair(t, nil)
	ctx := t.Context()
	program := n.Put([]byte("\x00asm"))
	spec := tasks.Spec{Name: "x", Kind: tasks.KindWasm, Program: program, Tasks: 2, Args: []string{"-v", "two words"}}.WithDefaults()
	id, err := c.Publish(ctx, spec, api.PublishOptions{ByCID: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Spec(id); !slices.Equal(got.Args, spec.Args) || got.Resources != spec.Resources {
		t.Errorf("spec %+v, want %+v", got, spec)
	}
	n.TaskList = make([]api.Task, 2500)
	if all, err := c.AllTasks(ctx, string(id)); err != nil || len(all) != 2500 {
		t.Errorf("%d tasks, %v", len(all), err)
	}
	if jobs, err := c.Jobs(ctx, "published", 10); err != nil || len(jobs) != 1 {
		t.Errorf("%v %v", jobs, err)
	}
	if w, err := c.Why(ctx, string(id)[:6]); err != nil || len(w) != 1 {
		t.Errorf("%v %v", w, err)
	}
	if _, err := c.Logs(ctx, string(id), "map", 1); err != nil {
		t.Error(err)
	}
	if out, err := c.Results(ctx, string(id)); err != nil || out.Job != string(id) {
		t.Errorf("%+v %v", out, err)
	}
	if err := c.Cancel(ctx, string(id)); err != nil {
		t.Error(err)
	}
	if _, err := c.Submit(ctx, tasks.Spec{Program: "nope"}); client.ClassOf(err) != client.Usage {
		t.Errorf("bad spec: %v", err)
	}
}

func TestEventsEndWithTheirReader(t *testing.T) {
	c, n := pair(t, nil)
	n.Emit(api.Event{Kind: api.EventPeer, Peer: "A", State: "joined"})
	n.Emit(api.Event{Kind: api.EventPeer, Peer: "B", State: "joined"})
	stop := errors.New("enough")
	var got []string
	err := c.Events(t.Context(), "", 1, func(e api.Event) error {
		got = append(got, e.Peer)
		return stop
	})
	if !errors.Is(err, stop) || !slices.Equal(got, []string{"B"}) {
		t.Errorf("%q %v", got, err)
	}
}
