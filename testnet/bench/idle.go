package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/kith-mesh/kith/testnet"
)

// idlePeers is how many other nodes the measured one's mesh has. They are more
// than a node keeps links with, so not all stay connected with it.
const idlePeers = 20

// idleLinks is how many of them it is connected with at least when the measure
// begins: as many as it wants near neighbours.
const idleLinks = 12

var idle = Bench{
	Name: "idle", Short: fmt.Sprintf("what one node of %d costs while it has nothing to do, for 10 minutes", idlePeers+1),
	Cases: []string{"rss", "cpu", "bytes"},
	Run: func(ctx context.Context, o Options, emit func(Line)) error {
		return runIdle(ctx, o, idlePeers, emit)
	},
}

// usage is what a node has used up to now, from its own metrics.
type usage struct {
	at      time.Time
	cpu     float64 // seconds of CPU
	rss     float64 // bytes resident
	streams map[string]float64
}

func runIdle(ctx context.Context, o Options, peers int, emit func(Line)) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "kith-bench-")
	if err != nil {
		return fmt.Errorf("make the bench's folder: %w", err)
	}
	nodes, err := testnet.NewProcesses(dir, peers+1)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, testnet.StopAll(nodes), os.RemoveAll(dir)) }()
	o.say("starting %d nodes", len(nodes))
	starting, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := testnet.StartAll(starting, o.Exe, nodes, nil); err != nil {
		return err
	}
	if err := settled(starting, nodes[0], peers); err != nil {
		return err
	}
	long := o.For
	if long == 0 {
		long = 10 * time.Minute
	}
	o.say("it knows all others; %s of nothing to do begin", long)
	p := nodes[0]
	first, err := use(ctx, p)
	if err != nil {
		return err
	}
	last, rss := first, first.rss
	end := time.NewTimer(long)
	defer end.Stop()
	tick := time.NewTicker(min(30*time.Second, long/4))
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			done = true
		case <-tick.C:
		}
		if last, err = use(ctx, p); err != nil {
			return err
		}
		rss = max(rss, last.rss)
	}
	note := ""
	if long < 10*time.Minute {
		note = fmt.Sprintf("over %s, not 10 minutes", long)
	}
	took := last.at.Sub(first.at).Seconds()
	for _, l := range []Line{
		{Case: "rss", Value: rss / 1e6, Unit: "MB", Note: note},
		{Case: "cpu", Value: 100 * (last.cpu - first.cpu) / took, Unit: "% of a core", Note: note},
	} {
		l.Bench = "idle"
		if !o.Wants(l.Case) {
			continue
		}
		if l.Case == "rss" {
			l = l.ValueAtMost(80)
		} else {
			l = l.ValueAtMost(0.5)
		}
		emit(l)
	}
	if o.Wants("bytes") {
		emit(bytesLine(first, last, took, note))
	}
	return nil
}

// settled waits until a node knows where all peers stand and is connected with
// most.
func settled(ctx context.Context, p *testnet.Process, peers int) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := p.Client.Peers(ctx)
		if err != nil {
			return fmt.Errorf("peers of %s: %w", p.Name, err)
		}
		known, connected := 0, 0
		for _, q := range all {
			if q.RTTMs > 0 || q.PredictedMs > 0 {
				known++
			}
			if q.Connected {
				connected++
			}
		}
		if known >= peers && connected >= min(peers, idleLinks) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s knows where %d of %d peers stand and is connected with %d: %w", p.Name, known, peers, connected, ctx.Err())
		case <-tick.C:
		}
	}
}

// use reads a node's own metrics.
func use(ctx context.Context, p *testnet.Process) (usage, error) {
	u := usage{at: time.Now(), streams: map[string]float64{}}
	families, err := p.Client.Metrics(ctx)
	if err != nil {
		return u, err
	}
	one := func(name string) (float64, error) {
		f := families[name]
		if f == nil || len(f.Metric) != 1 {
			return 0, fmt.Errorf("the node's metrics have no %s: this system does not tell it", name)
		}
		return f.Metric[0].GetCounter().GetValue() + f.Metric[0].GetGauge().GetValue(), nil
	}
	if u.cpu, err = one("process_cpu_seconds_total"); err != nil {
		return u, err
	}
	if u.rss, err = one("process_resident_memory_bytes"); err != nil {
		return u, err
	}
	f := families["kith_p2p_stream_bytes_total"]
	if f == nil {
		return u, errors.New("the node's metrics have no kith_p2p_stream_bytes_total")
	}
	for _, m := range f.Metric {
		u.streams[label(m, "protocol")] += m.GetCounter().GetValue()
	}
	return u, nil
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// bytesLine says what went over streams, both ways together, and of what.
func bytesLine(first, last usage, seconds float64, note string) Line {
	type part struct {
		name string
		n    float64
	}
	var parts []part
	var sum float64
	for name, n := range last.streams {
		n = (n - first.streams[name]) * 3600 / seconds
		sum += n
		if n > 0 {
			parts = append(parts, part{name, n})
		}
	}
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(a.name, b.name))
	})
	var said []string
	for _, p := range parts {
		said = append(said, fmt.Sprintf("%s %.0f", p.name, p.n))
	}
	if note != "" {
		note += "; "
	}
	note += "by protocol, in and out, without TLS and TCP: " + strings.Join(said, ", ")
	return Line{Bench: "idle", Case: "bytes", Value: sum, Unit: "B/hour", Note: note}
}
