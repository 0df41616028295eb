package runner

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// usage is what ps tells of a process.
type usage struct {
	cpu      time.Duration
	resident int64 // bytes
}

// parsePS reads the line of ps -o time=,rss= : [[days-]hours:]minutes:seconds[.hundredths]
// and KiB.
func parsePS(line string) (usage, error) {
	fields := strings.Fields(line)
	if len(fields) != 2 {
		return usage{}, fmt.Errorf("ps said %.80q, not a time and a size", line)
	}
	rss, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || rss < 0 || rss > 1<<50 {
		return usage{}, fmt.Errorf("ps said %.80q: size not valid", line)
	}
	days, clock, found := strings.Cut(fields[0], "-")
	if !found {
		days, clock = "0", fields[0]
	}
	d, err := strconv.ParseUint(days, 10, 16)
	parts := strings.Split(clock, ":")
	total := 0.0
	for _, part := range parts {
		v, err2 := strconv.ParseFloat(strings.Replace(part, ",", ".", 1), 64)
		if err2 != nil || !(v >= 0 && v < 1e6) {
			err = fmt.Errorf("%q is no part of a time", part)
		}
		total = total*60 + v
	}
	if err != nil || len(parts) > 3 {
		return usage{}, fmt.Errorf("ps said %.80q: time not valid", line)
	}
	total += float64(d) * 24 * 60 * 60
	return usage{cpu: time.Duration(total * float64(time.Second)), resident: rss << 10}, nil
}
