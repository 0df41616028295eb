package api_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

func TestSubmit(t *testing.T) {
	s, n := newServer(t, nil)
	h := s.Handler()
	program := n.Put([]byte("\x00asm"))
	spec := "name: count\nprogram: " + string(program) + "\nargs: [a]\ntasks: 3\n"
	w := ask(t, h, "POST", "/api/v1/jobs", strings.NewReader(spec), "Content-Type: application/yaml")
	var got api.Submitted
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if sp := n.Spec(tasks.JobID(got.ID)); sp.Program != program || sp.Tasks != 3 || sp.Kind != tasks.KindWasm || sp.Retry.Max == 0 {
		t.Errorf("spec %+v: parsed, and with defaults", sp)
	}
	// JSON is YAML.
	w = ask(t, h, "POST", "/api/v1/jobs/publish?byCID=true", strings.NewReader(`{"program":"`+string(program)+`","tasks":1}`), "Content-Type: application/json")
	if w.Code != 201 {
		t.Errorf("publish: %d %s", w.Code, w.Body)
	}
	w = ask(t, h, "POST", "/api/v1/jobs", strings.NewReader("program: ./x.wasm\nreplcas: 2\n"))
	if e := problemOf(t, w); e.Code != uint32(tasks.BadSpec) || len(e.Faults) == 0 || e.Reason != "invalid" {
		t.Errorf("bad spec: %+v", e)
	}
}

func TestJobs(t *testing.T) {
	s, n := newServer(t, nil)
	h := s.Handler()
	program := n.Put([]byte("\x00asm"))
	a, err := n.Submit(context.Background(), tasks.Spec{Name: "a", Program: program})
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Submit(context.Background(), tasks.Spec{Name: "b", Program: program})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string, out any) int {
		t.Helper()
		w := ask(t, h, "GET", path, nil)
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			t.Fatalf("%s: %v: %s", path, err, w.Body)
		}
		return w.Code
	}
	var list api.List[api.Job]
	if get("/api/v1/jobs", &list); len(list.Items) != 2 || list.Items[0].ID != string(b) {
		t.Errorf("jobs %+v", list)
	}
	if get("/api/v1/jobs?limit=1", &list); len(list.Items) != 1 {
		t.Errorf("limit: %d", len(list.Items))
	}
	if get("/api/v1/jobs?state=done", &list); list.Items == nil || len(list.Items) != 0 {
		t.Errorf("state: %+v", list.Items)
	}
	var j api.Job
	for _, id := range []string{string(a), string(a)[:8]} {
		if get("/api/v1/jobs/"+id, &j); j.ID != string(a) {
			t.Errorf("job %s: %+v", id, j)
		}
	}
	var e api.Error
	if get("/api/v1/jobs/zzzzzz", &e); e.Reason != "not-found" {
		t.Errorf("unknown: %+v", e)
	}
	if get("/api/v1/jobs/abc", &e); e.Status != 422 {
		t.Errorf("too short: %+v", e)
	}
	n.TaskList = []api.Task{{Index: 0}, {Index: 1}, {Index: 2}}
	var page api.TaskPage
	if get("/api/v1/jobs/"+string(a)+"/tasks?offset=1&limit=1", &page); page.Total != 3 || len(page.Items) != 1 || page.Items[0].Index != 1 {
		t.Errorf("tasks: %+v", page)
	}
	if get("/api/v1/jobs/"+string(a)+"/tasks?limit=5000", &e); e.Status != 422 {
		t.Errorf("limit: %+v", e)
	}
	n.Log = []api.Log{{Text: "oops"}}
	var logs api.List[api.Log]
	if get("/api/v1/jobs/"+string(a)+"/logs?index=2", &logs); len(logs.Items) != 1 {
		t.Errorf("logs: %+v", logs)
	}
	var why api.List[api.Wait]
	if get("/api/v1/jobs/"+string(a)+"/why", &why); len(why.Items) != 1 {
		t.Errorf("why: %+v", why)
	}
	if w := ask(t, h, "POST", "/api/v1/jobs/"+string(a)+"/cancel", nil); w.Code != 204 {
		t.Errorf("cancel: %d %s", w.Code, w.Body)
	}
	if e := problemOf(t, ask(t, h, "POST", "/api/v1/jobs/"+string(a)+"/cancel", nil)); e.Reason != "conflict" {
		t.Errorf("cancel again: %+v", e)
	}
	var out api.Output
	if get("/api/v1/jobs/"+string(a)+"/results", &out); out.State != "cancelled" {
		t.Errorf("results: %+v", out)
	}
}

// A beginning that two jobs share names neither.
func TestAmbiguousJob(t *testing.T) {
	s, n := newServer(t, func(c *api.Config) { c.Backend.Jobs = twins{c.Backend.Jobs} })
	_ = n
	e := problemOf(t, ask(t, s.Handler(), "GET", "/api/v1/jobs/aaaa", nil))
	if e.Reason != "invalid" || !strings.Contains(e.Detail, "2 jobs: aaaab, aaaac") {
		t.Errorf("%+v", e)
	}
}

type twins struct{ api.Jobs }

func (twins) List(context.Context) ([]api.Job, error) {
	return []api.Job{{ID: "aaaab"}, {ID: "aaaac"}}, nil
}

func TestInvitesPolicyAndStop(t *testing.T) {
	s, n := newServer(t, nil)
	h := s.Handler()
	js := "Content-Type: application/json"
	w := ask(t, h, "POST", "/api/v1/invites", strings.NewReader(`{"uses":3}`), js)
	if w.Code != 201 || !strings.Contains(w.Body.String(), `"line":"kith1secret"`) {
		t.Errorf("create: %d %s", w.Code, w.Body)
	}
	if w = ask(t, h, "GET", "/api/v1/invites", nil); strings.Contains(w.Body.String(), "secret") {
		t.Errorf("list tells the line: %s", w.Body)
	}
	if e := problemOf(t, ask(t, h, "POST", "/api/v1/invites", strings.NewReader(`{"usse":3}`), js)); e.Status != 422 || !strings.Contains(e.Detail, "usse") {
		t.Errorf("unknown key: %+v", e)
	}
	if w = ask(t, h, "DELETE", "/api/v1/invites/inv1", nil); w.Code != 204 {
		t.Errorf("revoke: %d %s", w.Code, w.Body)
	}
	if e := problemOf(t, ask(t, h, "DELETE", "/api/v1/invites/inv2", nil)); e.Reason != "not-found" {
		t.Errorf("revoke again: %+v", e)
	}
	if w = ask(t, h, "POST", "/api/v1/policy/pause", strings.NewReader(`{"for":"2h"}`), js); !strings.Contains(w.Body.String(), `"paused":true`) || !strings.Contains(w.Body.String(), `"until"`) {
		t.Errorf("pause: %d %s", w.Code, w.Body)
	}
	if w = ask(t, h, "POST", "/api/v1/policy/resume", nil); !strings.Contains(w.Body.String(), `"paused":false`) {
		t.Errorf("resume: %d %s", w.Code, w.Body)
	}
	if w = ask(t, h, "POST", "/api/v1/down", nil); w.Code != 202 || !n.Stopped {
		t.Errorf("down: %d %s", w.Code, w.Body)
	}
}
