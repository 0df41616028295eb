package market

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kith-mesh/kith/tasks"
)

// metrics are what a node counts of its market. Labels are bounded: never a
// peer or a job.
type metrics struct {
	jobsSubmitted   prometheus.Counter
	jobsFinished    *prometheus.CounterVec
	tasksGranted    prometheus.Counter
	tasksDecided    prometheus.Counter
	verdictsGiven   prometheus.Counter
	tasksRun        *prometheus.CounterVec
	runSeconds      prometheus.Histogram
	messages        *prometheus.CounterVec
	inHand, working prometheus.GaugeFunc
}

func newMetrics(reg prometheus.Registerer, s *Service) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kith", Subsystem: "market", Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kith", Subsystem: "market", Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string, f func() float64) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "kith", Subsystem: "market", Name: name, Help: help}, f)
	}
	m := &metrics{
		jobsSubmitted: counter("jobs_submitted_total", "Jobs submitted to this node."),
		jobsFinished:  vec("jobs_finished_total", "Jobs of this node that are over, by state.", "state"),
		tasksGranted:  counter("tasks_leased_total", "Assignments that this node leased to workers."),
		tasksDecided:  counter("tasks_decided_total", "Tasks that this node decided."),
		verdictsGiven: counter("verdicts_total", "Verdicts with a decision."),
		tasksRun:      vec("tasks_run_total", "Tasks run on this node, by outcome.", "outcome"),
		runSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "kith", Subsystem: "market", Name: "run_seconds",
			Help: "Wall time of a task on this node.", Buckets: prometheus.ExponentialBuckets(0.005, 4, 10)}),
		messages: vec("messages_sent_total", "Messages to other peers, by kind.", "kind"),
		inHand: gauge("jobs_in_hand", "Jobs that this node is the origin of and that are not over.", func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(len(s.desks))
		}),
		working: gauge("tasks_running", "Tasks that run on this node now.", func() float64 {
			w, _ := s.Work()
			return float64(w.Running)
		}),
	}
	if reg != nil {
		reg.MustRegister(m.jobsSubmitted, m.jobsFinished, m.tasksGranted, m.tasksDecided, m.verdictsGiven, m.tasksRun, m.runSeconds, m.messages, m.inHand, m.working)
	}
	return m
}

func (m *metrics) submitted()           { m.jobsSubmitted.Inc() }
func (m *metrics) granted(n int)        { m.tasksGranted.Add(float64(n)) }
func (m *metrics) sent(kind string)     { m.messages.WithLabelValues(kind).Inc() }
func (m *metrics) decided(verdicts int) { m.tasksDecided.Inc(); m.verdictsGiven.Add(float64(verdicts)) }
func (m *metrics) finished(s tasks.State) {
	m.jobsFinished.WithLabelValues(map[tasks.State]string{tasks.Done: "done", tasks.Failed: "failed", tasks.Cancelled: "cancelled"}[s]).Inc()
}

func (m *metrics) ran(o tasks.Outcome) {
	outcome := "ok"
	switch {
	case o.Reason == tasks.OK:
	case o.Reason < 100:
		outcome = "program"
	default:
		outcome = "worker"
	}
	m.tasksRun.WithLabelValues(outcome).Inc()
	m.runSeconds.Observe(o.Usage.Wall.Seconds())
}
