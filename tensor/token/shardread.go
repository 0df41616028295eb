package token

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync"
)

// ShardError says which field of a shard is wrong, and where it stands.
type ShardError struct {
	Field  string
	Offset int64 // of the field, in bytes
	Text   string
}

func (e *ShardError) Error() string {
	return fmt.Sprintf("token shard: %s at offset %d: %s", e.Field, e.Offset, e.Text)
}

func wrong(field string, offset int64, format string, args ...any) error {
	return &ShardError{field, offset, fmt.Sprintf(format, args...)}
}

// Shard reads tokens at any place of a shard, and no more of it than they take.
// Any number of goroutines may use it.
type Shard struct {
	r     io.ReaderAt
	h     ShardHeader
	count int64
	body  int64 // where tokens begin
	sums  int64 // where sums do
}

// OpenShard reads the header and the trailer of a shard of size bytes, and
// refuses one whose parts don't make up that size with a *ShardError.
func OpenShard(r io.ReaderAt, size int64) (*Shard, error) {
	s := &Shard{r: r}
	if size < shardFixed+shardTrailer {
		return nil, wrong("size", 0, "%d bytes, want at least %d", size, shardFixed+shardTrailer)
	}
	b := make([]byte, min(size-shardTrailer, shardFixed+maxCID+16))
	if err := s.readAt(b, 0, "header"); err != nil {
		return nil, err
	}
	head, err := s.parseHeader(b)
	if err != nil {
		return nil, err
	}
	t := make([]byte, shardTrailer)
	if err := s.readAt(t, size-shardTrailer, "trailer"); err != nil {
		return nil, err
	}
	if err := s.parseTrailer(t, head, size); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Shard) readAt(b []byte, at int64, what string) error {
	if n, err := s.r.ReadAt(b, at); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("token shard: %s at offset %d: %w", what, at, err)
	}
	return nil
}

// parseHeader takes the header off b, and gives its sum.
func (s *Shard) parseHeader(b []byte) (sum uint32, err error) {
	le := binary.LittleEndian
	if string(b[:8]) != shardMagic {
		return 0, wrong("magic", 0, "%q, want %q", b[:8], shardMagic)
	}
	if v := le.Uint16(b[8:]); v != shardVersion {
		return 0, wrong("version", 8, "%d, want %d", v, shardVersion)
	}
	vocab := le.Uint32(b[12:])
	if vocab < 1 || vocab > MaxVocab {
		return 0, wrong("vocab", 12, "%d, want 1 to %d", vocab, MaxVocab)
	}
	s.h.Vocab, s.h.Masked = int(vocab), b[11]&shardMasked != 0
	if int(b[10]) != s.h.width() {
		return 0, wrong("bytes of a token", 10, "%d, want %d for a vocabulary of %d", b[10], s.h.width(), vocab)
	}
	if b[11]&^shardMasked != 0 {
		return 0, wrong("flags", 11, "%#x, of which %#x is known", b[11], shardMasked)
	}
	n := int(le.Uint16(b[16:]))
	end := (shardFixed + n + 15) &^ 15
	if n > maxCID || end > len(b) {
		return 0, wrong("length of the tokenizer's CID", 16, "%d, want 1 to %d, within the file", n, maxCID)
	}
	if s.h.Tokenizer = string(b[shardFixed : shardFixed+n]); !soundCID(s.h.Tokenizer) {
		return 0, wrong("tokenizer's CID", shardFixed, "%q, want letters and digits", s.h.Tokenizer)
	}
	for i, c := range b[shardFixed+n : end] {
		if c != 0 {
			return 0, wrong("padding", int64(shardFixed+n+i), "%#x, want 0", c)
		}
	}
	s.body = int64(end)
	return crc32.Checksum(b[:end], castagnoli), nil
}

func (s *Shard) parseTrailer(b []byte, head uint32, size int64) error {
	le, at := binary.LittleEndian, size-shardTrailer
	if string(b[16:]) != shardEnd {
		return wrong("trailer's magic", at+16, "%q, want %q: the shard was not closed, or cut", b[16:], shardEnd)
	}
	if sum := crc32.Checksum(b[:12], castagnoli); sum != le.Uint32(b[12:]) {
		return wrong("trailer's checksum", at+12, "%08x, the trailer has %08x", le.Uint32(b[12:]), sum)
	}
	if sum := le.Uint32(b[8:]); sum != head {
		return wrong("header's checksum", at+8, "%08x, the header has %08x", sum, head)
	}
	count := le.Uint64(b)
	if count > math.MaxInt64/8 { // sizes below don't overflow
		return wrong("count", at, "%d tokens, in %d bytes", count, size)
	}
	s.count = int64(count)
	s.sums = s.body + s.bytes()
	if want := s.sums + (s.bytes()+shardChunk-1)/shardChunk*4 + shardTrailer; want != size {
		return wrong("count", at, "%d tokens make a shard of %d bytes, this has %d", count, want, size)
	}
	return nil
}

// bytes is how many tokens and mask take together.
func (s *Shard) bytes() int64 {
	n := s.count * int64(s.h.width())
	if s.h.Masked {
		n += (s.count + 7) / 8
	}
	return n
}

// Header is what the shard says of its tokens.
func (s *Shard) Header() ShardHeader { return s.h }

// Len is how many tokens there are.
func (s *Shard) Len() int64 { return s.count }

// chunks are for Read and ReadMask, which take one at a time.
var chunks = sync.Pool{New: func() any { return new([shardChunk]byte) }}

// each gives the bytes from a place of the body on, n in all, checked against
// their sums, in parts, each with its place.
func (s *Shard) each(from, n int64, yield func(at int64, part []byte) error) error {
	buf := chunks.Get().(*[shardChunk]byte)
	defer chunks.Put(buf)
	var sum [4]byte
	for at := from / shardChunk * shardChunk; at < from+n; at += shardChunk {
		chunk := buf[:min(shardChunk, s.bytes()-at)]
		if err := s.readAt(chunk, s.body+at, "tokens"); err != nil {
			return err
		}
		place := s.sums + at/shardChunk*4
		if err := s.readAt(sum[:], place, "checksum"); err != nil {
			return err
		}
		if got, want := crc32.Checksum(chunk, castagnoli), binary.LittleEndian.Uint32(sum[:]); got != want {
			return wrong("checksum", place, "%08x, but the bytes from offset %d on have %08x", want, s.body+at, got)
		}
		lo, hi := max(from, at), min(from+n, at+int64(len(chunk)))
		if err := yield(lo, chunk[lo-at:hi-at]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Shard) check(at int64, n int) error {
	if at < 0 || int64(n) > s.count || at > s.count-int64(n) {
		return fmt.Errorf("token shard: tokens %d and %d after it, of %d", at, n, s.count)
	}
	return nil
}

// Read fills dst with the tokens from a position on. It fails when they are not
// all there, on damage, and on a token that the vocabulary lacks.
func (s *Shard) Read(at int64, dst []ID) error {
	if err := s.check(at, len(dst)); err != nil {
		return err
	}
	w := int64(s.h.width())
	return s.each(at*w, int64(len(dst))*w, func(from int64, part []byte) error {
		i := from/w - at
		for ; len(part) > 0; part, i = part[w:], i+1 {
			if w == 2 {
				dst[i] = ID(binary.LittleEndian.Uint16(part))
			} else {
				dst[i] = ID(binary.LittleEndian.Uint32(part))
			}
			if int64(dst[i]) >= int64(s.h.Vocab) {
				return wrong("token", s.body+(at+i)*w, "%d, want below the vocabulary of %d", dst[i], s.h.Vocab)
			}
		}
		return nil
	})
}

// ReadMask fills dst with whether each of the tokens from a position on counts
// for the loss; all do in a shard without a mask.
func (s *Shard) ReadMask(at int64, dst []bool) error {
	if err := s.check(at, len(dst)); err != nil {
		return err
	}
	if !s.h.Masked {
		for i := range dst {
			dst[i] = true
		}
		return nil
	}
	if len(dst) == 0 {
		return nil
	}
	mask := s.count * int64(s.h.width()) // where it begins in the body
	first, last := at/8, (at+int64(len(dst))-1)/8
	return s.each(mask+first, last-first+1, func(from int64, part []byte) error {
		for k, b := range part {
			for bit := range int64(8) {
				if i := (from-mask+int64(k))*8 + bit - at; i >= 0 && i < int64(len(dst)) {
					dst[i] = b>>bit&1 != 0
				}
			}
		}
		return nil
	})
}
