package memnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"

	"github.com/kith-mesh/kith/p2p/memnet"
)

// pair is two nodes with a connection, in a bubble.
type pair struct {
	net    *memnet.Network
	ta, tb *memnet.Transport
	l      transport.Listener
	a, b   transport.CapableConn
}

func bubble(t *testing.T, cfg memnet.Config, f func(t *testing.T, p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pair{net: memnet.New(cfg)}
		defer p.net.Close()
		var err error
		p.ta, _ = newTransport(t, p.net, 0)
		tb, idb := newTransport(t, p.net, 1)
		p.tb = tb
		if p.l, err = tb.Listen(memnet.Listen(memnet.IP(1))); err != nil {
			t.Fatal(err)
		}
		if p.a, err = p.ta.Dial(t.Context(), p.l.Multiaddr(), idb); err != nil {
			t.Fatal(err)
		}
		if p.b, err = p.l.Accept(); err != nil {
			t.Fatal(err)
		}
		f(t, p)
	})
}

func (p *pair) stream(t *testing.T) (here, there network.MuxedStream) {
	t.Helper()
	here, err := p.a.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if there, err = p.b.AcceptStream(); err != nil {
		t.Fatal(err)
	}
	return here, there
}

func write(t *testing.T, s io.Writer, text string) {
	t.Helper()
	if _, err := s.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func took(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Fatalf("took %v, want %v", got, want)
	}
}

func every(d time.Duration) func(a, b netip.Addr) time.Duration {
	return func(a, b netip.Addr) time.Duration { return d }
}

func TestLatency(t *testing.T) {
	delay := 20 * time.Millisecond
	latency := func(a, b netip.Addr) time.Duration {
		if a == memnet.IP(0) {
			return delay
		}
		return 5 * time.Millisecond
	}
	start := time.Time{}
	bubble(t, memnet.Config{Latency: latency}, func(t *testing.T, p *pair) {
		start = time.Now()
		c, err := p.ta.Dial(t.Context(), p.l.Multiaddr(), p.b.LocalPeer())
		if err != nil {
			t.Fatal(err)
		}
		took(t, start, 25*time.Millisecond) // a dial is one round trip
		c.Close()

		here, there := p.stream(t)
		start = time.Now()
		write(t, here, "ping")
		took(t, start, 0)
		read(t, there, "ping")
		took(t, start, 20*time.Millisecond)
		write(t, there, "pong")
		read(t, here, "pong")
		took(t, start, 25*time.Millisecond)

		// A faster path does not let the second overtake the first.
		start = time.Now()
		write(t, here, "slow")
		delay = 0
		write(t, here, "fast")
		read(t, there, "slowfast")
		took(t, start, 20*time.Millisecond)
	})
}

func TestUplinkIsShared(t *testing.T) {
	cfg := memnet.Config{Uplink: func(netip.Addr) float64 { return 1e6 }}
	bubble(t, cfg, func(t *testing.T, p *pair) {
		s1, r1 := p.stream(t)
		s2, r2 := p.stream(t)
		start := time.Now()
		write(t, s1, string(make([]byte, 500_000)))
		write(t, s2, string(make([]byte, 500_000)))
		read(t, r1, string(make([]byte, 500_000)))
		took(t, start, 500*time.Millisecond)
		read(t, r2, string(make([]byte, 500_000)))
		took(t, start, time.Second)
	})
}

func TestBackpressureAndDeadlines(t *testing.T) {
	bubble(t, memnet.Config{Window: 1000, Latency: every(time.Millisecond)}, func(t *testing.T, p *pair) {
		here, there := p.stream(t)
		here.SetWriteDeadline(time.Now().Add(time.Second))
		start := time.Now()
		n, err := here.Write(make([]byte, 1500))
		if n != 1000 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d, %v", n, err)
		}
		took(t, start, time.Second)
		here.SetDeadline(time.Time{})

		wrote := make(chan error, 1)
		go func() { _, err := here.Write(make([]byte, 500)); wrote <- err }()
		synctest.Wait()
		select {
		case <-wrote:
			t.Fatal("wrote past the window")
		default:
		}
		read(t, there, string(make([]byte, 1500)))
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}

		there.SetReadDeadline(time.Now().Add(time.Second))
		start = time.Now()
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		took(t, start, time.Second)
		var wait sync.WaitGroup // a deadline set while a read waits counts
		there.SetReadDeadline(time.Time{})
		wait.Go(func() {
			if _, err := there.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
		synctest.Wait()
		there.SetReadDeadline(time.Now())
		wait.Wait()
	})
}

func TestHalfCloseAndReset(t *testing.T) {
	bubble(t, memnet.Config{Latency: every(time.Millisecond)}, func(t *testing.T, p *pair) {
		here, there := p.stream(t)
		write(t, here, "all")
		here.CloseWrite()
		if _, err := here.Write([]byte("x")); err == nil {
			t.Fatal("wrote after CloseWrite")
		}
		if b, err := io.ReadAll(there); err != nil || string(b) != "all" {
			t.Fatalf("%q, %v", b, err)
		}
		write(t, there, "answer")
		there.Close()
		if b, err := io.ReadAll(here); err != nil || string(b) != "answer" {
			t.Fatalf("%q, %v", b, err)
		}

		here, there = p.stream(t)
		start := time.Now()
		here.ResetWithError(7)
		var se *network.StreamError
		if _, err := there.Read(make([]byte, 1)); !errors.As(err, &se) || se.ErrorCode != 7 || !se.Remote || !errors.Is(err, network.ErrReset) {
			t.Fatal(err)
		}
		took(t, start, time.Millisecond)
		if _, err := here.Read(make([]byte, 1)); !errors.As(err, &se) || se.Remote {
			t.Fatal(err)
		}

		here, there = p.stream(t)
		there.CloseRead()
		for range 3 { // more than a window: what nobody reads is dropped
			write(t, here, string(make([]byte, 1<<20)))
		}
	})
}

func TestCloseReachesTheOtherSide(t *testing.T) {
	bubble(t, memnet.Config{Latency: every(time.Second)}, func(t *testing.T, p *pair) {
		_, there := p.stream(t)
		start := time.Now()
		p.a.CloseWithError(9)
		if p.b.IsClosed() || !p.a.IsClosed() {
			t.Fatal("closed on the wrong side")
		}
		var ce *network.ConnError
		if _, err := there.Read(make([]byte, 1)); !errors.As(err, &ce) || ce.ErrorCode != 9 || !ce.Remote {
			t.Fatal(err)
		}
		took(t, start, time.Second)
		if _, err := p.b.AcceptStream(); err == nil || !p.b.IsClosed() {
			t.Fatal("still open")
		}
		p.b.Close()
		if n := p.net.Connections(); n != 0 {
			t.Fatalf("%d connections left", n)
		}
	})
}

func TestCutAndHeal(t *testing.T) {
	a, b := memnet.IP(0), memnet.IP(1)
	for name, f := range map[string]struct{ cut, heal func(*memnet.Network) }{
		"pair":      {func(n *memnet.Network) { n.Cut(b, a) }, func(n *memnet.Network) { n.Heal(a, b) }},
		"node":      {func(n *memnet.Network) { n.CutOff(a) }, func(n *memnet.Network) { n.Reconnect(a) }},
		"partition": {func(n *memnet.Network) { n.Partition([]netip.Addr{a}, []netip.Addr{b}) }, func(n *memnet.Network) { n.HealAll() }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, memnet.Config{Latency: every(10 * time.Millisecond)}, func(t *testing.T, p *pair) {
				here, there := p.stream(t)
				write(t, here, "before ")
				f.cut(p.net)
				write(t, here, "during ")
				there.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := there.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				there.SetReadDeadline(time.Time{})
				start := time.Now()
				_, err := p.ta.Dial(t.Context(), p.l.Multiaddr(), "")
				if !errors.Is(err, memnet.ErrTimeout) {
					t.Fatal(err)
				}
				took(t, start, 5*time.Second)
				f.heal(p.net)
				start = time.Now()
				write(t, here, "after")
				read(t, there, "before during after")
				took(t, start, 10*time.Millisecond)

				f.cut(p.net) // and for too long
				start = time.Now()
				for _, s := range []network.MuxedStream{here, there} {
					if _, err := s.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
						t.Fatal(err)
					}
				}
				took(t, start, 30*time.Second)
			})
		})
	}
}

func TestKillCrashAndRestart(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(*memnet.Network, netip.Addr)
		sees time.Duration
		dial error
	}{
		"kill":  {(*memnet.Network).Kill, 30 * time.Second, memnet.ErrTimeout},
		"crash": {(*memnet.Network).Crash, 10 * time.Millisecond, memnet.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, memnet.Config{Latency: every(10 * time.Millisecond), Window: 1000}, func(t *testing.T, p *pair) {
				here, there := p.stream(t)
				start := time.Now()
				c.stop(p.net, memnet.IP(1))
				if _, err := there.Read(make([]byte, 1)); err == nil {
					t.Fatal("the dead read")
				}
				if err := p.l.Close(); err != nil { // by the dead host
					t.Fatal(err)
				}
				if _, err := p.l.Accept(); !errors.Is(err, transport.ErrListenerClosed) {
					t.Fatal(err)
				}
				n, err := here.Write(make([]byte, 2000)) // into the void, then blocked
				if n != 1000 || !errors.Is(err, network.ErrReset) {
					t.Fatalf("wrote %d, %v", n, err)
				}
				took(t, start, c.sees)
				here.Reset()
				p.a.Close()
				p.b.Close() // the dead host's own close says nothing
				if n := p.net.Connections(); n != 0 {
					t.Fatalf("%d connections left", n)
				}
				if _, err := p.ta.Dial(t.Context(), p.l.Multiaddr(), ""); !errors.Is(err, c.dial) {
					t.Fatal(err)
				}
				tb, id := newTransport(t, p.net, 1)
				if _, err := p.ta.Dial(t.Context(), p.l.Multiaddr(), id); !errors.Is(err, memnet.ErrRefused) {
					t.Fatal(err)
				}
				if p.l, err = tb.Listen(p.l.Multiaddr()); err != nil {
					t.Fatal(err)
				}
				if p.a, err = p.ta.Dial(t.Context(), p.l.Multiaddr(), id); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A node that comes back answers its old connections with a reset.
func TestRestartResetsTheOldLife(t *testing.T) {
	bubble(t, memnet.Config{Latency: every(10 * time.Millisecond)}, func(t *testing.T, p *pair) {
		here, _ := p.stream(t)
		p.net.Kill(memnet.IP(1))
		start := time.Now()
		newTransport(t, p.net, 1)
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
			t.Fatal(err)
		}
		took(t, start, 10*time.Millisecond)
	})
}

func TestCounts(t *testing.T) {
	bubble(t, memnet.Config{}, func(t *testing.T, p *pair) {
		here, there := p.stream(t)
		write(t, here, "12345")
		write(t, here, "678")
		write(t, there, "9")
		want := map[memnet.Pair]memnet.Count{
			{From: memnet.IP(0), To: memnet.IP(1)}: {Messages: 2, Bytes: 8},
			{From: memnet.IP(1), To: memnet.IP(0)}: {Messages: 1, Bytes: 1},
		}
		check := func() {
			t.Helper()
			got := p.net.Counts()
			for k, v := range want {
				if got[k] != v {
					t.Fatalf("%v: %v, want %v", k, got[k], v)
				}
			}
		}
		check()
		p.a.Close()
		p.b.Close()
		check() // of connections that are gone, too
		if got := p.net.Total(); got != (memnet.Count{Messages: 3, Bytes: 9}) {
			t.Fatal(got)
		}
		p.net.ResetCounts()
		if got := p.net.Total(); got != (memnet.Count{}) {
			t.Fatal(got)
		}
	})
}

func TestStreamBacklogIsBounded(t *testing.T) {
	bubble(t, memnet.Config{}, func(t *testing.T, p *pair) {
		for range 256 {
			if _, err := p.a.OpenStream(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.a.OpenStream(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		opened := make(chan error, 1)
		go func() { _, err := p.a.OpenStream(t.Context()); opened <- err }()
		synctest.Wait()
		if _, err := p.b.AcceptStream(); err != nil {
			t.Fatal(err)
		}
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusals(t *testing.T) {
	bubble(t, memnet.Config{}, func(t *testing.T, p *pair) {
		if _, err := p.ta.Dial(t.Context(), p.l.Multiaddr(), p.a.LocalPeer()); err == nil {
			t.Fatal("dialled one peer, got another")
		}
		if _, err := p.ta.Dial(t.Context(), memnet.Listen(memnet.IP(7)), ""); !errors.Is(err, memnet.ErrTimeout) {
			t.Fatal(err)
		}
		if _, err := p.ta.Listen(p.l.Multiaddr()); err == nil {
			t.Fatal("listened on another's address")
		}
		if _, err := p.tb.Listen(p.l.Multiaddr()); err == nil {
			t.Fatal("listened twice")
		}
	})
}

func TestIPs(t *testing.T) {
	seen := map[netip.Addr]bool{}
	wide := map[[2]byte]bool{}
	for i := range 12_800 {
		ip := memnet.IP(i)
		seen[ip] = true
		b := ip.As4()
		wide[[2]byte(b[:2])] = true
		if !ip.IsGlobalUnicast() || ip.IsPrivate() {
			t.Fatalf("IP(%d) = %v is not public", i, ip)
		}
	}
	if len(seen) != 12_800 || len(wide) != 12_800 {
		t.Fatalf("%d addresses in %d networks", len(seen), len(wide))
	}
}

func TestLargeTransferIsWhole(t *testing.T) {
	bubble(t, memnet.Config{Latency: every(3 * time.Millisecond), Uplink: func(netip.Addr) float64 { return 50e6 }, Window: 100_000}, func(t *testing.T, p *pair) {
		here, there := p.stream(t)
		data := make([]byte, 5<<20)
		for i := range data {
			data[i] = byte(i * 7 >> 3)
		}
		go func() {
			here.Write(data)
			here.CloseWrite()
		}()
		got, err := io.ReadAll(there)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
}
