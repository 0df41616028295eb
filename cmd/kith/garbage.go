package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A node at rest lives in little memory, and so one that works collects its
// garbage many times a second: a fifth of its CPU. While it does, it may leave
// busyGarbage bytes between two collections.
const (
	garbageEvery = 500 * time.Millisecond
	busyCycles   = 2  // in garbageEvery
	restAfter    = 10 // times garbageEvery without a collection
	busyGarbage  = 64 << 20
	restPercent  = 100 // Go's own
	mostPercent  = 400
)

// paceCollector adapts how often garbage is collected until ctx ends. GOGC in the
// environment is left alone.
func paceCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(garbageEvery)
	defer tick.Stop()
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	before, percent, quiet := samples[0].Value.Uint64(), restPercent, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(samples)
		now := samples[0].Value.Uint64()
		if quiet++; now > before {
			quiet = 0
		}
		if next := collectAt(percent, now-before, quiet, samples[1].Value.Uint64()); next != percent {
			debug.SetGCPercent(next)
			percent = next
		}
		before = now
	}
}

// collectAt is the growth, in percent of what lives, after which to collect, from
// the one now, the collections in the last garbageEvery, how many of those had none
// since the last one, and the live bytes.
func collectAt(percent int, cycles uint64, quiet int, live uint64) int {
	if cycles < busyCycles && (percent == restPercent || quiet >= restAfter) {
		return restPercent
	}
	return int(min(max(busyGarbage*100/max(live, 1), restPercent), mostPercent))
}
