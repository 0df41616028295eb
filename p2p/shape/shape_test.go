package shape_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kith-mesh/kith/p2p/shape"
)

// bubble gives f a delayed end and the plain other end of a pipe, in virtual time.
func bubble(t *testing.T, d time.Duration, f func(t *testing.T, c *shape.Conn, far net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := shape.Delay(near, d)
		defer far.Close()
		defer c.Close()
		f(t, c, far)
	})
}

func TestDelayIsExactBothWays(t *testing.T) {
	bubble(t, 30*time.Millisecond, func(t *testing.T, c *shape.Conn, far net.Conn) {
		start := time.Now()
		fmt.Fprint(c, "ping")
		if got := time.Since(start); got != 0 {
			t.Fatalf("Write took %v", got)
		}
		buf := make([]byte, 4)
		io.ReadFull(far, buf)
		if got := time.Since(start); got != 30*time.Millisecond || string(buf) != "ping" {
			t.Fatalf("%q after %v", buf, got)
		}
		start = time.Now()
		fmt.Fprint(far, "pong")
		io.ReadFull(c, buf)
		if got := time.Since(start); got != 30*time.Millisecond || string(buf) != "pong" {
			t.Fatalf("%q after %v", buf, got)
		}
	})
}

// A megabyte written as many pieces costs one delay, not one for each piece.
func TestDelayDoesNotThrottle(t *testing.T) {
	bubble(t, 100*time.Millisecond, func(t *testing.T, c *shape.Conn, far net.Conn) {
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		start := time.Now()
		var wait sync.WaitGroup
		wait.Go(func() {
			for p := data; len(p) > 0; p = p[1<<10:] {
				c.Write(p[:1<<10])
			}
		})
		got := make([]byte, len(data))
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, data) {
			t.Fatal(err)
		}
		wait.Go(func() { far.Write(data) })
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
			t.Fatal(err)
		}
		wait.Wait()
		if took := time.Since(start); took != 200*time.Millisecond {
			t.Fatalf("there and back took %v", took)
		}
	})
}

func TestWritesAreBounded(t *testing.T) {
	bubble(t, time.Second, func(t *testing.T, c *shape.Conn, far net.Conn) {
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := c.Write(make([]byte, 2*shape.InFlight)) // nobody reads
		if !errors.Is(err, os.ErrDeadlineExceeded) || n < shape.InFlight || n > shape.InFlight+1<<20 {
			t.Fatalf("wrote %d, %v", n, err)
		}
	})
}

func TestReadDeadlines(t *testing.T) {
	bubble(t, 50*time.Millisecond, func(t *testing.T, c *shape.Conn, far net.Conn) {
		fmt.Fprint(far, "late")
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		start := time.Now()
		buf := make([]byte, 4)
		if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 20*time.Millisecond {
			t.Fatal(err, time.Since(start))
		}
		c.SetReadDeadline(time.Time{})
		if _, err := io.ReadFull(c, buf); err != nil || time.Since(start) != 50*time.Millisecond {
			t.Fatal(err, time.Since(start))
		}
		failed := make(chan error)
		go func() { _, err := c.Read(buf); failed <- err }()
		synctest.Wait()
		c.SetDeadline(time.Now())
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

func TestCloseLetsOutWhatWasWritten(t *testing.T) {
	bubble(t, 40*time.Millisecond, func(t *testing.T, c *shape.Conn, far net.Conn) {
		fmt.Fprint(c, "goodbye")
		got := make(chan string)
		go func() { b, _ := io.ReadAll(far); got <- string(b) }()
		start := time.Now()
		c.Close()
		if took := time.Since(start); took != 40*time.Millisecond {
			t.Fatalf("Close took %v", took)
		}
		if s := <-got; s != "goodbye" {
			t.Fatalf("%q", s)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

// A Close whose peer reads nothing gives up a second after the delay.
func TestCloseEnds(t *testing.T) {
	bubble(t, 40*time.Millisecond, func(t *testing.T, c *shape.Conn, far net.Conn) {
		fmt.Fprint(c, "nobody reads this")
		start := time.Now()
		c.Close()
		if took := time.Since(start); took > 1040*time.Millisecond {
			t.Fatalf("Close took %v", took)
		}
	})
}

func TestTheOtherSidesEndIsDelayed(t *testing.T) {
	bubble(t, 40*time.Millisecond, func(t *testing.T, c *shape.Conn, far net.Conn) {
		fmt.Fprint(far, "last")
		far.Close()
		start := time.Now()
		b, err := io.ReadAll(c)
		if err != nil || string(b) != "last" || time.Since(start) != 40*time.Millisecond {
			t.Fatal(string(b), err, time.Since(start))
		}
	})
}

// echo serves TCP on loopback.
func echo(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wait.Wait() })
	return l.Addr().String()
}

func dial(t testing.TB, delays map[string]time.Duration, addr string) net.Conn {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	raddr, err := manet.FromNetAddr(tcp)
	if err != nil {
		t.Fatal(err)
	}
	d, err := shape.Dialer(delays)(raddr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRealTCP(t *testing.T) {
	near, far := echo(t), echo(t)
	delays := map[string]time.Duration{far: 15 * time.Millisecond}

	start := time.Now()
	c := dial(t, delays, far)
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Fatalf("a dial took %v, below a round trip", took)
	}
	best := time.Hour
	buf := make([]byte, 5)
	for range 5 {
		start := time.Now()
		fmt.Fprint(c, "hello")
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		rtt := time.Since(start)
		if rtt < 30*time.Millisecond {
			t.Fatalf("a round trip took %v", rtt)
		}
		best = min(best, rtt)
	}
	if best > 2*time.Second {
		t.Fatalf("the best round trip took %v", best)
	}

	// 16 MiB there and back: a line that sent 64 KiB a round trip would take 7.7 s.
	data := make([]byte, 16<<20)
	start = time.Now()
	go c.Write(data)
	if _, err := io.ReadFull(c, data); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Fatalf("16 MiB took %v", took)
	}
	t.Logf("best RTT %v; 16 MiB there and back %v", best, time.Since(start))

	if _, ok := dial(t, delays, near).(*net.TCPConn); !ok {
		t.Fatal("an address without a delay was wrapped")
	}
	if err := c.(*shape.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(buf); err != io.EOF { // the echo ends when it has read all
		t.Fatal(err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	addr := echo(t)
	d, err := shape.Dialer(map[string]time.Duration{addr: time.Hour})(ma.StringCast("/ip4/127.0.0.1/tcp/" + addr[len("127.0.0.1:"):]))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.DialContext(ctx, "tcp", addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestRatePacesReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := shape.NewRate(1e6, 1000)
		var wait sync.WaitGroup
		start := time.Now()
		for range 2 { // they share it
			near, far := net.Pipe()
			c := rate.Conn(near)
			wait.Go(func() {
				far.Write(make([]byte, 250_000))
				far.Close()
			})
			wait.Go(func() {
				defer c.Close()
				if b, err := io.ReadAll(c); err != nil || len(b) != 250_000 {
					t.Error(len(b), err)
				}
			})
		}
		wait.Wait()
		if took := time.Since(start); took < 495*time.Millisecond || took > 505*time.Millisecond {
			t.Fatalf("500 kB at 1 MB/s took %v", took)
		}
	})
}

func TestRateHonoursDeadlinesAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := shape.NewRate(10, 100).Conn(near)
		defer far.Close()
		go far.Write(make([]byte, 300))
		buf := make([]byte, 100)
		read := func() error { _, err := io.ReadFull(c, buf); return err }
		for range 2 { // the burst, and one read on credit
			if err := read(); err != nil {
				t.Fatal(err)
			}
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		start := time.Now()
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Fatal(err, time.Since(start))
		}
		c.SetReadDeadline(time.Time{})
		failed := make(chan error)
		go func() { failed <- read() }()
		synctest.Wait()
		c.Close()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

// A connection with 20 ms each way.
func Example() {
	near, far := net.Pipe()
	defer far.Close()
	c := shape.Delay(near, 20*time.Millisecond)
	defer c.Close()
	go io.Copy(far, far)

	start := time.Now()
	fmt.Fprint(c, "hello")
	answer := make([]byte, 5)
	_, err := io.ReadFull(c, answer)
	fmt.Println(string(answer), err, time.Since(start) >= 40*time.Millisecond)
	// Output: hello <nil> true
}

func BenchmarkThroughput(b *testing.B) {
	addr := echo(b)
	for _, d := range []time.Duration{0, 10 * time.Millisecond} {
		b.Run(d.String(), func(b *testing.B) {
			c := dial(b, map[string]time.Duration{addr: d}, addr)
			data, got := make([]byte, 1<<20), make([]byte, 1<<20)
			b.SetBytes(1 << 20)
			b.ResetTimer()
			go func() {
				for range b.N {
					c.Write(data)
				}
			}()
			for range b.N {
				if _, err := io.ReadFull(c, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
