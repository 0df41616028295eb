package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// hosts are the names that a Host header may carry. A page of another site can
// point its own name at this address (DNS rebinding), but then sends its name.
type hosts struct {
	names map[string]bool
	anyIP bool // listening on every interface: literal addresses are nobody's trick
}

func newHosts(listen string, more []string) hosts {
	h := hosts{names: map[string]bool{"localhost": true}}
	host, _, _ := net.SplitHostPort(listen) // Config.validate has split it
	if ip, err := netip.ParseAddr(host); host == "" || (err == nil && ip.IsUnspecified()) {
		h.anyIP = true
	} else {
		h.names[strings.ToLower(host)] = true
	}
	for _, m := range more {
		h.names[strings.ToLower(m)] = true
	}
	return h
}

func (h hosts) allow(header string) bool {
	host := header
	if name, _, err := net.SplitHostPort(header); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if h.names[host] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (h.anyIP || ip.IsLoopback())
}

// open are the routes that need no token: they tell nothing but life.
var open = map[string]bool{"/healthz": true, "/readyz": true}

// guard stands before every route: Host, token, a bound on requests at once,
// and deadlines that move with the bodies.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Done()
		start := time.Now()
		body := &meter{ResponseWriter: w, ctl: http.NewResponseController(w), stall: s.cfg.Stall, start: start}
		defer func() { s.metrics.observe(r, body.status, time.Since(start)) }()
		w = body
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if !s.hosts.allow(r.Host) {
			writeError(w, NewError(http.StatusForbidden, ReasonHost,
				"use 127.0.0.1 or localhost, or name the host with --api-host",
				"host %q is not a name of this API", r.Host))
			return
		}
		if !open[r.URL.Path] && !s.authorized(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="kith"`)
			writeError(w, NewError(http.StatusUnauthorized, ReasonUnauthorized,
				"send 'Authorization: Bearer TOKEN'; 'kith token' prints the token",
				"%s %s needs this node's token", r.Method, r.URL.Path))
			return
		}
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			writeError(w, Busy(0, time.Second, "%d requests are in work already", cap(s.slots)))
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &stallReader{ReadCloser: r.Body, meter: body}
		}
		next.ServeHTTP(w, r)
	})
}

// authorized compares hashes, so that neither length nor content leaks by time.
func (s *Server) authorized(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	same := subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
	return ok && strings.EqualFold(scheme, "bearer") && same
}

// meter notes the status and moves the write deadline with every write.
type meter struct {
	http.ResponseWriter
	ctl    *http.ResponseController
	stall  time.Duration
	start  time.Time
	status int
}

func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

func (m *meter) WriteHeader(status int) {
	if m.status == 0 {
		m.status = status
	}
	m.ResponseWriter.WriteHeader(status)
}

func (m *meter) Write(b []byte) (int, error) {
	if m.status == 0 {
		m.status = http.StatusOK
	}
	// A writer without deadlines (a test's recorder) has nothing that stalls.
	if err := m.ctl.SetWriteDeadline(time.Now().Add(m.stall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return m.ResponseWriter.Write(b)
}

// stallReader moves the read deadline with every read of a body, and lifts it
// when the body ends: net/http reads on in the background to notice a client
// that goes away, and must not take our deadline for one.
type stallReader struct {
	io.ReadCloser
	meter *meter
}

func (s *stallReader) Read(b []byte) (int, error) {
	if err := s.deadline(time.Now().Add(s.meter.stall)); err != nil {
		return 0, err
	}
	n, err := s.ReadCloser.Read(b)
	if err != nil {
		if e := s.deadline(time.Time{}); e != nil {
			return n, errors.Join(err, e)
		}
	}
	return n, err
}

func (s *stallReader) deadline(t time.Time) error {
	if err := s.meter.ctl.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// writeError answers with a problem, if nothing was written yet.
func writeError(w http.ResponseWriter, err error) {
	e := problem(err)
	for k, v := range e.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Del("Content-Length")
	w.WriteHeader(e.Status)
	if err := json.NewEncoder(w).Encode(e); err != nil {
		return // the client has gone; nobody is left to tell
	}
}
