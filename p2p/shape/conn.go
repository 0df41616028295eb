package shape

import (
	"errors"
	"net"
	"sync"
	"time"
)

// InFlight bounds the bytes that one direction of a connection holds back.
const InFlight = 32 << 20

const (
	pumpSize = 64 << 10
	linger   = time.Second // past the delay, for a Close whose peer does not read
)

// Conn is a connection with a delay in both directions.
type Conn struct {
	net.Conn // addresses only: everything that moves bytes goes through the lines

	in, out *line
	pumps   sync.WaitGroup
	sent    chan struct{} // closed by the outward pump
	once    sync.Once
	err     error
}

// Delay wraps c, which the Conn then owns, so that bytes take d each way.
func Delay(c net.Conn, d time.Duration) *Conn {
	s := &Conn{Conn: c, in: newLine(d, InFlight), out: newLine(d, InFlight), sent: make(chan struct{})}
	s.pumps.Go(s.pumpIn)
	s.pumps.Go(s.pumpOut)
	return s
}

func (c *Conn) pumpIn() {
	buf := make([]byte, pumpSize)
	for {
		n, err := c.Conn.Read(buf)
		if n > 0 {
			if _, err := c.in.write(buf[:n]); err != nil {
				return // closed for reading: TCP's window holds the sender back
			}
		}
		if err != nil {
			c.in.finish(err)
			return
		}
	}
}

var errHalfClosed = errors.New("shape: closed for writing")

func (c *Conn) pumpOut() {
	defer close(c.sent)
	buf := make([]byte, pumpSize)
	for {
		n, err := c.out.read(buf)
		if n > 0 {
			if _, err := c.Conn.Write(buf[:n]); err != nil {
				c.out.kill(err)
				return
			}
		}
		if errors.Is(err, errHalfClosed) {
			if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
				if err := h.CloseWrite(); err != nil {
					c.out.kill(err)
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// Read returns bytes that came in at least the delay ago.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write returns at once unless InFlight bytes are on their way. An error of the
// connection below shows at a later Write.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// CloseWrite ends the stream towards the other side after what was written. It
// is an error where the connection below can't.
func (c *Conn) CloseWrite() error {
	if _, ok := c.Conn.(interface{ CloseWrite() error }); !ok {
		return errors.ErrUnsupported
	}
	c.out.finish(errHalfClosed)
	return nil
}

// CloseRead fails reads from now on.
func (c *Conn) CloseRead() error {
	c.in.kill(net.ErrClosed)
	return nil
}

// Close fails reads and writes at once, lets out what was written before, then
// ends both goroutines and the connection below.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.in.kill(net.ErrClosed)
		c.out.finish(net.ErrClosed)
		limit := c.Conn.SetWriteDeadline(time.Now().Add(c.out.delay + linger))
		if limit == nil {
			<-c.sent
		}
		c.err = c.Conn.Close()
		c.out.kill(net.ErrClosed)
		c.pumps.Wait()
	})
	return c.err
}

// SetDeadline sets both deadlines; of reads for what is due by then, of writes
// for room in the line.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.deadline(&c.in.readBy, t)
	c.out.deadline(&c.out.writeBy, t)
	return nil
}

func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.deadline(&c.in.readBy, t)
	return nil
}

func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.deadline(&c.out.writeBy, t)
	return nil
}
