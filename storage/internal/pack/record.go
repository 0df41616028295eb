package pack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
)

// A pack begins with fileMagic, its version (8 bytes) and its mark (8 random
// bytes). All numbers are little endian.
const (
	fileMagic = "kithpack"
	version   = 1
	fileHead  = 24
)

// A record is
//
//	"kb" or, of the index, "ki"    2 bytes
//	length of the key              2
//	length of the data             4
//	xxHash64 of the data           8
//	CRC-32C of these and the key   4
//	key, data
//
// The index has no key; its data is, for each record of the pack, where its head
// begins (4), the length of its data (4) and of its key (1), and the key. The
// trailer closes it: where the index begins (8), the pack's mark (8), sealMagic.
// Without the mark, which is told to nobody, data that somebody sends us could
// look like an index.
const (
	recordHead  = 20
	blockMagic  = "kb"
	indexMagic  = "ki"
	sealMagic   = "kithseal"
	trailerSize = 24

	// MaxKey and MaxData bound a record, in bytes.
	MaxKey  = 128
	MaxData = 64 << 20
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// errTorn: these bytes are no whole record.
var errTorn = errors.New("not a whole record")

type record struct {
	magic     string
	key       string
	size      int // of the data
	sum       uint64
	off       int64 // of its head in the pack
	dataStart int64
}

func (r record) end() int64 { return r.dataStart + int64(r.size) }

// appendHead appends a record's head and key, to be followed by data.
func appendHead(b []byte, magic, key string, data []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64(data))
	crc := crc32.Checksum(b[start:], crcTable)
	crc = crc32.Update(crc, crcTable, []byte(key))
	b = binary.LittleEndian.AppendUint32(b, crc)
	return append(b, key...)
}

// parseHead reads a record's head and key, which begin at off in the pack.
func parseHead(b []byte, off int64) (record, error) {
	if len(b) < recordHead {
		return record{}, errTorn
	}
	r := record{magic: string(b[:2]), size: int(binary.LittleEndian.Uint32(b[4:])), sum: binary.LittleEndian.Uint64(b[8:]), off: off}
	n := int(binary.LittleEndian.Uint16(b[2:]))
	if n > MaxKey || r.size > MaxData && r.magic == blockMagic || len(b) < recordHead+n {
		return record{}, errTorn
	}
	key := b[recordHead : recordHead+n]
	crc := crc32.Checksum(b[:16], crcTable)
	if crc32.Update(crc, crcTable, key) != binary.LittleEndian.Uint32(b[16:]) {
		return record{}, errTorn
	}
	r.key, r.dataStart = string(key), off+int64(recordHead+n)
	return r, nil
}

func (r record) whole(data []byte) bool { return len(data) == r.size && xxhash.Sum64(data) == r.sum }

// entry is one record as the index tells it.
type entry struct {
	key  string
	off  uint32 // of the head
	size uint32 // of the data
}

func (e entry) length() int64 { return recordHead + int64(len(e.key)) + int64(e.size) }

// appendIndex appends the index record and the trailer of a pack whose records
// end at off.
func appendIndex(b []byte, entries []entry, off int64, mark uint64) []byte {
	var data []byte
	for _, e := range entries {
		data = binary.LittleEndian.AppendUint32(data, e.off)
		data = binary.LittleEndian.AppendUint32(data, e.size)
		data = append(data, byte(len(e.key)))
		data = append(data, e.key...)
	}
	b = appendHead(b, indexMagic, "", data)
	b = append(b, data...)
	b = binary.LittleEndian.AppendUint64(b, uint64(off))
	b = binary.LittleEndian.AppendUint64(b, mark)
	return append(b, sealMagic...)
}

// parseIndex reads the index of a pack whose records end at off.
func parseIndex(b []byte, off int64) ([]entry, error) {
	r, err := parseHead(b, off)
	if err != nil || r.magic != indexMagic || r.key != "" {
		return nil, fmt.Errorf("index: %w", errTorn)
	}
	data := b[recordHead:]
	if !r.whole(data) {
		return nil, fmt.Errorf("index: %w", errTorn)
	}
	var out []entry
	for len(data) > 0 {
		if len(data) < 9 || len(data) < 9+int(data[8]) || data[8] > MaxKey {
			return nil, fmt.Errorf("index: %w", errTorn)
		}
		n := int(data[8])
		e := entry{off: binary.LittleEndian.Uint32(data), size: binary.LittleEndian.Uint32(data[4:]), key: string(data[9 : 9+n])}
		if int64(e.off) < fileHead || int64(e.off)+e.length() > off {
			return nil, fmt.Errorf("index: a record from %d with %d bytes: %w", e.off, e.size, errTorn)
		}
		out = append(out, e)
		data = data[9+n:]
	}
	return out, nil
}

// parseTrailer returns where a sealed pack's index begins, and false if these
// bytes do not end such a pack.
func parseTrailer(b []byte, size int64, mark uint64) (off int64, ok bool) {
	off = int64(binary.LittleEndian.Uint64(b))
	ok = string(b[16:]) == sealMagic && binary.LittleEndian.Uint64(b[8:]) == mark
	return off, ok && off >= fileHead && off <= size-trailerSize-recordHead
}

func newFileHead(mark uint64) []byte {
	b := append(make([]byte, 0, fileHead), fileMagic...)
	b = binary.LittleEndian.AppendUint64(b, version)
	return binary.LittleEndian.AppendUint64(b, mark)
}

// newMark draws a pack's mark, never 0.
func newMark() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if m := binary.LittleEndian.Uint64(b[:]); m != 0 {
			return m
		}
	}
}

// parseFileHead returns a pack's mark, and 0 if its head is damaged: that is no
// reason to lose the records behind it. It refuses a pack of a later version.
func parseFileHead(b []byte) (mark uint64, err error) {
	if len(b) < fileHead || !bytes.HasPrefix(b, []byte(fileMagic)) {
		return 0, nil
	}
	if v := binary.LittleEndian.Uint64(b[8:]); v > version {
		return 0, fmt.Errorf("it has version %d, this program knows %d: run a newer one", v, version)
	}
	return binary.LittleEndian.Uint64(b[16:]), nil
}
