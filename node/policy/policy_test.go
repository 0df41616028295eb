package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node/policy"
)

func Example() {
	var p policy.Policy
	if err := p.CPU.Set("75%"); err != nil {
		panic(err)
	}
	if err := p.Memory.Set("2GiB"); err != nil {
		panic(err)
	}
	l, err := p.Limits(policy.Machine{Cores: 8, Memory: 16 << 30, Disk: 500 << 30})
	fmt.Println(l.Slots, policy.FormatSize(l.Memory), policy.FormatSize(l.Disk), err)
	// Output: 6 2GiB 50GiB <nil>
}

func TestLimits(t *testing.T) {
	machine := policy.Machine{Cores: 4, Memory: 8 << 30, Disk: 100 << 30}
	for _, tt := range []struct {
		cpu, memory, disk string
		want              policy.Limits
		fault             string // each line must be in the error
	}{
		{want: policy.Limits{Cores: 2, Slots: 2, Memory: 4 << 30, Disk: 10 << 30}},
		{cpu: "100%", memory: "25%", disk: "1GiB", want: policy.Limits{Cores: 4, Slots: 4, Memory: 2 << 30, Disk: 1 << 30}},
		{cpu: "0.5", want: policy.Limits{Cores: .5, Slots: 1, Memory: 4 << 30, Disk: 10 << 30}},
		{cpu: "3.9", want: policy.Limits{Cores: 3.9, Slots: 3, Memory: 4 << 30, Disk: 10 << 30}},
		{cpu: "5", memory: "9GiB", disk: "1MiB", fault: "cpu: 5 is more than the 4 cores\nmemory: 9GiB is more than the 8GiB\ndisk: 1MiB comes to 1MiB: give at least 64MiB"},
	} {
		var p policy.Policy
		for _, err := range []error{p.CPU.Set(tt.cpu), p.Memory.Set(tt.memory), p.Disk.Set(tt.disk)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := p.Limits(machine)
		if (err != nil) != (tt.fault != "") || got != tt.want {
			t.Errorf("%q %q %q: got %+v, %v", tt.cpu, tt.memory, tt.disk, got, err)
		}
		if err != nil {
			for _, line := range strings.Split(tt.fault, "\n") {
				if !strings.Contains(err.Error(), line) {
					t.Errorf("error %q lacks %q", err, line)
				}
			}
		}
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "1k": 1000, "1KiB": 1024, "512Mi": 512 << 20, "1.5 GiB": 3 << 29, "2GB": 2e9, "1tib": 1 << 40, "7b": 7,
	} {
		if got, err := policy.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "1e9", "NaN", "1XiB", "99999999TiB", "1.2.3", "GiB", "0x10"} {
		if got, err := policy.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("ParseSize(%q): error %q lacks the value", text, err)
		}
	}
	for _, text := range []string{"0%", "101%", "-5%", "%", "0", "x", "5000"} {
		if _, err := policy.ParseShare(text); err == nil {
			t.Errorf("ParseShare(%q): want an error", text)
		}
	}
	for _, text := range []string{"0%", "101%", "0", "x"} {
		if _, err := policy.ParseAmount(text); err == nil {
			t.Errorf("ParseAmount(%q): want an error", text)
		}
	}
}

func TestPause(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p, err := policy.Policy{}.Pause(now, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		p      policy.Policy
		at     time.Duration
		paused bool
	}{
		{p, 0, true}, {p, 2*time.Hour - 1, true}, {p, 2 * time.Hour, false},
		{p.Resume(), 0, false}, {policy.Policy{Paused: true}, 1000 * time.Hour, true},
	} {
		if got := tt.p.PausedAt(now.Add(tt.at)); got != tt.paused {
			t.Errorf("%+v after %v: paused %v", tt.p, tt.at, got)
		}
	}
	for _, d := range []time.Duration{-1, policy.MaxPause + 1} {
		if _, err := p.Pause(now, d); err == nil {
			t.Errorf("pause of %v: want an error", d)
		}
	}
}

// What is formatted parses to the same value.
func FuzzAmount(f *testing.F) {
	for _, s := range []string{"2GiB", "25%", "1.5k", "0", "-1", "1e3", "512Mi"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := policy.ParseAmount(s)
		if err != nil {
			return
		}
		if b, err := policy.ParseAmount(a.String()); err != nil || b != a {
			t.Errorf("%q: %v formats to %q, which parses to %v, %v", s, a, a.String(), b, err)
		}
	})
}

func FuzzShare(f *testing.F) {
	for _, s := range []string{"50%", "2", "0.5", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := policy.ParseShare(s)
		if err != nil {
			return
		}
		if b, err := policy.ParseShare(a.String()); err != nil || b != a {
			t.Errorf("%q: %v formats to %q, which parses to %v, %v", s, a, a.String(), b, err)
		}
	})
}
