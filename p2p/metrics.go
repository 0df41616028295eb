package p2p

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// hostMetrics are the host's own. Labels are protocol names and refusal codes, which our
// own program bounds; never a peer.
type hostMetrics struct {
	reg       prometheus.Registerer
	mine      []prometheus.Collector
	hellos    *prometheus.CounterVec
	served_   *prometheus.CounterVec
	servedFor *prometheus.HistogramVec
	called_   *prometheus.CounterVec
	calledFor *prometheus.HistogramVec
	faults    *prometheus.CounterVec
	away      prometheus.Counter
	closed    prometheus.Counter
	gated     prometheus.Counter
	traffic   *traffic
}

// newMetrics makes and registers the host's metrics; nil does nothing, which
// costs a simulated node nothing.
func newMetrics(reg prometheus.Registerer, h *Host) *hostMetrics {
	if reg == nil {
		return nil
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kith", Subsystem: "p2p", Name: name, Help: help}, labels)
	}
	one := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kith", Subsystem: "p2p", Name: name, Help: help})
	}
	hist := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "kith", Subsystem: "p2p", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, []string{"protocol"})
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "kith", Subsystem: "p2p", Name: name, Help: help}, f)
	}
	m := &hostMetrics{
		reg:       reg,
		hellos:    vec("hellos_total", "Hellos exchanged, by result.", "result"),
		served_:   vec("requests_served_total", "Requests and streams served, by refusal code (0: answered).", "protocol", "code"),
		servedFor: hist("request_serve_seconds", "Time to serve a request or stream."),
		called_:   vec("calls_total", "Requests of our own, by result.", "protocol", "result"),
		calledFor: hist("call_seconds", "Time until our own requests were answered."),
		faults:    vec("peer_faults_total", "Malformed or oversized frames from peers.", "protocol"),
		away:      one("strangers_turned_away_total", "Connections closed because all stranger slots were taken."),
		closed:    one("strangers_closed_total", "Peers closed because they did not become members in time."),
		gated:     one("gated_streams_total", "Streams reset because their peer was no member."),
		traffic:   newTraffic("/kith/" + h.cfg.Mesh.Prefix() + "/"),
	}
	m.mine = []prometheus.Collector{
		m.hellos, m.served_, m.servedFor, m.called_, m.calledFor, m.faults, m.away, m.closed, m.gated, m.traffic,
		gauge("members", "Connected members.", func() float64 { members, _ := h.gate.count(); return float64(members) }),
		gauge("strangers", "Connected peers that are not members.", func() float64 { _, strangers := h.gate.count(); return float64(strangers) }),
		gauge("known_peers", "Peers of whom a signed record is held.", func() float64 { return float64(h.book.size()) }),
		gauge("call_streams", "Kept-open request streams of our own.", func() float64 { return float64(h.caller.size()) }),
	}
	for i, c := range m.mine {
		if err := reg.Register(c); err != nil {
			h.log.Warn("metric not registered", "err", err)
			m.mine[i] = nil
		}
	}
	return m
}

func (m *hostMetrics) close() {
	if m == nil {
		return
	}
	for _, c := range m.mine {
		if c != nil {
			m.reg.Unregister(c)
		}
	}
}

func (m *hostMetrics) hello(result string) {
	if m != nil {
		m.hellos.WithLabelValues(result).Inc()
	}
}

func (m *hostMetrics) served(p Protocol, code Code, took time.Duration) {
	if m == nil {
		return
	}
	if code >= 10000 {
		code = CodeInternal
	}
	m.served_.WithLabelValues(p.Name, strconv.Itoa(int(code))).Inc()
	m.servedFor.WithLabelValues(p.Name).Observe(took.Seconds())
}

func (m *hostMetrics) called(p Protocol, err error, took time.Duration) {
	if m == nil {
		return
	}
	result := "ok"
	if r := new(Refusal); errors.As(err, &r) {
		result = "refused"
	} else if err != nil {
		result = "failed"
	}
	m.called_.WithLabelValues(p.Name, result).Inc()
	m.calledFor.WithLabelValues(p.Name).Observe(took.Seconds())
}

func (m *hostMetrics) misbehaved(p Protocol) {
	if m != nil {
		m.faults.WithLabelValues(p.Name).Inc()
	}
}

func (m *hostMetrics) turnedAway() {
	if m != nil {
		m.away.Inc()
	}
}

func (m *hostMetrics) strangerClosed() {
	if m != nil {
		m.closed.Inc()
	}
}

func (m *hostMetrics) gateClosed() {
	if m != nil {
		m.gated.Inc()
	}
}

// count is the number of connected members and others.
func (g *gate) count() (members, strangers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
		if p.member {
			members++
		} else {
			strangers++
		}
	}
	return members, strangers
}

func (b *book) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.peers)
}

func (c *caller) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pipes)
}
