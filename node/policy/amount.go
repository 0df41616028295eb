package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Share is a part of a machine's cores: a percentage of them or a number of
// cores. It is a flag value and a text (un)marshaler.
type Share struct {
	percent float64
	cores   float64
}

// Percent is a share of p hundredths of the cores.
func Percent(p float64) Share { return Share{percent: p} }

// CoresOf is a share of n cores.
func CoresOf(n float64) Share { return Share{cores: n} }

// ParseShare reads "50%" or "1.5".
func ParseShare(s string) (Share, error) {
	text := strings.TrimSpace(s)
	if num, ok := strings.CutSuffix(text, "%"); ok {
		p, err := number(num)
		if err != nil || p <= 0 || p > 100 {
			return Share{}, fmt.Errorf("cpu share %q: want a percentage above 0%% and up to 100%%", s)
		}
		return Share{percent: p}, nil
	}
	c, err := number(text)
	if err != nil || c <= 0 || c > 4096 {
		return Share{}, fmt.Errorf("cpu share %q: want a percentage such as 50%% or a number of cores such as 2", s)
	}
	return Share{cores: c}, nil
}

// Cores is what s comes to on a machine of n cores.
func (s Share) Cores(n int) float64 {
	if s.cores > 0 {
		return s.cores
	}
	return float64(n) * s.percent / 100
}

func (s Share) String() string {
	switch {
	case s.cores > 0:
		return strconv.FormatFloat(s.cores, 'g', -1, 64)
	case s.percent > 0:
		return strconv.FormatFloat(s.percent, 'g', -1, 64) + "%"
	}
	return ""
}

// Set parses into s. An empty text is the zero Share.
func (s *Share) Set(text string) (err error) {
	*s = Share{}
	if strings.TrimSpace(text) != "" {
		*s, err = ParseShare(text)
	}
	return err
}

// Type names the value in help texts.
func (Share) Type() string { return "share" }

// MarshalText is String.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is Set.
func (s *Share) UnmarshalText(b []byte) error { return s.Set(string(b)) }

// Amount is a number of bytes or a percentage of what there is. It is a flag
// value and a text (un)marshaler.
type Amount struct {
	percent float64
	bytes   int64
}

// Bytes is a fixed amount.
func Bytes(n int64) Amount { return Amount{bytes: n} }

// ParseAmount reads "2GiB", "512Mi", "1.5G" or "25%".
func ParseAmount(s string) (Amount, error) {
	text := strings.TrimSpace(s)
	if num, ok := strings.CutSuffix(text, "%"); ok {
		p, err := number(num)
		if err != nil || p <= 0 || p > 100 {
			return Amount{}, fmt.Errorf("amount %q: want a percentage above 0%% and up to 100%%", s)
		}
		return Amount{percent: p}, nil
	}
	n, err := ParseSize(text)
	if err != nil {
		return Amount{}, fmt.Errorf("%w, or a share such as 25%%", err)
	}
	if n == 0 {
		return Amount{}, fmt.Errorf("amount %q: want more than 0", s)
	}
	return Amount{bytes: n}, nil
}

// Of is what a comes to out of total bytes.
func (a Amount) Of(total int64) int64 {
	if a.percent > 0 {
		return int64(float64(total) * a.percent / 100)
	}
	return a.bytes
}

func (a Amount) String() string {
	switch {
	case a.percent > 0:
		return strconv.FormatFloat(a.percent, 'g', -1, 64) + "%"
	case a.bytes > 0:
		return FormatSize(a.bytes)
	}
	return ""
}

// Set parses into a. An empty text is the zero Amount.
func (a *Amount) Set(text string) (err error) {
	*a = Amount{}
	if strings.TrimSpace(text) != "" {
		*a, err = ParseAmount(text)
	}
	return err
}

// Type names the value in help texts.
func (Amount) Type() string { return "size" }

// MarshalText is String.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is Set.
func (a *Amount) UnmarshalText(b []byte) error { return a.Set(string(b)) }

var units = []struct {
	name string
	size float64
}{
	{"tib", 1 << 40}, {"gib", 1 << 30}, {"mib", 1 << 20}, {"kib", 1 << 10},
	{"ti", 1 << 40}, {"gi", 1 << 30}, {"mi", 1 << 20}, {"ki", 1 << 10},
	{"tb", 1e12}, {"gb", 1e9}, {"mb", 1e6}, {"kb", 1e3},
	{"t", 1e12}, {"g", 1e9}, {"m", 1e6}, {"k", 1e3}, {"b", 1},
}

// ParseSize reads a number of bytes: "4096", "2GiB", "512Mi" (powers of 1024),
// "1.5GB", "200M" (powers of 1000), in any case.
func ParseSize(s string) (int64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	scale := 1.0
	for _, u := range units {
		if num, ok := strings.CutSuffix(text, u.name); ok {
			text, scale = strings.TrimSpace(num), u.size
			break
		}
	}
	n, err := number(text)
	if err != nil || n < 0 || n*scale >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q: want a number of bytes such as 512MiB or 2GB", s)
	}
	return int64(n * scale), nil
}

// FormatSize writes n so that ParseSize reads the same n.
func FormatSize(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// number is a plain decimal: no signs, exponents, infinities or hex.
func number(s string) (float64, error) {
	for _, r := range s {
		if (r < '0' || r > '9') && r != '.' {
			return 0, strconv.ErrSyntax
		}
	}
	return strconv.ParseFloat(s, 64)
}
