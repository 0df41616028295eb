package token

import (
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// pair is two symbols beside each other, the left one in the high half.
type pair uint64

func pairOf(left, right ID) pair { return pair(left)<<32 | pair(right) }

// made is what a pair becomes.
type made struct {
	rank uint32
	into ID
}

// bpe joins symbols, lowest rank first. Its time is n log n in a piece's length.
type bpe struct {
	spec  *spec
	ids   map[string]ID
	bytes [256]ID // byte-level: the token of each; else with byteFallback
	joins map[pair]made
	cache cache
}

func newBPE(s *spec, ids map[string]ID) (*bpe, error) {
	b := &bpe{spec: s, ids: ids, joins: make(map[pair]made, len(s.joins))}
	for i := range b.bytes {
		b.bytes[i] = none
		if id, ok := ids[string([]byte{byte(i)})]; ok && s.byteLevel {
			b.bytes[i] = id
		}
	}
	for id, p := range s.pieces {
		if p.kind == fallback && s.byteFallback {
			v, _ := byteName(p.text)
			b.bytes[v] = ID(id)
		}
	}
	for _, j := range s.joins {
		p := pairOf(j.left, j.right)
		if _, ok := b.joins[p]; ok {
			return nil, fmt.Errorf("the merge of %q and %q stands twice", s.pieces[j.left].text, s.pieces[j.right].text)
		}
		b.joins[p] = made{j.rank, j.into}
	}
	return b, nil
}

// symbol is a link of a piece's chain. A dead one has id none and at -1.
type symbol struct {
	id         ID
	prev, next int32 // -1: none
	at, size   int32 // bytes of the piece
}

// candidate is a pair that may be joined.
type candidate struct {
	rank uint32
	left int32 // of the chain
	pair pair
}

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.left < d.left
}

// scratch is what encoding one piece needs.
type scratch struct {
	chain []symbol
	heap  []candidate
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// keepScratch is how many symbols a scratch may hold to be used again.
const keepScratch = 1 << 16

func (b *bpe) encode(dst []ID, text string, at int) ([]ID, error) {
	if b.spec.whole {
		if id, ok := b.ids[text]; ok {
			return append(dst, id), nil
		}
	}
	if len(b.joins) == 0 && b.spec.byteLevel {
		for i := range len(text) {
			id := b.bytes[text[i]]
			if id == none {
				return dst, missing(text[i:i+1], at+i)
			}
			dst = append(dst, id)
		}
		return dst, nil
	}
	if ids := b.cache.get(text); ids != nil {
		return append(dst, ids...), nil
	}
	from := len(dst)
	s := scratches.Get().(*scratch)
	s.chain, s.heap = s.chain[:0], s.heap[:0]
	b.symbols(s, text)
	b.join(s)
	dst, err := b.emit(dst, s.chain, text, at)
	if cap(s.chain) <= keepScratch && cap(s.heap) <= keepScratch {
		scratches.Put(s)
	}
	if err == nil {
		b.cache.put(text, dst[from:])
	}
	return dst, err
}

// symbols fills the chain with a piece's bytes or characters.
func (b *bpe) symbols(s *scratch, text string) {
	add := func(id ID, at, size int) {
		n := int32(len(s.chain))
		s.chain = append(s.chain, symbol{id, n - 1, n + 1, int32(at), int32(size)})
	}
	for i := 0; i < len(text); {
		size := 1
		if b.spec.byteLevel {
			add(b.bytes[text[i]], i, 1)
		} else {
			_, size = utf8.DecodeRuneInString(text[i:])
			if id, ok := b.ids[text[i:i+size]]; ok {
				add(id, i, size)
			} else if b.spec.byteFallback && b.haveBytes(text[i:i+size]) {
				for k := range size {
					add(b.bytes[text[i+k]], i+k, 1)
				}
			} else {
				add(none, i, size)
			}
		}
		i += size
	}
	if n := len(s.chain); n > 0 {
		s.chain[n-1].next = -1
	}
}

func (b *bpe) haveBytes(char string) bool {
	for i := range len(char) {
		if b.bytes[char[i]] == none {
			return false
		}
	}
	return true
}

// join makes every merge that can be made, in order.
func (b *bpe) join(s *scratch) {
	for i := int32(0); i >= 0; i = s.chain[i].next {
		b.propose(s, i)
	}
	for len(s.heap) > 0 {
		c := s.pop()
		left := &s.chain[c.left]
		if left.id == none || left.next < 0 || pairOf(left.id, s.chain[left.next].id) != c.pair {
			continue // one of them was joined with another since
		}
		right := &s.chain[left.next]
		left.id, left.size, left.next = b.joins[c.pair].into, left.size+right.size, right.next
		right.id = none
		if left.next >= 0 {
			s.chain[left.next].prev = c.left
		}
		if left.prev >= 0 {
			b.propose(s, left.prev)
		}
		b.propose(s, c.left)
	}
}

// propose puts the pair that begins at a link on the heap, if it can be joined.
func (b *bpe) propose(s *scratch, left int32) {
	l := s.chain[left]
	if l.id == none || l.next < 0 {
		return
	}
	p := pairOf(l.id, s.chain[l.next].id)
	if m, ok := b.joins[p]; ok {
		s.push(candidate{m.rank, left, p})
	}
}

// emit appends a chain's tokens.
func (b *bpe) emit(dst []ID, chain []symbol, text string, at int) ([]ID, error) {
	lacking := false // the token before stands for what the vocabulary lacks
	for i := int32(0); i >= 0 && len(chain) > 0; i = chain[i].next {
		c := chain[i]
		if c.id != none {
			dst, lacking = append(dst, c.id), false
			continue
		}
		if b.spec.unk == none {
			return dst, missing(text[c.at:c.at+c.size], at+int(c.at))
		}
		if !lacking || !b.spec.fuseUnknown {
			dst = append(dst, b.spec.unk)
		}
		lacking = true
	}
	return dst, nil
}

func missing(char string, at int) error {
	return fmt.Errorf("the vocabulary has no token for %q at byte %d", char, at)
}

func (s *scratch) push(c candidate) {
	s.heap = append(s.heap, c)
	h := s.heap
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			return
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (s *scratch) pop() candidate {
	h := s.heap
	top, n := h[0], len(h)-1
	h[0] = h[n]
	h = h[:n]
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(h[i]) {
			break
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
	s.heap = h
	return top
}

// cache holds the tokens of pieces met before: at most cacheSlots pieces of
// cacheText bytes, a newer one in the place of an older.
type cache struct {
	slots [cacheSlots]atomic.Pointer[cached]
}

const (
	cacheSlots = 1 << 13
	cacheText  = 48
)

type cached struct {
	text string
	ids  []ID
}

var cacheSeed = maphash.MakeSeed()

func (c *cache) get(text string) []ID {
	if len(text) > cacheText {
		return nil
	}
	if e := c.slots[maphash.String(cacheSeed, text)%cacheSlots].Load(); e != nil && e.text == text {
		return e.ids
	}
	return nil
}

func (c *cache) put(text string, ids []ID) {
	if len(text) <= cacheText {
		text = string([]byte(text)) // not the whole text that it was cut from
		c.slots[maphash.String(cacheSeed, text)%cacheSlots].Store(&cached{text, append([]ID(nil), ids...)})
	}
}
