package api_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/internal/memory"
)

func authorized(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// breaking fails every read after 100 KiB.
type breaking struct {
	api.Data
	n *memory.Node
}

func (b breaking) Stat(ctx context.Context, c api.Content) (api.Entry, error) {
	return b.n.Stat(ctx, c)
}
func (b breaking) Walk(ctx context.Context, c api.Content, rec bool, f func(api.Entry) error) error {
	return b.n.Walk(ctx, c, rec, f)
}
func (b breaking) Open(ctx context.Context, c api.Content, off, n int64) (io.ReadCloser, error) {
	r, err := b.n.Open(ctx, c, off, n)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, 100<<10), broken{})), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// pipeWriter is a ResponseWriter whose body a test reads as it comes.
type pipeWriter struct {
	*io.PipeWriter
	header http.Header
}

func (p pipeWriter) Header() http.Header { return p.header }
func (p pipeWriter) WriteHeader(int)     {}
func (p pipeWriter) Flush()              {}

func TestEventStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := newServer(t, func(c *api.Config) { c.Heartbeat = 10 * time.Second })
		n.Emit(api.Event{Kind: api.EventPeer, Peer: "A", State: "joined"})
		n.Emit(api.Event{Kind: api.EventJob, Job: "j1", State: "running"})
		ctx, cancel := context.WithCancel(t.Context())
		r := httptest.NewRequest("GET", "http://localhost/api/v1/events?job=j1", nil).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Last-Event-ID", "1")
		pr, pw := io.Pipe()
		done := make(chan struct{})
		go func() {
			s.Handler().ServeHTTP(pipeWriter{pw, http.Header{}}, r)
			pw.Close()
			close(done)
		}()
		lines := bufio.NewReader(pr)
		read := func(want ...string) {
			t.Helper()
			for _, w := range want {
				line, err := lines.ReadString('\n')
				if err != nil || !strings.HasPrefix(line, w) {
					t.Fatalf("line %q, %v; want %q", line, err, w)
				}
			}
		}
		read(": kith", "\n", "id: 2", "event: job", `data: {"id":2,`, "\n")
		n.Emit(api.Event{Kind: api.EventTask, Job: "j2", State: "leased"})
		n.Emit(api.Event{Kind: api.EventTask, Job: "j1", State: "decided"})
		read("id: 4", "event: task", "data: ", "\n")
		start := time.Now()
		read(": alive", "\n")
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("heartbeat after %v", got)
		}
		n.Emit(api.Event{Kind: api.EventLost})
		read("id: 5", "event: lost", "data: ", "\n")
		cancel()
		<-done
	})
}

func TestSubscribersAreBounded(t *testing.T) {
	s, _ := newServer(t, func(c *api.Config) { c.MaxSubscribers = 1 })
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	first, err := srv.Client().Do(authorized(t, srv.URL+"/api/v1/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	if _, err := bufio.NewReader(first.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	second, err := srv.Client().Do(authorized(t, srv.URL+"/api/v1/events"))
	if err != nil {
		t.Fatal(err)
	}
	second.Body.Close()
	if second.StatusCode != 429 || second.Header.Get("Retry-After") == "" {
		t.Errorf("second stream: %s", second.Status)
	}
}
