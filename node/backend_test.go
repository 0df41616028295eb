package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
)

// dial is a client of the node's API.
func dial(t testing.TB, n *running) *client.Client {
	t.Helper()
	token, err := n.cfg.Home.LoadAPIToken()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(n.started.API, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestErrorsHaveTheirPlace: each fault of a part is a problem of its kind.
func TestErrorsHaveTheirPlace(t *testing.T) {
	t.Parallel()
	plain := errors.New("disk on fire")
	spec := &tasks.SpecError{}
	for _, c := range []struct {
		of     func(error) error
		err    error
		status int // 0: passed on as it is
	}{
		{dataError, storage.ErrSpan, 416},
		{dataError, storage.ErrIsDir, 422},
		{dataError, storage.ErrNotDir, 404},
		{dataError, storage.ErrFull, 507},
		{dataError, storage.ErrNoPath, 404},
		{dataError, state.ErrFull, 507},
		{jobError, &market.FullError{Err: plain}, 507},
		{jobError, storage.ErrFull, 507},
		{dataError, storage.ErrNotFound, 404},
		{dataError, storage.ErrIncomplete, 404},
		{dataError, transfer.ErrUnavailable, 404},
		{dataError, storage.ErrNode, 422},
		{dataError, storage.ErrEscape, 422},
		{dataError, context.DeadlineExceeded, 503},
		{dataError, plain, 0},
		{jobError, market.ErrNoJob, 404},
		{jobError, market.ErrStalled, 503},
		{jobError, spec, 422},
		{jobError, &market.BusyError{RetryAfter: 3 * time.Second}, 429},
		{jobError, plain, 0},
	} {
		err := c.of(fmt.Errorf("wrapped: %w", c.err))
		var known *api.Error
		if is := errors.As(err, &known); is != (c.status != 0) || is && known.Status != c.status {
			t.Errorf("%v: %#v, want status %d", c.err, err, c.status)
		}
		if c.status == 429 && known.RetryAfter != 3 {
			t.Errorf("busy: %+v", known)
		}
		if c.of(nil) != nil {
			t.Error("no error became one")
		}
		if known != nil && c.of(err) != error(known) {
			t.Errorf("%v: a problem was made anew", c.err)
		}
	}
}

// TestAPIRefusals asks a real node over HTTP for what it has not.
func TestAPIRefusals(t *testing.T) {
	t.Parallel()
	cfg := founder(t)
	cfg.Light = true
	n := start(t, cfg)
	c := dial(t, n)
	ctx := t.Context()
	root, err := c.AddFile(ctx, strings.NewReader("text"), 4, api.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	here := tasks.CID(root.CID)
	spec := tasks.Spec{Program: here, Tasks: 1}
	for _, q := range []struct {
		name   string
		status int
		ask    func() error
	}{
		{"a job that is not", 404, func() error { _, err := c.Job(ctx, strings.Repeat("a", 52)); return err }},
		{"no CID", 422, func() error { _, err := c.Fetch(ctx, api.Content{Root: "nonsense"}, nil); return err }},
		{"a path that is not", 404, func() error { _, err := c.Fetch(ctx, api.Content{Root: here, Path: "x"}, nil); return err }},
		{"what nobody has", 404, func() error { _, err := c.Fetch(ctx, api.Content{Root: sum(t, "nobody")}, nil); return err }},
		{"a span past the end", 416, func() error {
			r, err := c.Cat(ctx, here, "", 10, 1)
			if err == nil {
				err = r.Close()
			}
			return err
		}},
		{"a pin that is not", 404, func() error { return c.Unpin(ctx, sum(t, "nobody")) }},
		{"a job for a light node", 403, func() error { _, err := c.Submit(ctx, spec); return err }},
		{"a program that is no CID", 422, func() error {
			_, err := c.Publish(ctx, tasks.Spec{Program: "x", Tasks: 1}, api.PublishOptions{})
			return err
		}},
		{"a spec with faults", 422, func() error {
			bad := spec
			bad.Verify.Replicas = 1 << 20
			_, err := c.Publish(ctx, bad, api.PublishOptions{})
			return err
		}},
		{"an invite that is not", 404, func() error { return c.RevokeInvite(ctx, "nonesuch") }},
		{"a pause of a year", 422, func() error { _, err := c.Pause(ctx, 365*24*time.Hour); return err }},
	} {
		err := q.ask()
		var known *api.Error
		if !errors.As(err, &known) || known.Status != q.status {
			t.Errorf("%s: %v, want status %d", q.name, err, q.status)
		}
	}
	st, err := c.Status(ctx)
	if err != nil || !st.Ready || !st.Light || st.API != n.started.API || st.Store.Pinned != 1 {
		t.Errorf("status %+v, %v", st, err)
	}
	r, err := c.Cat(ctx, here, "", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(b) != "ex" {
		t.Errorf("read %q, %v", b, err)
	}
}

// TestStop ends a node through its API.
func TestStop(t *testing.T) {
	t.Parallel()
	n := start(t, founder(t))
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-n.ended; err != nil {
		t.Error(err)
	}
	n.ended <- nil
	if n.cfg.Home.inUse() {
		t.Error("the home is held")
	}
	if _, err := n.cfg.Home.ReadAPIAddress(); err == nil {
		t.Error("the home says where an API is")
	}
}

// TestPortsInUse: what is taken is named, and all that had started stops.
func TestPortsInUse(t *testing.T) {
	t.Parallel()
	at := taken(t).String()
	for name, change := range map[string]func(*Config){
		at: func(c *Config) { c.APIListen = at },
		"/ip4/127.0.0.1/tcp/": func(c *Config) {
			_, port, _ := strings.Cut(at, ":")
			c.Listen = []string{"/ip4/127.0.0.1/tcp/" + port}
		},
	} {
		cfg := founder(t)
		change(&cfg)
		n, err := New(t.Context(), cfg)
		if err == nil {
			err = n.Run(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q in it", err, name)
		}
		if cfg.Home.inUse() {
			t.Error("the home is held")
		}
	}
}

// TestFetchAwaitsKnownMembers: just after the start, who has the content may not
// be connected yet.
func TestFetchAwaitsKnownMembers(t *testing.T) {
	t.Parallel()
	n := start(t, founder(t))
	data := &dataBackend{store: n.store, transfer: n.transfer, scratch: t.TempDir(), now: time.Now}
	text := []byte("comes later")
	sum, err := storage.Sum(t.Context(), strings.NewReader(string(text)), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	data.settling = func() bool {
		if asked++; asked < 2 {
			return true
		}
		if _, err := n.store.AddBytes(t.Context(), text, storage.AddOptions{ChunkSize: 1 << 20}); err != nil {
			t.Error(err)
		}
		return false
	}
	r, err := data.Open(t.Context(), api.Content{Root: tasks.CID(sum.CID.String())}, 0, -1)
	if err != nil || asked != 2 {
		t.Fatalf("%v after asking %d times", err, asked)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != string(text) {
		t.Errorf("%q, %v", got, err)
	}
	if n.settling() {
		t.Error("a node that knows nobody waits for somebody")
	}
}

// TestFolderPastTheLimit: a folder that could never be stored is not taken in,
// and nothing of it stays.
func TestFolderPastTheLimit(t *testing.T) {
	t.Parallel()
	cfg := founder(t)
	if err := cfg.Policy.Disk.Set("64MiB"); err != nil {
		t.Fatal(err)
	}
	n := start(t, cfg)
	scratch := t.TempDir()
	data := &dataBackend{store: n.store, transfer: n.transfer, scratch: scratch, now: time.Now}
	var taken int64
	zeros := readerFunc(func(b []byte) (int, error) { // one chunk: stored, it would fit
		taken += int64(len(b))
		return copy(b, make([]byte, len(b))), nil
	})
	names := []string{"a", "b"}
	_, err := data.AddFolder(t.Context(), func() (api.File, error) {
		if len(names) == 0 {
			return api.File{}, io.EOF
		}
		f := api.File{Path: names[0], Size: 40 << 20, Body: io.LimitReader(zeros, 40<<20)}
		names = names[1:]
		return f, nil
	}, api.AddOptions{})
	if err == nil || !strings.Contains(err.Error(), "larger than the limit of 67108864 bytes") {
		t.Fatalf("took it: %v", err)
	}
	if taken > 65<<20 {
		t.Errorf("%d bytes were read", taken)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
