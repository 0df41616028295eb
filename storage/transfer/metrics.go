package transfer

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	served  prometheus.Counter
	fetched prometheus.Counter
	liars   prometheus.Counter
	moved   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kith", Subsystem: "transfer", Name: name, Help: help})
	}
	m := &metrics{
		served:  counter("served_bytes_total", "Bytes of blocks sent by the bulk protocol."),
		fetched: counter("fetched_bytes_total", "Bytes of verified blocks received."),
		liars:   counter("bad_blocks_total", "Blocks received that did not hash to their CID."),
		moved:   counter("moved_blocks_total", "Blocks asked of another peer because the first was slow, gone or wrong."),
	}
	if reg != nil {
		reg.MustRegister(m.served, m.fetched, m.liars, m.moved)
	}
	return m
}
