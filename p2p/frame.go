package p2p

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A frame is a uvarint length and that many bytes: one kind byte, then what the
// kind says. Numbers are uvarints.
const (
	kindMessage  = 0 // Stream: payload
	kindRequest  = 1 // id, milliseconds the caller waits, payload
	kindResponse = 2 // id, payload
	kindRefusal  = 3 // id (0 on a Stream), code, retry-after in milliseconds, text
	kindCancel   = 4 // id
)

const (
	// frameOverhead is the most that a frame's head takes beside its payload,
	// and room for a refusal in protocols with tiny messages.
	frameOverhead = 1 + 4*binary.MaxVarintLen64 + maxRefusalText
	// firstRead bounds what a length alone can make us allocate.
	firstRead = 256 << 10
	// askedRead is the same for what we asked for.
	askedRead = 2<<20 + 4<<10
	bufSize   = 4 << 10
	simBuf    = 256 // hundreds of simulated nodes share one machine's memory
)

func (h *Host) bufSize() int {
	if h.cfg.Simulated {
		return simBuf
	}
	return bufSize
}

var errMalformed = errors.New("malformed frame")

// errTooLarge is a frame above the limit of its protocol.
type errTooLarge struct{ size, max uint64 }

func (e errTooLarge) Error() string {
	return fmt.Sprintf("frame of %d bytes, the most is %d", e.size, e.max)
}

// frame is one decoded frame; payload aliases what it was decoded from.
type frame struct {
	kind    byte
	id      uint64
	wait    time.Duration
	refusal *Refusal
	payload []byte
}

// readFrame reads the next frame's bytes. It returns io.EOF only between
// frames.
func readFrame(r *bufio.Reader, max, first int) ([]byte, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, err
		}
		return nil, fmt.Errorf("frame length: %w", err)
	}
	if limit := uint64(max) + frameOverhead; size > limit {
		return nil, errTooLarge{size, limit}
	}
	if size == 0 {
		return nil, fmt.Errorf("%w: it is empty", errMalformed)
	}
	return readBody(r, int(size), first)
}

// readBody grows the buffer as bytes arrive beyond the first, so that a length
// alone costs the sender more than us.
func readBody(r io.Reader, size, first int) ([]byte, error) {
	buf := make([]byte, min(size, first))
	n := 0
	for {
		m, err := io.ReadFull(r, buf[n:])
		n += m
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if n == size {
			return buf, nil
		}
		grown := make([]byte, min(size, 8*len(buf)))
		copy(grown, buf)
		buf = grown
	}
}

func decodeFrame(b []byte) (frame, error) {
	if len(b) == 0 {
		return frame{}, fmt.Errorf("%w: it is empty", errMalformed)
	}
	f := frame{kind: b[0]}
	b = b[1:]
	var bad bool
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	switch f.kind {
	case kindMessage:
	case kindRequest:
		f.id = next()
		f.wait = millis(next())
	case kindResponse, kindCancel:
		f.id = next()
	case kindRefusal:
		f.id = next()
		code, retry := next(), next()
		if code > 1<<32-1 {
			bad = true
		}
		if !bad {
			f.refusal = &Refusal{Code: Code(code), RetryAfter: millis(retry), Text: cleanText(string(b[:min(len(b), maxRefusalText)]))}
		}
		b = nil
	default:
		return frame{}, fmt.Errorf("%w: kind %d", errMalformed, f.kind)
	}
	if bad {
		return frame{}, fmt.Errorf("%w: a number is cut off or too large", errMalformed)
	}
	f.payload = b
	return f, nil
}

const maxMillis = 24 * 60 * 60 * 1000

func millis(v uint64) time.Duration { return time.Duration(min(v, maxMillis)) * time.Millisecond }

func toMillis(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

// appendFrame appends the frame's length and head to dst, and its payload too
// when that is small; what is left to write comes back as rest.
func appendFrame(dst []byte, f frame) (out, rest []byte) {
	var head [1 + 3*binary.MaxVarintLen64 + maxRefusalText]byte
	b := append(head[:0], f.kind)
	payload := f.payload
	switch f.kind {
	case kindRequest:
		b = binary.AppendUvarint(b, f.id)
		b = binary.AppendUvarint(b, toMillis(f.wait))
	case kindResponse, kindCancel:
		b = binary.AppendUvarint(b, f.id)
	case kindRefusal:
		b = binary.AppendUvarint(b, f.id)
		b = binary.AppendUvarint(b, uint64(f.refusal.Code))
		b = binary.AppendUvarint(b, toMillis(f.refusal.RetryAfter))
		text := f.refusal.Text
		b = append(b, text[:min(len(text), maxRefusalText)]...)
		payload = nil
	}
	dst = binary.AppendUvarint(dst, uint64(len(b)+len(payload)))
	dst = append(dst, b...)
	if len(payload) <= 64<<10 {
		return append(dst, payload...), nil
	}
	return dst, payload
}

func writeFrame(w io.Writer, f frame) error {
	head, rest := appendFrame(nil, f)
	if _, err := w.Write(head); err != nil {
		return err
	}
	if len(rest) > 0 {
		if _, err := w.Write(rest); err != nil {
			return err
		}
	}
	return nil
}
