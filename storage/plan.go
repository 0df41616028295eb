package storage

import (
	"fmt"
	"sync/atomic"

	"github.com/ipfs/go-cid"
)

// Span is a part of what a root holds: a path inside it and, of a file, a
// range of bytes. Length -1 means to the end; of a folder it must be -1, or 0
// for the nodes that Stat and Ls read and nothing below.
type Span struct {
	Root           cid.Cid
	Path           string
	Offset, Length int64
}

// Whole is all that root holds.
func Whole(root cid.Cid) Span { return Span{Root: root, Length: -1} }

// Check refuses a span that no data could satisfy.
func (s Span) Check() error {
	if err := CheckCID(s.Root); err != nil {
		return err
	}
	if _, err := splitPath(s.Path); err != nil {
		return err
	}
	if s.Offset < 0 || s.Length < -1 || s.Offset > maxSize || s.Length > maxSize {
		return fmt.Errorf("offset %d, length %d: %w", s.Offset, s.Length, ErrSpan)
	}
	return nil
}

// maxFrontier bounds the blocks that a plan knows and has not been given.
const maxFrontier = 1 << 17

// maxSteps bounds the frontier of a deep tree, whose first nodes must be opened
// however wide they are.
const maxSteps = 4 * maxFrontier

// Plan walks the blocks that a span needs, in the order of their bytes, while
// the caller brings them: Next names a block, Got takes it and learns of its
// children. Subtrees that occur twice are walked once. It never reads or
// fetches, and is not safe for concurrent use.
type Plan struct {
	span  Span
	first step // head of a ring, in order
	len   int
	asked map[string][]*step
	seen  map[string]struct{} // inner nodes that are walked whole
	again bool                // walk repeated subtrees again: for reading

	ahead int64 // keep the span's bytes of blocks given, for Take, and name so many ahead of it; 0: keep none
	ready int   // steps that hold them
	lent  *lent // the block being given

	empties bool // with again: name leaves without bytes too

	folder bool
	list   bool // of a folder, only what listing it reads
	total  int64
	done   int64
	out    []byte // with again: the span's bytes in the last block given
}

// Need is a block that the span needs.
type Need struct {
	CID  cid.Cid
	Leaf bool  // a raw block, without children
	Size int64 // its exact length where its parent told, else -1
}

type step struct {
	prev, next *step
	cid        cid.Cid
	names      []string // path still to go
	target     bool     // what the path leads to is not reached yet
	level      int      // shards above, within one folder
	depth      int
	part       bool  // must be a file's part, of size bytes
	shard      bool  // must be a shard
	whole      bool  // all of it; else bytes [lo, hi)
	last       bool  // nothing below it
	size       int64 // exact, or -1
	claim      int64 // what its parent says it weighs
	lo, hi     int64
	asked      bool
	bytes      []byte // with Plan.ahead: to be taken, and nothing else
	lent       *lent  // what bytes are part of
}

// weight is how many of the span's bytes the step stands for, as far as known.
func (s *step) weight() int64 { return max(s.hi-s.lo, int64(len(s.bytes))) }

// lent is a block whose bytes are wanted back.
type lent struct {
	users atomic.Int32 // steps that hold some of them
	back  func()
}

func (l *lent) release() {
	if l != nil && l.users.Add(-1) == 0 && l.back != nil {
		l.back()
	}
}

// NewPlan checks the span and starts at its root.
func NewPlan(span Span) (*Plan, error) {
	if err := span.Check(); err != nil {
		return nil, err
	}
	names, err := splitPath(span.Path)
	if err != nil {
		return nil, err
	}
	p := &Plan{span: span, asked: map[string][]*step{}, seen: map[string]struct{}{}, total: -1}
	p.first.prev, p.first.next = &p.first, &p.first
	p.insert(&p.first, &step{cid: span.Root, names: names, target: true, size: -1})
	return p, nil
}

// NewReading is a plan of a file's span that keeps the bytes of the blocks given,
// in whatever order, until Take hands them out in theirs. Every leaf's data must
// be given, and a block that occurs twice is named twice.
//
// Next names a block only while its bytes begin less than ahead after those that
// Take hands out next. That bounds what is kept, and the first block that lacks is
// always named: a limit on what is kept alone would let later blocks, whose part
// of the tree came first, fill it for good.
//
// Leaves without bytes are passed over unless store says that what is read is
// stored as well.
func NewReading(span Span, ahead int64, store bool) (*Plan, error) {
	p, err := NewPlan(span)
	if err != nil {
		return nil, err
	}
	p.again, p.ahead, p.empties = true, max(ahead, 1), store
	return p, nil
}

// Take returns the span's next bytes, and nil while the block that has them was
// not given. They alias the block until done is called.
func (p *Plan) Take() (b []byte, done func()) {
	s := p.first.next
	if len(s.bytes) == 0 {
		return nil, nil
	}
	p.remove(s)
	p.ready--
	return s.bytes, s.lent.release
}

// Ready reports that Take has bytes.
func (p *Plan) Ready() bool { return p.ready > 0 && len(p.first.next.bytes) > 0 }

// IsFolder reports that the span's target is known, and that it is a folder.
func (p *Plan) IsFolder() bool { return p.folder }

// insert puts s before at.
func (p *Plan) insert(at, s *step) {
	s.prev, s.next = at.prev, at
	at.prev.next, at.prev = s, s
	p.len++
}

func (p *Plan) remove(s *step) {
	s.prev.next, s.next.prev = s.next, s.prev
	p.len--
}

// Done reports that every block was given.
func (p *Plan) Done() bool { return p.len == p.ready }

// Progress gives bytes given so far and in all. Total is -1 until the span's
// target is known; of a folder it is what the folder claims.
func (p *Plan) Progress() (done, total int64) { return p.done, p.total }

// Next names the first block that was not asked for yet.
func (p *Plan) Next() (Need, bool) {
	var before int64
	for s := p.first.next; s != &p.first; s = s.next {
		if p.ahead > 0 && before >= p.ahead {
			break
		}
		if before += s.weight(); s.asked {
			continue
		}
		leaf := s.cid.Prefix().Codec == cid.Raw
		if !leaf && p.len > maxFrontier && s != p.first.next {
			return Need{}, false
		}
		k := s.cid.KeyString()
		s.asked = true
		p.asked[k] = append(p.asked[k], s)
		if len(p.asked[k]) > 1 {
			continue
		}
		return Need{CID: s.cid, Leaf: leaf, Size: s.size}, true
	}
	return Need{}, false
}

// Back returns a block that was asked for and can't be had now: Next names it again.
func (p *Plan) Back(c cid.Cid) {
	k := c.KeyString()
	for _, s := range p.asked[k] {
		s.asked = false
	}
	delete(p.asked, k)
}

// drop passes over a block that was asked for, and all below it.
func (p *Plan) drop(c cid.Cid) {
	k := c.KeyString()
	for _, s := range p.asked[k] {
		p.remove(s)
	}
	delete(p.asked, k)
}

// Lend is Got for a leaf whose bytes the caller wants back: back is called when
// none of them are used any more, perhaps at once, but not after an error.
func (p *Plan) Lend(c cid.Cid, data []byte, back func()) error {
	l := &lent{back: back}
	l.users.Store(1)
	p.lent = l
	err := p.Got(c, len(data), data)
	if p.lent = nil; err == nil {
		l.release()
	}
	return err
}

// Got takes a verified block that Next named. Of a leaf, its length is enough
// and data may be nil.
func (p *Plan) Got(c cid.Cid, length int, data []byte) error {
	k := c.KeyString()
	steps := p.asked[k]
	delete(p.asked, k)
	p.out = nil
	if len(steps) == 0 {
		return nil
	}
	n := &node{kind: kindFile, data: data, size: int64(length)}
	if c.Prefix().Codec != cid.Raw {
		var err error
		if n, err = parseNode(c, data); err != nil {
			return err
		}
	}
	for _, s := range steps {
		err := p.grow(s, n, length)
		if err == nil && p.len > maxSteps {
			err = fmt.Errorf("more than %d blocks are known at once: %w", maxSteps, ErrNode)
		}
		if err != nil {
			return fmt.Errorf("%s under %s: %w", c, p.span.Root, err)
		}
		p.remove(s)
	}
	return nil
}

// grow puts n's children in s's place, before s is removed.
func (p *Plan) grow(s *step, n *node, length int) error {
	if s.depth > maxDepth {
		return fmt.Errorf("deeper than %d levels: %w", maxDepth, ErrNode)
	}
	if s.part && n.kind != kindFile || s.shard && n.kind != kindShard {
		return fmt.Errorf("a part of another kind than its parent: %w", ErrNode)
	}
	if s.size >= 0 && n.size != s.size {
		return fmt.Errorf("%d bytes where its parent says %d: %w", n.size, s.size, ErrNode)
	}
	if len(s.names) > 0 {
		return p.descend(s, n)
	}
	if s.target {
		if err := p.arrive(s, n, length); err != nil {
			return err
		}
	}
	if p.folder {
		p.done += int64(length)
	}
	if s.last {
		return nil
	}
	if n.kind == kindFile {
		p.growFile(s, n)
		return nil
	}
	for _, k := range n.kids {
		deeper := n.kind == kindShard && len(k.name) == n.prefix
		if p.list && !deeper && k.cid.Prefix().Codec == cid.Raw {
			continue // its size is in its parent
		}
		p.add(s, &step{cid: k.cid, depth: s.depth + 1, shard: deeper, whole: true, last: p.list && !deeper, size: -1, claim: k.size})
	}
	return nil
}

// descend takes one step of the path.
func (p *Plan) descend(s *step, n *node) error {
	if n.kind != kindDir && n.kind != kindShard {
		return fmt.Errorf("path %q: %w", p.span.Path, ErrNotDir)
	}
	k, deeper, ok := n.find(s.names[0], s.level)
	if !ok {
		return fmt.Errorf("path %q has no %q: %w", p.span.Path, s.names[0], ErrNoPath)
	}
	next := &step{cid: k.cid, names: s.names[1:], target: true, depth: s.depth + 1, size: -1}
	if deeper {
		next.names, next.level, next.shard = s.names, s.level+1, true
	}
	p.insert(s, next)
	return nil
}

// arrive fixes what the span means for its target.
func (p *Plan) arrive(s *step, n *node, length int) error {
	off, want := p.span.Offset, p.span.Length
	if n.kind != kindFile {
		if off != 0 || want > 0 {
			return fmt.Errorf("offset %d, length %d of %q: %w", off, want, p.span.Path, ErrIsDir)
		}
		p.folder, p.total, s.whole = true, n.size+int64(length), true
		if want == 0 {
			p.list, p.total = true, -1
		}
		return nil
	}
	if want == -1 {
		want = n.size - off
	}
	if off > n.size || want < 0 || off+want > n.size {
		return fmt.Errorf("offset %d, length %d of %d bytes: %w", off, p.span.Length, n.size, ErrSpan)
	}
	s.lo, s.hi, s.whole = off, off+want, off == 0 && want == n.size
	p.total = want
	return nil
}

func (p *Plan) growFile(s *step, n *node) {
	own := int64(len(n.data))
	if len(n.kids) == 0 {
		own = n.size // a leaf, whose bytes may not be at hand
	}
	if s.whole {
		s.lo, s.hi = 0, n.size
	}
	if lo, hi := min(s.lo, own), min(s.hi, own); lo < hi {
		if !p.folder {
			p.done += hi - lo
		}
		if p.again {
			p.out = n.data[lo:hi]
		}
		if p.ahead > 0 {
			p.insert(s, &step{bytes: p.out, asked: true, lent: p.lent})
			p.ready++
			if p.lent != nil {
				p.lent.users.Add(1)
			}
		}
	}
	at := own
	for _, k := range n.kids {
		start, end := at, at+k.size
		at = end
		if !s.whole && (end <= s.lo || start >= s.hi) || p.again && k.size == 0 && !p.empties {
			continue
		}
		next := &step{cid: k.cid, depth: s.depth + 1, part: true, size: k.size, claim: k.size}
		next.lo, next.hi = max(s.lo-start, 0), min(s.hi-start, k.size)
		next.whole = s.whole || next.lo == 0 && next.hi == k.size
		p.add(s, next)
	}
}

// add puts next before s, unless its blocks are on the way already.
func (p *Plan) add(s, next *step) {
	if next.whole && !p.again && next.cid.Prefix().Codec != cid.Raw {
		k := next.cid.KeyString()
		if _, ok := p.seen[k]; ok {
			p.done += next.claim
			return
		}
		p.seen[k] = struct{}{}
	}
	p.insert(s, next)
}
