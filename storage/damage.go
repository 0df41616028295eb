package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// foundDamaged notes that a stored block's bytes are not what its CID says, or can't
// be read. It counts as missing from now on, until a put replaces it or Get reads it
// after all.
func (s *Store) foundDamaged(c cid.Cid, err error) {
	s.damagedMu.Lock()
	_, known := s.damaged[keyOf(c)]
	s.damaged[keyOf(c)] = c
	s.damagedMu.Unlock()
	if known {
		return
	}
	s.cfg.Log.Error("stored block is damaged", "cid", c.String(), "err", err)
	if s.cfg.OnDamage != nil {
		s.cfg.OnDamage(c)
	}
}

func (s *Store) isDamaged(k key) bool {
	s.damagedMu.Lock()
	defer s.damagedMu.Unlock()
	_, ok := s.damaged[k]
	return ok
}

// forgetDamage is for what was put anew, was read after all, or is needed no more.
func (s *Store) forgetDamage(keys ...key) {
	s.damagedMu.Lock()
	before := len(s.damaged)
	for _, k := range keys {
		delete(s.damaged, k)
	}
	fewer := len(s.damaged) < before
	s.damagedMu.Unlock()
	if fewer && s.cfg.OnRepair != nil {
		s.cfg.OnRepair()
	}
}

// Damage is a stored block whose bytes were found wrong, and what lacks it.
type Damage struct {
	Block cid.Cid
	Roots []Root
}

// Damaged lists what was found damaged since the store was opened, by it or by
// reads and collections, and was neither replaced nor read since. What no root holds any more is not listed.
func (s *Store) Damaged(ctx context.Context) ([]Damage, error) {
	s.damagedMu.Lock()
	blocks := slices.Collect(maps.Values(s.damaged))
	s.damagedMu.Unlock()
	slices.SortFunc(blocks, func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
	var out []Damage
	for _, c := range blocks {
		roots, err := s.queryRoots(ctx, `WHERE id IN (SELECT root FROM storage_blocks WHERE block = ?) ORDER BY id`, []byte(keyOf(c)))
		if err != nil {
			return nil, err
		}
		if len(roots) == 0 {
			s.forgetDamage(keyOf(c))
			continue
		}
		out = append(out, Damage{Block: c, Roots: roots})
	}
	return out, nil
}

// missDropped notes what was found damaged when the store was opened or compacted.
func (s *Store) missDropped(ctx context.Context) error {
	packs, ok := s.blocks.(*packBlocks)
	if !ok {
		return nil
	}
	return s.miss(ctx, packs.p.Dropped())
}

// missTorn notes what roots hold and is not there, if bytes were found at the
// opening that do not say what they were.
func (s *Store) missTorn(ctx context.Context) error {
	packs, ok := s.blocks.(*packBlocks)
	if !ok || !packs.p.Torn() {
		return nil
	}
	rows, err := s.db.QueryContext(ctx, `SELECT DISTINCT block FROM storage_blocks`)
	if err != nil {
		return fmt.Errorf("look for lost blocks: %w", err)
	}
	defer rows.Close()
	var keys []string
	for rows.Next() && len(keys) < maxLost {
		var k []byte
		if err := rows.Scan(&k); err != nil {
			return fmt.Errorf("look for lost blocks: %w", err)
		}
		if h, err := mh.Decode(k); err == nil && h.Code == mh.IDENTITY {
			continue // its CID carries it
		}
		if _, err := s.blocks.size(ctx, key(k)); errors.Is(err, ErrNotFound) {
			keys = append(keys, string(k))
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("look for lost blocks: %w", err)
	}
	return s.miss(ctx, keys)
}

// maxLost bounds the blocks that are named when a pack was torn.
const maxLost = 10_000

var errLost = errors.New("its record is not whole or can't be read")

// miss notes blocks that are lost.
func (s *Store) miss(ctx context.Context, keys []string) error {
	for _, k := range keys {
		roots, err := s.queryRoots(ctx, `WHERE id IN (SELECT root FROM storage_blocks WHERE block = ?)`, []byte(k))
		if err != nil {
			return err
		}
		if len(roots) == 0 {
			continue // it was never said to be stored
		}
		c := cid.NewCidV1(cid.Raw, []byte(k))
		for _, r := range roots {
			if keyOf(r.CID) == key(k) {
				c = r.CID
			}
		}
		s.foundDamaged(c, errLost)
	}
	return nil
}
