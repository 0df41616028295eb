package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ipfs/go-cid"
)

// A load is committed when it has so many blocks or bytes.
const (
	loadBlocks = 256
	loadBytes  = 64 << 20
)

// Session writes many blocks. What it wrote or touched is kept from the
// collector until Close. It is safe for concurrent use but for Flush and Close.
//
// Blocks are written to disk in the background, committed in loads; after
// Flush all of them survive a crash.
type Session struct {
	s    *Store
	root cid.Cid // what the blocks are indexed under; undefined while adding
	id   int64   // of the root
	free func()  // ends the root's use

	keysMu sync.Mutex
	keys   map[key]bool // true: stored, or on its way

	mu        sync.Mutex
	cur       *load
	going     *load // being committed
	result    chan error
	err       error // the first failure; the session is over then
	collected bool  // the collector was tried for room
}

// load is one batch on its way.
type load struct {
	batch batch          // of new blocks; nil while there is none
	fresh []key          // those
	keys  []key          // to index, those that were there already included
	bytes int64          // of new blocks
	inner map[key][]byte // nodes that are not readable from the store yet
}

// Begin starts writing blocks of root, which get root's audience at least.
// With Nobody, a root that is new here is served to nobody until Share.
func (s *Store) Begin(ctx context.Context, root cid.Cid, a Audience) (*Session, error) {
	if err := CheckCID(root); err != nil {
		return nil, err
	}
	w := s.begin()
	w.root, w.free = root, s.Use(root)
	var err error
	if w.id, err = s.ensureRoot(ctx, Root{CID: root, Audience: a}); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (s *Store) begin() *Session {
	w := &Session{s: s, keys: map[key]bool{}, free: func() {}}
	s.mu.Lock()
	s.sessions[w] = struct{}{}
	s.mu.Unlock()
	return w
}

// Put verifies and writes a block. A raw leaf's bytes are not kept; another's must
// not change afterwards.
func (w *Session) Put(ctx context.Context, c cid.Cid, data []byte) error {
	if err := Verify(c, data); err != nil {
		return err
	}
	return w.put(ctx, c, data)
}

// put writes a block that is known to hash to c.
func (w *Session) put(ctx context.Context, c cid.Cid, data []byte) error {
	if _, ok := identity(c); ok {
		return nil
	}
	k := keyOf(c)
	fresh, err := w.protect(ctx, k, len(data))
	if err != nil {
		return err
	}
	if !fresh {
		return w.note(ctx, k)
	}
	if err := w.makeRoom(ctx, int64(len(data))); err != nil {
		w.keysMu.Lock()
		w.keys[k] = false
		w.keysMu.Unlock()
		return err
	}
	// What is written counts as used, also while it is not committed.
	defer w.s.unreserve(int64(len(data)))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	l := w.loadLocked()
	l.fresh = append(l.fresh, k)
	l.bytes += int64(len(data))
	l.keys = append(l.keys, k)
	if c.Prefix().Codec != cid.Raw {
		l.inner[k] = data
	}
	if l.batch == nil {
		l.batch = w.s.blocks.batch()
	}
	if err := l.batch.put(k, data); err != nil {
		w.err = fmt.Errorf("write block %s: %w", c, asFull(err))
		return w.err
	}
	if len(l.fresh) >= loadBlocks || l.bytes >= loadBytes {
		return w.shipLocked(ctx)
	}
	return nil
}

// Touch says that the session relies on a stored block; it reports whether it
// is there.
func (w *Session) Touch(ctx context.Context, c cid.Cid) (bool, error) {
	if _, ok := identity(c); ok {
		return true, nil
	}
	k := keyOf(c)
	fresh, err := w.protect(ctx, k, -1)
	if err != nil || fresh {
		return false, err
	}
	return true, w.note(ctx, k)
}

// protect keeps k from the collector, and reports whether it must be written:
// it is neither stored nor on its way.
func (w *Session) protect(ctx context.Context, k key, length int) (fresh bool, err error) {
	w.s.mu.RLock()
	defer w.s.mu.RUnlock()
	if w.s.closed.Load() {
		return false, ErrClosed
	}
	w.keysMu.Lock()
	defer w.keysMu.Unlock()
	bad := w.s.isDamaged(k)
	if w.keys[k] && !bad && length >= 0 {
		return false, nil
	}
	n, err := w.s.blocks.size(ctx, k)
	switch {
	case errors.Is(err, ErrNotFound):
		fresh, err = true, nil
	case err == nil:
		fresh = bad || length >= 0 && n != length
	}
	w.keys[k] = err == nil && (!fresh || length >= 0)
	return fresh, err
}

// note puts a stored block into the root's index with the next load.
func (w *Session) note(ctx context.Context, k key) error {
	if w.id == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.loadLocked()
	l.keys = append(l.keys, k)
	if len(l.keys) >= 16*loadBlocks {
		return w.shipLocked(ctx)
	}
	return w.err
}

// makeRoom reserves n bytes, collecting garbage once if they do not fit.
func (w *Session) makeRoom(ctx context.Context, n int64) error {
	err := w.s.reserve(n)
	if !errors.Is(err, ErrFull) {
		return err
	}
	w.mu.Lock()
	again := w.collected
	w.collected = true
	w.mu.Unlock()
	if again {
		return err
	}
	if _, gcErr := w.s.GC(ctx); gcErr != nil {
		return errors.Join(err, gcErr)
	}
	return w.s.reserve(n)
}

func (w *Session) loadLocked() *load {
	if w.cur == nil {
		w.cur = &load{inner: map[key][]byte{}}
	}
	return w.cur
}

// shipLocked starts committing the current load, after the one before.
func (w *Session) shipLocked(ctx context.Context) error {
	w.waitLocked()
	if w.err != nil || w.cur == nil {
		return w.err
	}
	l := w.cur
	w.cur, w.going, w.result = nil, l, make(chan error, 1)
	result := w.result
	go func() { result <- w.commit(ctx, l) }()
	return nil
}

func (w *Session) waitLocked() {
	if w.result == nil {
		return
	}
	err := <-w.result
	if w.err == nil {
		w.err = err
	}
	w.result, w.going = nil, nil
}

func (w *Session) commit(ctx context.Context, l *load) error {
	if l.batch != nil {
		if err := w.s.around(CommitBlocks, l.batch.commit); err != nil {
			return fmt.Errorf("write blocks: %w", err)
		}
	}
	w.s.forgetDamage(l.fresh...)
	if w.id == 0 {
		return nil
	}
	return w.s.indexBlocks(ctx, w.id, l.keys)
}

// Flush returns when all that was put is readable and survives a crash.
func (w *Session) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.shipLocked(ctx); err != nil {
		return err
	}
	w.waitLocked()
	return w.err
}

// get reads a block that may not be committed yet.
func (w *Session) get(ctx context.Context, c cid.Cid) ([]byte, error) {
	w.mu.Lock()
	for _, l := range []*load{w.cur, w.going} {
		if l == nil {
			continue
		}
		if d, ok := l.inner[keyOf(c)]; ok {
			w.mu.Unlock()
			return d, nil
		}
	}
	w.mu.Unlock()
	return w.s.Get(ctx, c)
}

// Close ends the session. What was not flushed may be lost; what was is left
// to the collector unless it is pinned or in use.
func (w *Session) Close() {
	w.mu.Lock()
	w.waitLocked()
	if l := w.cur; l != nil {
		if l.batch != nil {
			l.batch.discard()
		}
		w.cur = nil
	}
	if w.err == nil {
		w.err = errors.New("session is closed")
	}
	w.mu.Unlock()

	// A collection that has marked already must mark the root, whose blocks it
	// did not see, before the session's keys stop protecting them.
	w.s.mu.Lock()
	w.s.usesMu.Lock()
	if w.s.marking && w.root.Defined() {
		w.s.late = append(w.s.late, w.root)
	}
	w.s.usesMu.Unlock()
	delete(w.s.sessions, w)
	w.s.mu.Unlock()
	w.free()
}
