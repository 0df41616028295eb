package node

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/tasks"
)

const verse = "the quick brown fox\njumps over the lazy dog\nThe dog, the dog!\n"

// wordcount is a job over text, which the client's node gets with the programs.
func wordcount(t *testing.T, c *client.Client, text string) tasks.Spec {
	t.Helper()
	put := func(text string) tasks.CID {
		r, err := c.AddFile(t.Context(), strings.NewReader(text), int64(len(text)), api.AddOptions{Audience: api.AudienceJob})
		if err != nil {
			t.Fatal(err)
		}
		return tasks.CID(r.CID)
	}
	program := func(name string) tasks.CID {
		b, err := examples.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		return put(string(b))
	}
	return tasks.Spec{
		Name: "wordcount", Program: program("wordcount"), Inputs: []tasks.Input{{Source: put(text), Split: tasks.Split{By: tasks.SplitLines, Size: 1}}},
		Reduce: &tasks.Reduce{Program: program("wcsum")}, Resources: tasks.Resources{Memory: 128 << 20, Timeout: time.Minute},
	}
}

// counted follows a job to its end, fetches its result and checks it.
func counted(t *testing.T, c *client.Client, id tasks.JobID, text string) api.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	job, err := c.Follow(ctx, id, func(api.Job) {})
	if err != nil || job.State != "done" {
		t.Fatalf("the job is %+v, %v", job, err)
	}
	out, err := c.Results(ctx, string(id))
	if err != nil || out.State != "done" || out.Dir {
		t.Fatalf("results %+v, %v", out, err)
	}
	r, err := c.Cat(ctx, tasks.CID(out.CID), "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := examples.ReadCounts(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := examples.CountWords(strings.NewReader(text))
	if err != nil || len(want) != len(got) {
		t.Errorf("got %v, want %v, %v", got, want, err)
	}
	for w, n := range want {
		if got[w] != n {
			t.Errorf("%q %d times, want %d", w, got[w], n)
		}
	}
	return job
}

// working lets nodes run real programs, in children of this test.
func working(t *testing.T, c *Config) {
	t.Helper()
	c.Seams.Runner, c.Exe = nil, os.Args[0]
	if err := errors.Join(os.MkdirAll(string(c.Home), 0o700), os.Symlink(sharedCache, c.Home.Cache())); err != nil {
		t.Fatal(err)
	}
}

// TestPublishFromALightNode hands a job to whoever adopts it: a light node runs
// nothing and holds no job.
func TestPublishFromALightNode(t *testing.T) {
	if testing.Short() {
		t.Skip("short: compiles Go programs in children of three nodes; go test ./... runs it")
	}
	t.Parallel()
	nodes := mesh(t, 3, func(i int, c *Config) {
		working(t, c)
		c.Light = i == 2
	})
	light := nodes[2]
	c := dial(t, light)
	spec := wordcount(t, c, verse)
	id, err := c.Publish(t.Context(), spec, api.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	job := counted(t, c, id, verse)
	if !job.Published {
		t.Errorf("not told as published: %+v", job)
	}
	// One host finished it as its origin, and the light node heard one answer.
	for _, n := range nodes {
		want := 0
		if n == light || n.started.Peer == job.Origin {
			want = 1
		}
		if got := n.events.ended(id); got != want {
			t.Errorf("%s tells %d times that the job is done, want %d; its origin is %s", n.started.Peer, got, want, job.Origin)
		}
	}
	if job.Origin == light.started.Peer {
		t.Error("the light node is its origin")
	}
	if w, is := light.market.Work(); is {
		t.Errorf("the light node works: %+v", w)
	}
	again, err := c.Job(t.Context(), string(id)[:12])
	if err != nil || again.ID != string(id) || again.State != "done" {
		t.Errorf("asked again: %+v, %v", again, err)
	}
}

// TestSubmit runs a job from the node's own API over two nodes, with all that
// the API tells of it.
func TestSubmit(t *testing.T) {
	if testing.Short() {
		t.Skip("short: compiles Go programs in children of three nodes; go test ./... runs it")
	}
	t.Parallel()
	nodes := mesh(t, 2, func(_ int, c *Config) { working(t, c) })
	c := dial(t, nodes[0])
	spec := wordcount(t, c, verse)
	spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
	id, err := c.Submit(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	job := counted(t, c, id, verse)
	if job.Origin != nodes[0].started.Peer || job.Replicas != 2 || job.Tasks != 4 || job.Done != 4 || len(job.Workers) != 2 {
		t.Errorf("the job: %+v", job)
	}
	list, err := c.AllTasks(t.Context(), string(id))
	if err != nil || len(list) != 4 {
		t.Fatalf("tasks %+v, %v", list, err)
	}
	for i, task := range list {
		stage, index := "map", uint32(i)
		if i == 3 {
			stage, index = "reduce", 0
		}
		if task.Stage != stage || task.Index != index || len(task.Workers) != 2 || len(task.Attempts) < 2 || task.Output == "" {
			t.Errorf("task %d: %+v", i, task)
		}
	}
	page, total, err := c.Tasks(t.Context(), string(id), 2, 1)
	if err != nil || total != 4 || len(page) != 1 || page[0].Index != 2 {
		t.Errorf("page %+v of %d, %v", page, total, err)
	}
	waits, err := c.Why(t.Context(), string(id))
	if err != nil || len(waits) != 0 {
		t.Errorf("a job that is done waits for %v, %v", waits, err)
	}
	if err := c.Cancel(t.Context(), string(id)); err == nil {
		t.Error("a job that is done was cancelled")
	}
	// The result is kept for the job, whatever the collector does.
	if _, err := c.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	counted(t, c, id, verse)
}

func (e *events) ended(id tasks.JobID) (times int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.kept {
		if ev.Kind == api.EventJob && ev.State == "done" && ev.Job == string(id) {
			times++
		}
	}
	return times
}
