package p2p

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
)

func TestFrames(t *testing.T) {
	for name, f := range map[string]frame{
		"message":  {kind: kindMessage, payload: []byte("hello")},
		"empty":    {kind: kindMessage, payload: []byte{}},
		"request":  {kind: kindRequest, id: 1 << 60, wait: 1500 * time.Millisecond, payload: bytes.Repeat([]byte("x"), 70<<10)},
		"response": {kind: kindResponse, id: 7, payload: bytes.Repeat([]byte("y"), 600<<10)},
		"refusal":  {kind: kindRefusal, id: 3, refusal: &Refusal{Code: 1<<32 - 1, Text: "no", RetryAfter: time.Minute}},
		"cancel":   {kind: kindCancel, id: 300},
	} {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			if err := writeFrame(&buf, f); err != nil {
				t.Fatal(err)
			}
			b, err := readFrame(bufio.NewReader(iotest.HalfReader(&buf)), 1<<20, firstRead)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeFrame(b)
			if err != nil {
				t.Fatal(err)
			}
			if got.kind != f.kind || got.id != f.id || got.wait != f.wait || !bytes.Equal(got.payload, f.payload) {
				t.Errorf("got kind %d id %d wait %s, %d bytes", got.kind, got.id, got.wait, len(got.payload))
			}
			if f.refusal != nil && *got.refusal != *f.refusal {
				t.Errorf("got %+v", got.refusal)
			}
		})
	}
}

func TestFrameLimits(t *testing.T) {
	read := func(b ...byte) error {
		_, err := readFrame(bufio.NewReader(bytes.NewReader(b)), 10, firstRead)
		return err
	}
	if err := read(); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
	if err := read(5, 1, 2); err != io.ErrUnexpectedEOF {
		t.Errorf("cut: %v", err)
	}
	if err := read(0); !errors.Is(err, errMalformed) {
		t.Errorf("empty: %v", err)
	}
	if err := read(0xff, 0xff, 0xff, 0xff, 0x0f); !errors.As(err, new(errTooLarge)) {
		t.Errorf("large: %v", err)
	}
	if err := read(bytes.Repeat([]byte{0xff}, 11)...); err == nil {
		t.Error("a length without end")
	}
	// A large length with nothing behind it costs no more than the first read.
	got := testing.AllocsPerRun(10, func() {
		_, err := readBody(strings.NewReader("abc"), 64<<20, firstRead)
		if err != io.ErrUnexpectedEOF {
			t.Errorf("got %v", err)
		}
	})
	if got > 3 {
		t.Errorf("%g allocations for three bytes", got)
	}
	long := frame{kind: kindRefusal, refusal: &Refusal{Code: 1, Text: strings.Repeat("é", 1000)}}
	head, _ := appendFrame(nil, long)
	if b, err := readFrame(bufio.NewReader(bytes.NewReader(head)), 1, firstRead); err != nil {
		t.Error(err)
	} else if f, err := decodeFrame(b); err != nil || len(f.refusal.Text) > maxRefusalText+2 {
		t.Errorf("%v, %d bytes of text", err, len(f.refusal.Text))
	}
}

func FuzzFrame(f *testing.F) {
	for _, v := range []frame{
		{kind: kindMessage, payload: []byte("x")}, {kind: kindRequest, id: 9, wait: time.Second, payload: []byte("y")},
		{kind: kindRefusal, id: 1, refusal: Refuse(5, "no")}, {kind: kindCancel, id: 1},
	} {
		head, rest := appendFrame(nil, v)
		f.Add(append(head, rest...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := readFrame(bufio.NewReader(bytes.NewReader(in)), 1<<10, firstRead)
		if err != nil {
			return
		}
		v, err := decodeFrame(b)
		if err != nil {
			return
		}
		if v.kind == kindRefusal { // its text is cleaned, so only the meaning survives
			head, _ := appendFrame(nil, v)
			if _, err := readFrame(bufio.NewReader(bytes.NewReader(head)), 1<<10, firstRead); err != nil {
				t.Fatalf("written again: %v", err)
			}
			return
		}
		head, rest := appendFrame(nil, v)
		b2, err := readFrame(bufio.NewReader(bytes.NewReader(append(head, rest...))), 1<<10, firstRead)
		if err != nil {
			t.Fatalf("written again: %v", err)
		}
		v2, err := decodeFrame(b2)
		if err != nil || v2.kind != v.kind || v2.id != v.id || v2.wait != v.wait || !bytes.Equal(v2.payload, v.payload) {
			t.Fatalf("%+v became %+v, %v", v, v2, err)
		}
	})
}

func FuzzHello(f *testing.F) {
	place := coord.Coordinate{Height: 0.001, Error: 1}
	for _, h := range []hello{
		{token: []byte("t"), agent: "kith/1", capacity: Capacity{Cores: 2, Memory: 1, Kinds: []string{"wasm"}}, coord: place, clock: time.Unix(1e9, 0)},
		{refused: Refuse(CodeClock, "no"), clock: time.Unix(0, 0)},
	} {
		b, err := h.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := parseHello(in)
		if err != nil {
			return
		}
		if len(h.agent) > 3*maxAgent || len(h.capacity.Kinds) > maxKinds {
			t.Fatalf("too much in %+v", h)
		}
		b, err := h.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseHello(b); err != nil {
			t.Fatalf("written again: %v", err)
		}
	})
}

func FuzzCache(f *testing.F) {
	f.Add([]byte(`{"version":1,"mesh":"m","peers":[{"id":"12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2","met":"2026-01-01T00:00:00Z","last":"/ip4/1.2.3.4/tcp/5"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if c, err := decodeCache(in); err == nil && len(c.Peers) > maxCached {
			t.Fatalf("%d peers", len(c.Peers))
		}
	})
}

func FuzzLANEntry(f *testing.F) {
	f.Add("dnsaddr=/ip4/192.168.1.2/tcp/4101/p2p/12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2", "dnsaddr=/ip4/1.2.3.4")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, pi := range readEntry([]string{a, b}) {
			if len(pi.Addrs) > 2 {
				t.Fatalf("%d addresses of two", len(pi.Addrs))
			}
		}
	})
}

func FuzzOpenRecord(f *testing.F) {
	m := newTestMesh(f)
	h, err := New(m.config())
	if err != nil {
		f.Fatal(err)
	}
	defer h.Close()
	rec, err := h.Record()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rec)
	f.Fuzz(func(t *testing.T, in []byte) {
		if r, err := openRecord(in); err == nil && len(r.Addrs) > maxRecordAddrs {
			t.Fatalf("%d addresses", len(r.Addrs))
		}
	})
}

func FuzzJoinAnswer(f *testing.F) {
	m := newTestMesh(f)
	_, id := newKey(f)
	f.Add([]byte(m.token(id, 1, time.Hour)))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := readJoinAnswer(in, m.id, id, addrInfoOf(id), time.Now()); err == nil && got.Grant.Subject != id {
			t.Fatal("a token for another")
		}
	})
}
