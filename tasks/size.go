package tasks

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var sizeUnits = map[string]int64{
	"": 1, "b": 1,
	"k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
	"ki": 1 << 10, "kib": 1 << 10, "mi": 1 << 20, "mib": 1 << 20,
	"gi": 1 << 30, "gib": 1 << 30, "ti": 1 << 40, "tib": 1 << 40,
}

// ParseSize reads a size in bytes: "256Mi", "1GB", "1.5GiB" or "4096". Ki is
// 1024 and K is 1000; case and a B at the end do not matter.
func ParseSize(text string) (int64, error) {
	t := strings.TrimSpace(text)
	i := strings.IndexFunc(t, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		i = len(t)
	}
	number, suffix := t[:i], strings.ToLower(strings.TrimSpace(t[i:]))
	unit, ok := sizeUnits[suffix]
	if number == "" || !ok {
		return 0, fmt.Errorf("size %q: write a number and a unit, such as 4096, 64Ki, 256Mi or 1GB", text)
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > math.MaxInt64/unit {
			return 0, fmt.Errorf("size %q: too large", text)
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("size %q: %q is not a number", text, number)
	}
	if f *= float64(unit); f >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q: too large", text)
	}
	return int64(f), nil
}

// FormatSize writes n so that ParseSize reads it back exactly.
func FormatSize(n int64) string {
	for _, u := range []struct {
		name string
		unit int64
	}{{"Ti", 1 << 40}, {"TB", 1e12}, {"Gi", 1 << 30}, {"GB", 1e9}, {"Mi", 1 << 20}, {"MB", 1e6}, {"Ki", 1 << 10}, {"KB", 1e3}} {
		if n != 0 && n%u.unit == 0 {
			return strconv.FormatInt(n/u.unit, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// ParseDuration reads what time.ParseDuration does, and days: "7d", "1d12h".
func ParseDuration(text string) (time.Duration, error) {
	t := strings.TrimSpace(text)
	var days time.Duration
	if number, rest, ok := strings.Cut(t, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > 100_000 {
			return 0, fmt.Errorf("duration %q: write it as 80ms, 60s, 24h or 7d", text)
		}
		days = time.Duration(n) * 24 * time.Hour
		if t = rest; t == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(t)
	if err != nil || d < 0 || d > math.MaxInt64-days {
		return 0, fmt.Errorf("duration %q: write it as 80ms, 60s, 24h or 7d", text)
	}
	return days + d, nil
}

// FormatDuration writes d without empty parts: 24h, not 24h0m0s.
func FormatDuration(d time.Duration) string {
	t := d.String()
	if strings.HasSuffix(t, "m0s") {
		t = strings.TrimSuffix(t, "0s")
	}
	if strings.HasSuffix(t, "h0m") {
		t = strings.TrimSuffix(t, "0m")
	}
	return t
}

// ParseSplit reads a split as the command line takes it: "lines:1000",
// "bytes:1MiB" or "files".
func ParseSplit(text string) (Split, error) {
	by, size, sized := strings.Cut(strings.TrimSpace(text), ":")
	switch s := (Split{By: SplitBy(by)}); s.By {
	case SplitFiles:
		if sized {
			return Split{}, fmt.Errorf("split %q: files takes no size: write files", text)
		}
		return s, nil
	case SplitLines, SplitBytes:
		if !sized {
			return Split{}, fmt.Errorf("split %q: say how many: write %s:1000", text, by)
		}
		var err error
		if s.By == SplitBytes {
			s.Size, err = ParseSize(size)
		} else {
			s.Size, err = strconv.ParseInt(size, 10, 64)
		}
		if err != nil || s.Size < 1 {
			return Split{}, fmt.Errorf("split %q: %q is not a number of %s above 0", text, size, by)
		}
		return s, nil
	}
	return Split{}, fmt.Errorf("split %q: write lines:N, bytes:N or files", text)
}

// FormatSplit writes a split so that ParseSplit reads it back; "" for none.
func FormatSplit(s Split) string {
	switch s.By {
	case SplitLines:
		return "lines:" + strconv.FormatInt(s.Size, 10)
	case SplitBytes:
		return "bytes:" + FormatSize(s.Size)
	}
	return string(s.By)
}
