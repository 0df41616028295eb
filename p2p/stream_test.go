package p2p

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var bulk = Protocol{Name: "bulk", Version: "1.0.0", MaxMessage: 1 << 20, Deadline: 20 * time.Second, Streams: 1000, Rate: 1e5, Burst: 1e5, Direct: true}

func TestThousandStreamsAtOnce(t *testing.T) {
	m := newTestMesh(t)
	a := m.host(m.config(), nil)
	var open atomic.Int32
	all := make(chan struct{}) // closed when a thousand are open
	b := m.host(m.config(), func(h *Host) {
		h.HandleStream(bulk, func(ctx context.Context, s *Stream) error {
			msg, err := s.ReadMsg()
			if err != nil {
				return err
			}
			if open.Add(1) == 1000 {
				close(all)
			}
			select {
			case <-all:
			case <-ctx.Done():
				return ctx.Err()
			}
			return s.WriteMsg(msg)
		})
	})
	m.connect(a, b)
	var wg sync.WaitGroup
	errs := make(chan error, 1000)
	for i := range 1000 {
		wg.Go(func() {
			errs <- func() error {
				s, err := a.Open(t.Context(), b.ID(), bulk)
				if err != nil {
					return err
				}
				defer s.Close()
				want := bytes.Repeat([]byte{byte(i)}, 100)
				if err := s.WriteMsg(want); err != nil {
					return err
				}
				got, err := s.ReadMsg()
				if err == nil && !bytes.Equal(got, want) {
					err = errors.New("another stream's message")
				}
				return err
			}()
		})
	}
	wg.Wait()
	for range 1000 {
		if err := <-errs; err != nil {
			t.Fatalf("%d open: %v", open.Load(), err)
		}
	}
}

func TestStreamMessages(t *testing.T) {
	m := newTestMesh(t)
	few := bulk
	few.Name, few.Streams = "few", 1
	hold := make(chan struct{})
	a := m.host(m.config(), nil)
	b := m.host(m.config(), func(h *Host) {
		h.HandleStream(bulk, func(_ context.Context, s *Stream) error {
			total := 0
			for {
				msg, err := s.ReadMsg()
				if err == io.EOF {
					break
				}
				if err != nil {
					return err
				}
				total += len(msg)
			}
			if total == 1 {
				return &Refusal{Code: 777, Text: "too little"}
			}
			return s.WriteMsg([]byte{byte(total >> 16), byte(total >> 8), byte(total)})
		})
		h.HandleStream(few, func(ctx context.Context, s *Stream) error {
			if err := s.WriteMsg([]byte("in")); err != nil {
				return err
			}
			<-hold
			return nil
		})
	})
	m.connect(a, b)
	send := func(msgs ...[]byte) ([]byte, error) {
		t.Helper()
		s, err := a.Open(t.Context(), b.ID(), bulk)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, msg := range msgs {
			if err := s.WriteMsg(msg); err != nil {
				return nil, err
			}
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		return s.ReadMsg()
	}
	if got, err := send(make([]byte, 1<<20), nil, make([]byte, 300<<10), []byte("x")); err != nil || !bytes.Equal(got, []byte{0x14, 0xb0, 0x01}) {
		t.Errorf("got %x, %v", got, err)
	}
	if _, err := send([]byte{1}); RefusalCode(err) != 777 {
		t.Errorf("a handler's refusal came as %v", err)
	}
	if _, err := send(make([]byte, 1<<20+1)); !errors.As(err, new(errTooLarge)) {
		t.Errorf("an oversized message: %v", err)
	}

	first, err := a.Open(t.Context(), b.ID(), few)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	second, err := a.Open(t.Context(), b.ID(), few)
	if err != nil {
		t.Fatal(err)
	}
	var r *Refusal
	if _, err := second.ReadMsg(); !errors.As(err, &r) || r.Code != CodeBusy || r.RetryAfter == 0 {
		t.Errorf("above the bound: %v", err)
	}
	close(hold)
	if _, err := first.ReadMsg(); err != io.EOF {
		t.Errorf("end of stream: %v", err)
	}
}
