package wire

import (
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
)

// checker collects the first fault of a message.
type checker struct {
	err error
	// last CID and peer that were found right: a batch repeats them
	cid  string
	peer string
}

func (c *checker) fail(format string, a ...any) {
	if c.err == nil {
		c.err = malformed(format, a...)
	}
}

// maxSpan bounds every duration: a year, more than any job is kept.
const maxSpan = 366 * 24 * time.Hour

func (c *checker) duration(field string, ns int64) time.Duration {
	if ns < 0 || ns > int64(maxSpan) {
		c.fail("%s %d ns is not between 0 and a year", field, ns)
	}
	return time.Duration(ns)
}

func (c *checker) time(field string, ms int64) time.Time {
	if ms < 0 || ms > 253402300799000 {
		c.fail("%s %d is not a time", field, ms)
	}
	return time.UnixMilli(ms).UTC()
}

func (c *checker) bytesCount(field string, n int64) int64 {
	if n < 0 || n > 1<<50 {
		c.fail("%s %d is not between 0 and 2^50", field, n)
	}
	return n
}

func (c *checker) number(field string, v, most float64) float64 {
	if math.IsNaN(v) || v < 0 || v > most {
		c.fail("%s %v is not between 0 and %v", field, v, most)
	}
	return v
}

func (c *checker) uint(field string, v uint32, most uint32) uint32 {
	if v > most {
		c.fail("%s %d is more than %d", field, v, most)
	}
	return v
}

// term bounds what a peer may claim: a database keeps no number above 2^63.
func (c *checker) term(v uint64) uint64 {
	if v > 1<<32 {
		c.fail("term %d is more than 2^32", v)
	}
	return v
}

func (c *checker) text(field, v string, most int) string {
	if len(v) > most {
		c.fail("%s of %d bytes, the limit is %d", field, len(v), most)
	} else if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
		c.fail("%s is not text", field)
	}
	return v
}

// word is text that is printed on one line.
func (c *checker) word(field, v string, most int) string {
	if strings.ContainsFunc(c.text(field, v, most), func(r rune) bool { return !unicode.IsPrint(r) }) {
		c.fail("%s has characters that can't be printed", field)
	}
	return v
}

func (c *checker) bytes(field string, v []byte, most int) []byte {
	if len(v) > most {
		c.fail("%s of %d bytes, the limit is %d", field, len(v), most)
	}
	if len(v) == 0 {
		return nil
	}
	return v
}

func (c *checker) hash(field string, v []byte) (h tasks.Hash) {
	if copy(h[:], v); len(v) != len(h) {
		c.fail("%s of %d bytes is no SHA-256", field, len(v))
	}
	return h
}

func (c *checker) count(field string, n, most int) int {
	if n > most {
		c.fail("%d %s, the limit is %d", n, field, most)
		return 0
	}
	return n
}

func (c *checker) job(field, v string) tasks.JobID {
	ok := len(v) == 52
	for i := 0; ok && i < len(v); i++ {
		ok = v[i] >= 'a' && v[i] <= 'z' || v[i] >= '2' && v[i] <= '7'
	}
	if !ok {
		c.fail("%s is not a job ID", field)
	}
	return tasks.JobID(v)
}

func (c *checker) lease(field, v string) tasks.LeaseID {
	if v == "" {
		c.fail("%s is empty", field)
	}
	return tasks.LeaseID(c.word(field, v, 64))
}

func (c *checker) peerID(field, v string) tasks.PeerID {
	if v == c.peer && v != "" {
		return tasks.PeerID(v)
	}
	if id, err := peer.Decode(c.text(field, v, 128)); err != nil || id.String() != v {
		c.fail("%s is not a peer ID", field)
	} else {
		c.peer = v
	}
	return tasks.PeerID(v)
}

func (c *checker) cidText(field, v string) tasks.CID {
	if v == c.cid && v != "" {
		return tasks.CID(v)
	}
	if id, err := cid.Decode(c.text(field, v, 128)); err != nil || id.Version() != 1 || id.String() != v {
		c.fail("%s is not a CIDv1 in its usual text form", field)
	} else {
		c.cid = v
	}
	return tasks.CID(v)
}

func (c *checker) optionalCID(field, v string) tasks.CID {
	if v == "" {
		return ""
	}
	return c.cidText(field, v)
}
