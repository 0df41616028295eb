package main

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/kith-mesh/kith/api/client"
)

// progress tells how far something is: a bar on a terminal, and elsewhere a
// line at most every two seconds.
type progress struct {
	a     *app
	label string
	bytes bool
	bar   *progressbar.ProgressBar
	last  time.Time
	told  string
}

// progress starts one. Nothing shows before the first report.
func (a *app) progress(label string, bytes bool) *progress {
	return &progress{a: a, label: label, bytes: bytes, last: time.Now()}
}

func (p *progress) silent() bool { return p.a.quiet || p.a.json }

// report says that done of total is there; total 0 is not known.
func (p *progress) report(done, total int64) { p.reportMore(done, total, "") }

func (p *progress) reportMore(done, total int64, more string) {
	if p.silent() {
		return
	}
	if p.a.terminal {
		p.draw(done, total, more)
		return
	}
	line := fmt.Sprintf("%s: %s", p.label, p.amount(done))
	if total > 0 {
		line += fmt.Sprintf(" of %s (%d%%)", p.amount(total), 100*done/total)
	}
	if more != "" {
		line += ", " + more
	}
	if now := time.Now(); line != p.told && (now.Sub(p.last) >= 2*time.Second || (total > 0 && done == total)) {
		p.last, p.told = now, line
		fmt.Fprintln(p.a.err, line)
	}
}

func (p *progress) amount(n int64) string {
	if p.bytes {
		return size(n)
	}
	return fmt.Sprint(n)
}

func (p *progress) draw(done, total int64, more string) {
	if total <= 0 {
		total = -1
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.a.err), progressbar.OptionSetDescription(p.label),
			progressbar.OptionShowBytes(p.bytes), progressbar.OptionUseIECUnits(true), progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(),
			progressbar.OptionSetPredictTime(p.bytes))
	}
	if total > 0 && p.bar.GetMax64() != total {
		p.bar.ChangeMax64(total)
	}
	if more != "" {
		p.bar.Describe(p.label + " (" + more + ")")
	}
	// A bar that can't be drawn is no reason to fail what it shows.
	_ = p.bar.Set64(done)
}

// end takes the bar off the terminal.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear() // as in draw
		p.bar = nil
	}
}

// transfer is report in the client's terms.
func (p *progress) transfer() client.Progress { return p.report }
