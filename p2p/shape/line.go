package shape

import (
	"bytes"
	"os"
	"sync"
	"time"
)

// line is a bounded first-in first-out queue of bytes that come out delay after
// they went in. Any number of
// readers and writers.
type line struct {
	delay time.Duration
	bound int

	mu     sync.Mutex
	change sync.Cond
	items  []item
	size   int       // bytes in items
	end    error     // no more goes in; read says so after the items, at endAt
	endAt  time.Time // when
	dead   error     // fails everything at once

	readBy, writeBy time.Time
	readAt          alarm
	writeAt         alarm
}

type item struct {
	at   time.Time
	data []byte
}

func newLine(delay time.Duration, bound int) *line {
	l := &line{delay: delay, bound: bound}
	l.change.L = &l.mu
	l.readAt.l, l.writeAt.l = l, l
	return l
}

// write blocks while the line is full.
func (l *line) write(p []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch now := time.Now(); {
		case l.dead != nil:
			return n, l.dead
		case l.end != nil:
			return n, l.end
		case past(l.writeBy, now):
			return n, os.ErrDeadlineExceeded
		case n == len(p):
			return n, nil
		case l.size < l.bound:
			piece := p[n:min(len(p), n+l.bound-l.size)]
			l.items = append(l.items, item{now.Add(l.delay), bytes.Clone(piece)})
			l.size += len(piece)
			n += len(piece)
			l.change.Broadcast()
			continue
		}
		l.writeAt.wait(l.writeBy)
	}
}

// read returns what is due, and the end once all is read.
func (l *line) read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		now := time.Now()
		if l.dead != nil {
			return 0, l.dead
		}
		if past(l.readBy, now) {
			return 0, os.ErrDeadlineExceeded
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := l.take(p, now); n > 0 {
			l.change.Broadcast()
			return n, nil
		}
		due := l.endAt
		if len(l.items) > 0 {
			due = l.items[0].at
		} else if past(l.endAt, now) {
			return 0, l.end
		}
		if due.IsZero() || !l.readBy.IsZero() && l.readBy.Before(due) {
			due = l.readBy
		}
		l.readAt.wait(due)
	}
}

func (l *line) take(p []byte, now time.Time) (n int) {
	for n < len(p) && len(l.items) > 0 && past(l.items[0].at, now) {
		head := &l.items[0]
		k := copy(p[n:], head.data)
		n += k
		if head.data = head.data[k:]; len(head.data) == 0 {
			*head = item{}
			l.items = l.items[1:]
		}
	}
	l.size -= n
	return n
}

// finish lets nothing more in; the reader learns err after the rest, a delay later.
func (l *line) finish(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		l.end, l.endAt = err, time.Now().Add(l.delay)
		l.change.Broadcast()
	}
}

// kill fails every call from now on and drops what is in the line.
func (l *line) kill(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead == nil {
		l.dead, l.items, l.size = err, nil, 0
		l.readAt.stop()
		l.writeAt.stop()
		l.change.Broadcast()
	}
}

func (l *line) deadline(which *time.Time, t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*which = t
	l.change.Broadcast()
}

// alarm wakes a line's waiters at a time, with one timer for all its waits.
type alarm struct {
	l     *line
	timer *time.Timer
	at    time.Time // what it is set to; zero: nothing
}

// wait returns at a change, at t (zero: never), or for nothing. The lock is held.
func (a *alarm) wait(t time.Time) {
	if !t.IsZero() && (a.at.IsZero() || t.Before(a.at)) {
		a.at = t
		if d := time.Until(t); a.timer != nil {
			a.timer.Reset(d)
		} else {
			a.timer = time.AfterFunc(d, func() {
				a.l.mu.Lock()
				defer a.l.mu.Unlock()
				a.at = time.Time{}
				a.l.change.Broadcast()
			})
		}
	}
	a.l.change.Wait()
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.at = time.Time{}
}

// past says whether t is set and not in the future.
func past(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }
