package p2p

import (
	"bufio"
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// bytesStream is a stream's receiving side that brings these bytes and ends.
type bytesStream struct {
	network.Stream
	r *bytes.Reader
}

func (bytesStream) SetReadDeadline(time.Time) error { return nil }

func (s bytesStream) Read(b []byte) (int, error) { return s.r.Read(b) }

// A pooled read and a plain one see the same messages, and end alike.
func FuzzReadMsgPooled(f *testing.F) {
	var many []byte
	for _, v := range []frame{
		{kind: kindMessage, payload: bytes.Repeat([]byte("long"), 300)}, {kind: kindMessage}, {kind: kindMessage, payload: []byte("x")},
		{kind: kindRefusal, refusal: Refuse(5, "no")}, {kind: kindCancel, id: 1},
	} {
		head, rest := appendFrame(nil, v)
		one := append(head, rest...)
		f.Add(one)
		f.Add(one[:len(one)-1])
		many = append(many, one...)
		f.Add(many)
	}
	f.Add([]byte{0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0})
	f.Add([]byte{0x80, 0x10})
	f.Fuzz(func(t *testing.T, in []byte) {
		open := func() *Stream {
			s := bytesStream{r: bytes.NewReader(in)}
			return &Stream{s: s, r: bufio.NewReaderSize(s, simBuf), reads: 1 << 10, first: 700}
		}
		plain, pooled := open(), open()
		for {
			want, wantErr := plain.ReadMsg()
			got, err := pooled.ReadMsgPooled()
			if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %v; ReadMsg: %d bytes, %v", len(got), err, len(want), wantErr)
			}
			var a, b *Refusal
			if errors.As(err, &a) != errors.As(wantErr, &b) {
				t.Fatalf("%v; ReadMsg: %v", err, wantErr)
			}
			if err != nil {
				return
			}
			FreeMsg(got)
		}
	})
}
