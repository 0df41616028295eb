package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Server is made of.
type Config struct {
	Backend Backend
	// Token is the bearer token, at least 16 bytes.
	Token string
	// Listen is the host:port to listen on. Default 127.0.0.1:7770.
	Listen string
	// Hosts are further names, without ports, that a Host header may carry.
	Hosts []string
	// Version stands in the OpenAPI document.
	Version string
	// Gatherer feeds /metrics; nil: the route answers 501.
	Gatherer prometheus.Gatherer
	// Registerer takes the API's own metrics; nil: none are kept.
	Registerer prometheus.Registerer
	Log        *slog.Logger // default: slog.Default()

	MaxRequests    int           // at once. Default 256
	MaxSubscribers int           // of events, at once. Default 64
	Heartbeat      time.Duration // between comments on an idle event stream. Default 15 s
	Stall          time.Duration // a body that moves no byte for so long ends its request. Default 1 min
	Drain          time.Duration // what requests get to end when the server stops. Default 5 s
}

func (c Config) fill() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7770"
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.MaxRequests == 0 {
		c.MaxRequests = 256
	}
	if c.MaxSubscribers == 0 {
		c.MaxSubscribers = 64
	}
	for _, d := range []struct {
		p   *time.Duration
		def time.Duration
	}{{&c.Heartbeat, 15 * time.Second}, {&c.Stall, time.Minute}, {&c.Drain, 5 * time.Second}} {
		if *d.p == 0 {
			*d.p = d.def
		}
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	if c.Backend.Node == nil {
		faults = append(faults, errors.New("backend: Node is required"))
	}
	if len(c.Token) < 16 {
		faults = append(faults, fmt.Errorf("token: %d bytes: want at least 16", len(c.Token)))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("listen: %q is not host:port such as 127.0.0.1:7770: %w", c.Listen, err))
	}
	if c.MaxRequests < 1 || c.MaxSubscribers < 1 || c.Heartbeat < 0 || c.Stall < 0 || c.Drain < 0 {
		faults = append(faults, errors.New("limits: want more than 0"))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("api: config not valid:\n%w", err)
	}
	return nil
}

// Server is the local API of one node.
type Server struct {
	cfg         Config
	token       [sha256.Size]byte
	hosts       hosts
	huma        huma.API
	mux         *http.ServeMux
	handler     http.Handler
	metrics     *metrics
	slots       chan struct{} // one for each request in work
	subscribers chan struct{} // one for each event stream
	stopping    chan struct{} // closed by Run: streams that never end by themselves do
	handlers    sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener
}

// problems makes huma's own refusals ours. huma keeps the hook in a variable of
// its package, and no other package of ours uses huma.
var problems sync.Once

// New returns a server that does nothing yet.
func New(cfg Config) (*Server, error) {
	cfg = cfg.fill()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	problems.Do(func() { huma.NewError = newHumaError })
	s := &Server{
		cfg: cfg, token: sha256.Sum256([]byte(cfg.Token)), hosts: newHosts(cfg.Listen, cfg.Hosts),
		mux: http.NewServeMux(), metrics: newMetrics(cfg.Registerer),
		slots:       make(chan struct{}, cfg.MaxRequests),
		subscribers: make(chan struct{}, cfg.MaxSubscribers),
		stopping:    make(chan struct{}),
	}
	s.huma = humago.New(s.mux, openAPIConfig(cfg.Version))
	s.nodeRoutes()
	s.dataRoutes()
	s.pinRoutes()
	s.jobRoutes()
	s.eventRoutes()
	s.opsRoutes()
	s.mux.HandleFunc("/", s.noRoute)
	s.handler = s.guard(s.mux)
	return s, nil
}

// noRoute answers what no route took: 405 where the path has another method.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	const hint = "GET /openapi.json lists every route"
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := s.mux.Handler(other); pattern != "/" && pattern != "" {
			allow = append(allow, m)
		}
	}
	if len(allow) == 0 {
		writeError(w, NotFound(hint, "no route %s %s", r.Method, r.URL.Path))
		return
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	writeError(w, NewError(http.StatusMethodNotAllowed, ReasonInvalid, hint, "%s takes %s, not %s", r.URL.Path, strings.Join(allow, " or "), r.Method))
}

// Handler serves the API without a listener, for tests and embedding.
func (s *Server) Handler() http.Handler { return s.handler }

// OpenAPI is the document that /openapi.json serves.
func (s *Server) OpenAPI() ([]byte, error) { return openAPIJSON(s.huma.OpenAPI()) }

// Listen binds the address, once, and returns it. Run calls it if nobody has.
func (s *Server) Listen() (net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		l, err := net.Listen("tcp", s.cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("api: listen on %s: %w: choose another address with --api-listen", s.cfg.Listen, err)
		}
		s.listener = l
	}
	return s.listener.Addr(), nil
}

// Run serves until ctx ends, lets requests in work finish for the drain time,
// and returns when every handler has returned. It can run once.
func (s *Server) Run(ctx context.Context) error {
	if _, err := s.Listen(); err != nil {
		return err
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.listener) }()
	select {
	case err := <-served:
		close(s.stopping)
		cancel()
		s.handlers.Wait()
		return fmt.Errorf("api: serve: %w", err)
	case <-ctx.Done():
	}
	close(s.stopping)
	drain, stop := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer stop()
	err := srv.Shutdown(drain)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close() // cuts what did not end in time
	}
	<-served
	s.handlers.Wait()
	if err != nil {
		return fmt.Errorf("api: shut down: %w", err)
	}
	return nil
}
