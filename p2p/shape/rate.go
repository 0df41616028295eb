package shape

import (
	"net"
	"os"
	"sync"
	"time"
)

// Rate is a receiver's downlink: connections that share one are read at its
// rate together. A slow reader fills TCP's window, and so slows the sender.
type Rate struct {
	perSecond float64
	burst     int

	mu   sync.Mutex
	free time.Time // when all bytes read so far have been paid for
}

// NewRate is a downlink of so many bytes a second, of which burst may come at
// once; burst 0 is 64 KiB.
func NewRate(bytesPerSecond float64, burst int) *Rate {
	if burst <= 0 {
		burst = 64 << 10
	}
	return &Rate{perSecond: bytesPerSecond, burst: burst}
}

// cost is the time that n bytes take.
func (r *Rate) cost(n int) time.Duration {
	return time.Duration(float64(n) / r.perSecond * float64(time.Second))
}

// ready is when what was read so far is paid for.
func (r *Rate) ready() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.free
}

// pay books n bytes that were read. Idle time pays for a burst at most.
func (r *Rate) pay(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if full := time.Now().Add(-r.cost(r.burst)); r.free.Before(full) {
		r.free = full
	}
	r.free = r.free.Add(r.cost(n))
}

// Conn wraps c so that reads are paced. A rate of zero or less is no limit. Its
// goroutine is the reader's own.
func (r *Rate) Conn(c net.Conn) net.Conn {
	if r.perSecond <= 0 {
		return c
	}
	if b, ok := c.(interface{ SetReadBuffer(int) error }); ok {
		// The kernel would otherwise take megabytes ahead of us. A failure only
		// lengthens the first burst.
		_ = b.SetReadBuffer(max(r.burst, 64<<10))
	}
	return &paced{Conn: c, rate: r, change: make(chan struct{}), closed: make(chan struct{})}
}

type paced struct {
	net.Conn
	rate *Rate

	mu     sync.Mutex
	by     time.Time
	change chan struct{} // closed and replaced when by changes
	once   sync.Once
	closed chan struct{}
}

func (p *paced) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return p.Conn.Read(b)
	}
	if err := p.wait(); err != nil {
		return 0, err
	}
	n, err := p.Conn.Read(b[:min(len(b), p.rate.burst)])
	p.rate.pay(n)
	return n, err
}

// wait lasts until the rate is ready, the read deadline, or Close.
func (p *paced) wait() error {
	var t *time.Timer
	for {
		p.mu.Lock()
		by, change := p.by, p.change
		p.mu.Unlock()
		now := time.Now()
		next := p.rate.ready()
		if past(by, now) {
			return os.ErrDeadlineExceeded
		}
		if !next.After(now) {
			return nil
		}
		if !by.IsZero() && by.Before(next) {
			next = by
		}
		if t == nil {
			t = time.NewTimer(next.Sub(now))
			defer t.Stop()
		} else {
			t.Reset(next.Sub(now))
		}
		select {
		case <-t.C:
		case <-change:
		case <-p.closed:
			return net.ErrClosed
		}
	}
}

func (p *paced) SetDeadline(t time.Time) error {
	p.setBy(t)
	return p.Conn.SetDeadline(t)
}

func (p *paced) SetReadDeadline(t time.Time) error {
	p.setBy(t)
	return p.Conn.SetReadDeadline(t)
}

func (p *paced) setBy(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.by = t
	close(p.change)
	p.change = make(chan struct{})
}

func (p *paced) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}
