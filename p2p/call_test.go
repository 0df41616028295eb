package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestThousandCallsAtOnce(t *testing.T) {
	m := newTestMesh(t)
	var mu sync.Mutex
	var atWork, most int
	a := m.host(m.config(), nil)
	b := m.host(m.config(), func(h *Host) {
		h.Handle(echo, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
			mu.Lock()
			atWork++
			most = max(most, atWork)
			mu.Unlock()
			defer func() {
				mu.Lock()
				atWork--
				mu.Unlock()
			}()
			return req, nil
		})
	})
	m.connect(a, b)
	var wg sync.WaitGroup
	errs := make(chan error, 1000)
	for i := range 1000 {
		wg.Go(func() {
			want := fmt.Appendf(nil, "request %d", i)
			got, err := a.Call(t.Context(), b.ID(), echo, want)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("got %q, want %q", got, want)
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if most > echo.Streams {
		t.Errorf("%d requests at work at once for one peer, the bound is %d", most, echo.Streams)
	}
	streams := 0
	for _, c := range b.raw.Network().ConnsToPeer(a.ID()) {
		for _, s := range c.GetStreams() {
			if s.Protocol() == echo.ID(m.id) {
				streams++
			}
		}
	}
	if streams != 1 {
		t.Errorf("%d request streams, want one that is kept open", streams)
	}
}

func TestCallRefusals(t *testing.T) {
	m := newTestMesh(t)
	small := Protocol{Name: "small", Version: "1.0.0", MaxMessage: 100, Deadline: 5 * time.Second}
	slow := Protocol{Name: "slow", Version: "1.0.0", Deadline: 50 * time.Millisecond}
	rated := Protocol{Name: "rated", Version: "1.0.0", Rate: 0.01, Burst: 3}
	told := make(chan error, 1)
	a := m.host(m.config(), nil)
	b := m.host(m.config(), func(h *Host) {
		h.Handle(small, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
			switch string(req) {
			case "refuse":
				return nil, fmt.Errorf("wrapped: %w", &Refusal{Code: 1234, Text: "no\x1b[31m", RetryAfter: 1500 * time.Millisecond})
			case "fail":
				return nil, errors.New("disk on fire")
			case "large":
				return make([]byte, 101), nil
			}
			return req, nil
		})
		h.Handle(slow, func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
			<-ctx.Done()
			told <- ctx.Err()
			return nil, ctx.Err()
		})
		h.Handle(rated, func(context.Context, peer.ID, []byte) ([]byte, error) { return nil, nil })
	})
	m.connect(a, b)
	ctx := t.Context()

	_, err := a.Call(ctx, b.ID(), small, []byte("refuse"))
	var r *Refusal
	if !errors.As(err, &r) || r.Code != 1234 || r.RetryAfter != 1500*time.Millisecond || strings.ContainsRune(r.Text, 0x1b) {
		t.Errorf("refusal came back as %v", err)
	}
	if _, err := a.Call(ctx, b.ID(), small, []byte("fail")); RefusalCode(err) != CodeInternal || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("failure came back as %v", err)
	}
	if _, err := a.Call(ctx, b.ID(), small, []byte("large")); RefusalCode(err) != CodeTooLarge {
		t.Errorf("large answer came back as %v", err)
	}
	if _, err := a.Call(ctx, b.ID(), small, make([]byte, 101)); !errors.As(err, new(errTooLarge)) {
		t.Errorf("large request was let through: %v", err)
	}
	if got, err := a.Call(ctx, b.ID(), small, []byte("still here")); err != nil || string(got) != "still here" {
		t.Errorf("after refusals: %q, %v", got, err)
	}

	if _, err := a.Call(ctx, b.ID(), slow, nil); err == nil {
		t.Error("a call outlived its protocol's deadline")
	}
	if err := <-told; err == nil {
		t.Error("the handler was not told that time is up")
	}
	for i := range 3 {
		if _, err := a.Call(ctx, b.ID(), rated, nil); err != nil {
			t.Fatalf("call %d within the burst: %v", i, err)
		}
	}
	if _, err := a.Call(ctx, b.ID(), rated, nil); !errors.As(err, &r) || r.Code != CodeRate || r.RetryAfter < time.Second {
		t.Errorf("above the rate: %v", err)
	}
	if _, err := a.Call(ctx, a.ID(), small, nil); !errors.Is(err, errSelf) {
		t.Errorf("call of itself: %v", err)
	}
}

func TestCallCancelReachesHandler(t *testing.T) {
	m := newTestMesh(t)
	began, ended := make(chan struct{}), make(chan struct{})
	a := m.host(m.config(), nil)
	b := m.host(m.config(), func(h *Host) {
		h.Handle(echo, func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
			close(began)
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		})
	})
	m.connect(a, b)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if _, err := a.Call(ctx, b.ID(), echo, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
}

// A peer that never reads must not hold more than its own share.
func TestSlowReaderIsCutOff(t *testing.T) {
	m := newTestMesh(t)
	p := Protocol{Name: "big", Version: "1.0.0", MaxMessage: 1 << 20, Deadline: 300 * time.Millisecond, Streams: 8}
	answers := make(chan struct{}, 100)
	a := m.host(m.config(), nil)
	b := m.host(m.config(), func(h *Host) {
		h.Handle(p, func(context.Context, peer.ID, []byte) ([]byte, error) {
			answers <- struct{}{}
			return make([]byte, 1<<20), nil
		})
		serveEcho(h)
	})
	m.connect(a, b)
	s, err := a.raw.NewStream(t.Context(), b.ID(), p.ID(m.id))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(64) {
		if err := writeFrame(s, frame{kind: kindRequest, id: i}); err != nil {
			break // cut off already
		}
	}
	if got, err := a.Call(t.Context(), b.ID(), echo, []byte("hi")); err != nil || string(got) != "hi" {
		t.Errorf("others suffer: %q, %v", got, err)
	}
	until(t, "the stream of the slow reader is closed", func() bool {
		for _, c := range b.raw.Network().ConnsToPeer(a.ID()) {
			for _, s := range c.GetStreams() {
				if s.Protocol() == p.ID(m.id) {
					return false
				}
			}
		}
		return true
	})
	if n := len(answers); n > 40 {
		t.Errorf("%d requests were served to a peer that does not read", n)
	}
}

func TestBadFramesEndTheStream(t *testing.T) {
	m := newTestMesh(t)
	a, b := m.host(m.config(), nil), m.host(m.config(), serveEcho)
	m.connect(a, b)
	for name, bad := range map[string][]byte{
		"oversize": {0xff, 0xff, 0xff, 0xff, 0x7f},
		"empty":    {0},
		"kind":     {1, 99},
		"answer":   {2, kindResponse, 1},
		"cut":      {1, kindRequest},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := a.raw.NewStream(t.Context(), b.ID(), echo.ID(m.id))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(bad); err != nil {
				t.Fatal(err)
			}
			if err := s.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Read(make([]byte, 16)); err == nil {
				t.Errorf("it answered %d bytes", n)
			}
		})
	}
	if _, err := a.Call(t.Context(), b.ID(), echo, []byte("well")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestCallSurvivesARestart(t *testing.T) {
	m := newTestMesh(t)
	a := m.host(m.config(), nil)
	cfg := m.config()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	serveEcho(b)
	stop := m.run(b)
	m.connect(a, b)
	if _, err := a.Call(t.Context(), b.ID(), echo, []byte("1")); err != nil {
		t.Fatal(err)
	}
	cfg.Listen = b.raw.Network().ListenAddresses()
	stop()
	until(t, "a sees b go", func() bool { return !a.IsMember(b.ID()) })
	b = m.host(cfg, serveEcho)
	m.connect(a, b)
	if got, err := a.Call(t.Context(), b.ID(), echo, []byte("2")); err != nil || string(got) != "2" {
		t.Errorf("after the restart: %q, %v", got, err)
	}
}
