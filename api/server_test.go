package api_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/internal/memory"
)

const token = "0123456789abcdef-test"

func newServer(t *testing.T, change func(*api.Config)) (*api.Server, *memory.Node) {
	t.Helper()
	n := memory.New()
	cfg := api.Config{Backend: n.Backend(), Token: token, Listen: "127.0.0.1:0", Version: "test", Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	s, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, n
}

// ask sends one request to a handler; header lines are "Name: value".
func ask(t *testing.T, h http.Handler, method, target string, body io.Reader, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1"+target, body)
	r.Header.Set("Authorization", "Bearer "+token)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "Host":
			r.Host = value
		case "-Authorization":
			r.Header.Del("Authorization")
		default:
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func problemOf(t *testing.T, w *httptest.ResponseRecorder) api.Error {
	t.Helper()
	var e api.Error
	if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q, body %s", ct, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if e.Status != w.Code || e.Title == "" || e.Detail == "" || e.Reason == "" {
		t.Errorf("problem lacks a field: %+v", e)
	}
	return e
}

func TestGuard(t *testing.T) {
	for _, tt := range []struct {
		name, listen, path string
		method             string // GET
		hosts              []string
		header             []string
		status             int
		reason             string
	}{
		{name: "token", path: "/api/v1/status", status: 200},
		{name: "scheme in any case", path: "/api/v1/status", header: []string{"Authorization: bearer " + token}, status: 200},
		{name: "no token", path: "/api/v1/status", header: []string{"-Authorization: "}, status: 401, reason: "unauthorized"},
		{name: "wrong token", path: "/api/v1/status", header: []string{"Authorization: Bearer " + token + "x"}, status: 401, reason: "unauthorized"},
		{name: "empty token", path: "/api/v1/status", header: []string{"Authorization: Bearer "}, status: 401, reason: "unauthorized"},
		{name: "basic", path: "/api/v1/status", header: []string{"Authorization: Basic " + token}, status: 401, reason: "unauthorized"},
		{name: "token alone", path: "/api/v1/status", header: []string{"Authorization: " + token}, status: 401, reason: "unauthorized"},
		{name: "unknown route needs the token", path: "/nope", header: []string{"-Authorization: "}, status: 401, reason: "unauthorized"},
		{name: "unknown route", path: "/nope", status: 404, reason: "not-found"},
		{name: "wrong method", method: "DELETE", path: "/api/v1/jobs", status: 405, reason: "invalid"},
		{name: "document needs the token", path: "/openapi.json", header: []string{"-Authorization: "}, status: 401, reason: "unauthorized"},
		{name: "metrics need the token", path: "/metrics", header: []string{"-Authorization: "}, status: 401, reason: "unauthorized"},
		{name: "health needs none", path: "/healthz", header: []string{"-Authorization: "}, status: 200},
		{name: "readiness needs none", path: "/readyz", header: []string{"-Authorization: "}, status: 200},
		{name: "localhost", path: "/healthz", header: []string{"Host: localhost:7770"}, status: 200},
		{name: "upper case", path: "/healthz", header: []string{"Host: LOCALHOST:1"}, status: 200},
		{name: "IPv6 loopback", path: "/healthz", header: []string{"Host: [::1]:7770"}, status: 200},
		{name: "rebound name", path: "/healthz", header: []string{"Host: evil.example:7770"}, status: 403, reason: "bad-host"},
		{name: "name that begins right", path: "/healthz", header: []string{"Host: localhost.evil.example"}, status: 403, reason: "bad-host"},
		{name: "other address", path: "/healthz", header: []string{"Host: 192.168.1.5:7770"}, status: 403, reason: "bad-host"},
		{name: "address listened on", listen: "192.168.1.5:7770", path: "/healthz", header: []string{"Host: 192.168.1.5:7770"}, status: 200},
		{name: "name listened on", listen: "box:7770", path: "/healthz", header: []string{"Host: box:7770"}, status: 200},
		{name: "every interface takes addresses", listen: "0.0.0.0:7770", path: "/healthz", header: []string{"Host: 10.1.2.3:7770"}, status: 200},
		{name: "every interface takes no names", listen: ":7770", path: "/healthz", header: []string{"Host: evil.example"}, status: 403, reason: "bad-host"},
		{name: "name told", listen: ":7770", hosts: []string{"node1"}, path: "/healthz", header: []string{"Host: Node1:80"}, status: 200},
		{name: "unknown query", path: "/api/v1/jobs?nope=1", status: 422, reason: "invalid"},
		{name: "unknown query of a stream", path: "/api/v1/events?nope=1", status: 422, reason: "invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newServer(t, func(c *api.Config) {
				c.Hosts = tt.hosts
				if tt.listen != "" {
					c.Listen = tt.listen
				}
			})
			w := ask(t, s.Handler(), cmp.Or(tt.method, "GET"), tt.path, nil, tt.header...)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if tt.reason != "" {
				if e := problemOf(t, w); e.Reason != tt.reason || e.Hint == "" && e.Reason != "invalid" {
					t.Errorf("problem %+v, want reason %q and a hint", e, tt.reason)
				}
			}
			if w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Error("no nosniff")
			}
		})
	}
}

func TestConfigFaultsComeTogether(t *testing.T) {
	_, err := api.New(api.Config{Token: "short", Listen: "nowhere"})
	if err == nil {
		t.Fatal("want an error")
	}
	for _, want := range []string{"backend:", "token: 5 bytes", `listen: "nowhere"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	s, _ := newServer(t, nil)
	big := strings.Repeat("x", 100<<10)
	w := ask(t, s.Handler(), "POST", "/api/v1/invites", strings.NewReader(`{"name":"`+big+`"}`), "Content-Type: application/json")
	if e := problemOf(t, w); e.Reason != "too-large" {
		t.Errorf("invites: %+v", e)
	}
	w = ask(t, s.Handler(), "POST", "/api/v1/jobs", strings.NewReader("name: "+strings.Repeat("x", api.MaxSpec)), "Content-Type: application/yaml")
	if e := problemOf(t, w); e.Reason != "too-large" || e.Status != 413 {
		t.Errorf("jobs: %+v", e)
	}
}

// An ability that a node lacks is refused on each of its routes, never a panic.
func TestMissingAbilities(t *testing.T) {
	n := memory.New()
	s, err := api.New(api.Config{Backend: api.Backend{Node: n}, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	served := 0
	for _, r := range documented(t, s) {
		w := ask(t, s.Handler(), r.method, strings.NewReplacer("{cid}", string(memory.CIDOf(nil)), "{id}", "abcdefgh").Replace(r.path),
			strings.NewReader("{}"), "Content-Type: application/json")
		if w.Code == 200 {
			served++
			continue
		}
		if e := problemOf(t, w); e.Status != 501 || e.Reason != "not-served" {
			t.Errorf("%s %s: %+v", r.method, r.path, e)
		}
	}
	if served != 5 { // id, status, healthz, readyz, openapi.json
		t.Errorf("%d routes served", served)
	}
}

func TestBackendErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		reason string
		detail string
	}{
		{api.NotFound("look", "no %s", "x"), 404, "not-found", "no x"},
		{fmt.Errorf("while looking: %w", api.NotFound("look", "no x")), 404, "not-found", "while looking: no x"},
		{api.Busy(304, 1500*time.Millisecond, "full"), 429, "busy", "full"},
		{context.DeadlineExceeded, 504, "unavailable", ""},
		{errors.New("boom"), 500, "internal", "boom"},
	} {
		s, _ := newServer(t, func(c *api.Config) { c.Backend.Peers = failing{tt.err} })
		w := ask(t, s.Handler(), "GET", "/api/v1/peers", nil)
		e := problemOf(t, w)
		if e.Status != tt.status || e.Reason != tt.reason || (tt.detail != "" && e.Detail != tt.detail) {
			t.Errorf("%v: %+v", tt.err, e)
		}
		if tt.reason == "busy" && (w.Header().Get("Retry-After") != "2" || e.RetryAfter != 2 || e.Code != 304) {
			t.Errorf("busy: header %q, %+v", w.Header().Get("Retry-After"), e)
		}
	}
}

type failing struct{ err error }

func (f failing) Peers(context.Context) ([]api.Peer, error) { return nil, f.err }

func TestRequestsAtOnceAreBounded(t *testing.T) {
	block := make(chan struct{})
	in := make(chan struct{})
	s, _ := newServer(t, func(c *api.Config) {
		c.MaxRequests = 1
		c.Backend.Peers = waiting{in, block}
	})
	done := make(chan int, 1)
	go func() { done <- ask(t, s.Handler(), "GET", "/api/v1/peers", nil).Code }()
	<-in
	if e := problemOf(t, ask(t, s.Handler(), "GET", "/healthz", nil)); e.Reason != "busy" {
		t.Errorf("second request: %+v", e)
	}
	close(block)
	if code := <-done; code != 200 {
		t.Errorf("first request: %d", code)
	}
	if w := ask(t, s.Handler(), "GET", "/healthz", nil); w.Code != 200 {
		t.Errorf("third request: %d", w.Code)
	}
}

type waiting struct{ in, block chan struct{} }

func (w waiting) Peers(context.Context) ([]api.Peer, error) {
	close(w.in)
	<-w.block
	return nil, nil
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, _ := newServer(t, func(c *api.Config) { c.Gatherer, c.Registerer = reg, reg })
	ask(t, s.Handler(), "GET", "/api/v1/jobs/abcd", nil)
	ask(t, s.Handler(), "GET", "/made-up", nil)
	body := ask(t, s.Handler(), "GET", "/metrics", nil).Body.String()
	for _, want := range []string{
		`kith_api_requests_total{code="404",route="GET /api/v1/jobs/{id}"} 1`,
		`kith_api_requests_total{code="404",route="none"} 1`,
		"kith_api_request_seconds_count",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s:\n%s", want, body)
		}
	}
}

// Run ends event streams at once, lets a request in work finish, and returns.
func TestRunDrains(t *testing.T) {
	in, block := make(chan struct{}), make(chan struct{})
	s, _ := newServer(t, func(c *api.Config) { c.Backend.Peers = waiting{in, block} })
	addr, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	get := func(path string) *http.Response {
		r, err := http.NewRequest("GET", "http://"+addr.String()+path, nil)
		if err != nil {
			t.Error(err)
			return nil
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return nil
		}
		return resp
	}
	events := get("/api/v1/events")
	slow := make(chan *http.Response, 1)
	go func() { slow <- get("/api/v1/peers") }()
	<-in
	stop()
	b, err := io.ReadAll(events.Body)
	if err != nil || !bytes.HasPrefix(b, []byte(": kith")) {
		t.Errorf("event stream ended with %q, %v", b, err)
	}
	events.Body.Close()
	close(block)
	resp := <-slow
	if resp == nil || resp.StatusCode != 200 {
		t.Errorf("request in work: %+v", resp)
	} else {
		resp.Body.Close()
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}
