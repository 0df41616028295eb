package token

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// The binary form of a shard, version 1, little-endian; docs/tokens.md has it too.
//
//	header   8 magic, 2 version, 1 bytes of a token (2 if vocab is at most 65536,
//	         else 4), 1 flags (bit 0: there is a mask), 4 vocab, 2 length of the
//	         tokenizer's CID, the CID, zeros up to a multiple of 16
//	tokens   each below vocab
//	mask     a bit a token, the first one lowest, 1 where it counts for the loss;
//	         zeros up to a byte
//	sums     a CRC-32C of each 16 KiB of tokens and mask together
//	trailer  8 count of tokens, 4 CRC-32C of the header, 4 CRC-32C of the 12 bytes
//	         before, 8 magic
const (
	shardMagic   = "kithtok\n"
	shardEnd     = "kithend\n"
	shardVersion = 1
	shardMasked  = 1 // flag
	shardFixed   = 18
	shardTrailer = 24
	shardChunk   = 16 << 10 // bytes under one sum
	maxCID       = 128
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ShardHeader is what a shard says of its tokens.
type ShardHeader struct {
	Vocab     int    // each token is below it
	Tokenizer string // CID of the tokenizer's file
	Masked    bool   // some tokens don't count for the loss
}

// HeaderOf is the header of shards of a tokenizer's tokens.
func HeaderOf(t *Tokenizer, masked bool) ShardHeader {
	return ShardHeader{Vocab: t.Vocab(), Tokenizer: t.CID(), Masked: masked}
}

// width is how many bytes a token takes.
func (h ShardHeader) width() int {
	if h.Vocab <= 1<<16 {
		return 2
	}
	return 4
}

func (h ShardHeader) bytes() ([]byte, error) {
	switch {
	case h.Vocab < 1 || h.Vocab > MaxVocab:
		return nil, fmt.Errorf("token shard: vocab is %d, want 1 to %d", h.Vocab, MaxVocab)
	case !soundCID(h.Tokenizer):
		return nil, fmt.Errorf("token shard: tokenizer is %q, want a CID of at most %d letters and digits", h.Tokenizer, maxCID)
	}
	b := append([]byte(shardMagic), shardVersion, 0, byte(h.width()), 0)
	if h.Masked {
		b[11] = shardMasked
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Vocab))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(h.Tokenizer)))
	b = append(b, h.Tokenizer...)
	return append(b, make([]byte, -len(b)&15)...), nil
}

// soundCID checks no more than that a CID's text can be one.
func soundCID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= maxCID
}

// ShardWriter writes a shard from its beginning to its end. It keeps the mask in
// memory, a bit a token, and 4 bytes for each 16 KiB. After an error it is of no
// more use.
type ShardWriter struct {
	w       io.Writer
	h       ShardHeader
	head    uint32 // sum of the header
	count   int64
	mask    []byte
	pending []byte // of the chunk that is not full
	sums    []byte
	err     error
}

// NewShardWriter writes the header. Close writes what follows the tokens.
func NewShardWriter(w io.Writer, h ShardHeader) (*ShardWriter, error) {
	b, err := h.bytes()
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("token shard: %w", err)
	}
	return &ShardWriter{w: w, h: h, head: crc32.Checksum(b, castagnoli), pending: make([]byte, 0, shardChunk)}, nil
}

// Len is how many tokens were written.
func (w *ShardWriter) Len() int64 { return w.count }

// Write appends tokens that all count for the loss.
func (w *ShardWriter) Write(ids []ID) error { return w.WriteMasked(ids, nil) }

// WriteMasked appends tokens; loss says of each whether it counts, or is nil if
// all do. It fails on a token that the vocabulary lacks, and on one that does not
// count in a shard without a mask; then nothing of ids is in the shard.
func (w *ShardWriter) WriteMasked(ids []ID, loss []bool) error {
	if w.err != nil {
		return w.err
	}
	if loss != nil && len(loss) != len(ids) {
		return fmt.Errorf("token shard: %d tokens, but a mask of %d", len(ids), len(loss))
	}
	for i, id := range ids {
		if int64(id) >= int64(w.h.Vocab) {
			return fmt.Errorf("token shard: token %d is %d, want below the vocabulary of %d", w.count+int64(i), id, w.h.Vocab)
		}
		if loss != nil && !loss[i] && !w.h.Masked {
			return fmt.Errorf("token shard: token %d does not count for the loss, but the shard has no mask: set Masked", w.count+int64(i))
		}
	}
	for i, id := range ids {
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], uint32(id))
		w.body(b[:w.h.width()])
		if w.h.Masked {
			if w.count%8 == 0 {
				w.mask = append(w.mask, 0)
			}
			if loss == nil || loss[i] {
				w.mask[w.count/8] |= 1 << (w.count % 8)
			}
		}
		w.count++
	}
	return w.err
}

// body writes bytes that sums cover.
func (w *ShardWriter) body(b []byte) {
	for len(b) > 0 && w.err == nil {
		n := min(len(b), shardChunk-len(w.pending))
		w.pending, b = append(w.pending, b[:n]...), b[n:]
		if len(w.pending) == shardChunk {
			w.flush()
		}
	}
}

func (w *ShardWriter) flush() {
	w.sums = binary.LittleEndian.AppendUint32(w.sums, crc32.Checksum(w.pending, castagnoli))
	w.put(w.pending)
	w.pending = w.pending[:0]
}

func (w *ShardWriter) put(b []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("token shard: %w", err)
	}
}

// Close writes mask, sums and trailer, without which nobody reads the shard. It
// does not close what it writes to.
func (w *ShardWriter) Close() error {
	w.body(w.mask)
	if len(w.pending) > 0 {
		w.flush()
	}
	w.put(w.sums)
	t := binary.LittleEndian.AppendUint64(nil, uint64(w.count))
	t = binary.LittleEndian.AppendUint32(t, w.head)
	t = binary.LittleEndian.AppendUint32(t, crc32.Checksum(t, castagnoli))
	w.put(append(t, shardEnd...))
	if w.err != nil {
		return w.err
	}
	w.err = fmt.Errorf("token shard: it is closed")
	return nil
}
