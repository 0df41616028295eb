// Package policy says what a device's owner allows kith to take: a share of the
// CPU, memory for tasks, disk for blocks, and pauses.
//
// It is pure: it measures nothing and enforces nothing. Whoever runs tasks or
// stores blocks asks it for Limits.
package policy

import (
	"errors"
	"fmt"
	"time"
)

// Policy is what the owner allows. The zero value of a field stands for its
// default; see Fill.
type Policy struct {
	CPU    Share  // of the machine's cores. Default 50%
	Memory Amount // for tasks together. Default 50% of the machine's
	Disk   Amount // for blocks. Default 10% of the volume

	Paused bool
	Until  time.Time // end of the pause; zero: until resumed
}

// Defaults is the policy of an owner who said nothing.
var Defaults = Policy{CPU: Share{percent: 50}, Memory: Amount{percent: 50}, Disk: Amount{percent: 10}}

// Machine is what there is to give.
type Machine struct {
	Cores  int
	Memory int64 // bytes
	Disk   int64 // bytes of the volume that holds the home
}

// Limits is what a Policy comes to on a Machine.
type Limits struct {
	Cores  float64 // that tasks may keep busy together
	Slots  int     // tasks at once: the whole cores of Cores, at least one
	Memory int64
	Disk   int64
}

// Smallest budgets that still do something useful.
const (
	MinMemory = 64 << 20
	MinDisk   = 64 << 20
)

// Fill returns p with Defaults where it says nothing.
func (p Policy) Fill() Policy {
	if p.CPU == (Share{}) {
		p.CPU = Defaults.CPU
	}
	if p.Memory == (Amount{}) {
		p.Memory = Defaults.Memory
	}
	if p.Disk == (Amount{}) {
		p.Disk = Defaults.Disk
	}
	return p
}

// Limits fills p, applies it to m, and reports every fault at once: more than
// the machine has, or too little to work with.
func (p Policy) Limits(m Machine) (Limits, error) {
	p = p.Fill()
	l := Limits{Cores: p.CPU.Cores(m.Cores), Memory: p.Memory.Of(m.Memory), Disk: p.Disk.Of(m.Disk)}
	l.Slots = max(1, int(l.Cores))
	var faults []error
	if m.Cores > 0 && l.Cores > float64(m.Cores) {
		faults = append(faults, fmt.Errorf("cpu: %s is more than the %d cores of this machine: give at most %d, or a share such as 50%%", p.CPU, m.Cores, m.Cores))
	}
	faults = append(faults,
		budget("memory", p.Memory, l.Memory, MinMemory, m.Memory),
		budget("disk", p.Disk, l.Disk, MinDisk, m.Disk))
	if err := errors.Join(faults...); err != nil {
		return Limits{}, err
	}
	return l, nil
}

func budget(name string, a Amount, got, least, most int64) error {
	switch {
	case got < least:
		return fmt.Errorf("%s: %s comes to %s: give at least %s", name, a, FormatSize(got), FormatSize(least))
	case most > 0 && got > most:
		return fmt.Errorf("%s: %s is more than the %s of this machine: give less, or a share such as 25%%", name, a, FormatSize(most))
	}
	return nil
}

// MaxPause is the longest pause with an end.
const MaxPause = 30 * 24 * time.Hour

// Pause returns p paused from now on for d, or until resumed when d is 0.
func (p Policy) Pause(now time.Time, d time.Duration) (Policy, error) {
	if d < 0 || d > MaxPause {
		return p, fmt.Errorf("pause: %v is not between 0 and %v: leave the time out to pause until resumed", d, MaxPause)
	}
	p.Paused, p.Until = true, time.Time{}
	if d > 0 {
		p.Until = now.Add(d)
	}
	return p, nil
}

// Resume returns p without a pause.
func (p Policy) Resume() Policy {
	p.Paused, p.Until = false, time.Time{}
	return p
}

// PausedAt reports whether p is paused at now.
func (p Policy) PausedAt(now time.Time) bool {
	return p.Paused && (p.Until.IsZero() || now.Before(p.Until))
}
