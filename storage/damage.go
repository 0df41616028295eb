package storage

import (
	"context"
	"maps"
	"slices"

	"github.com/ipfs/go-cid"
)

// foundDamaged notes that a stored block's bytes are not what its CID says. It
// counts as missing from now on, until a put replaces it.
func (s *Store) foundDamaged(c cid.Cid) {
	if !s.setDamaged(c, true) {
		return
	}
	s.cfg.Log.Error("stored block is damaged", "cid", c.String())
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

// setDamaged reports whether that is news.
func (s *Store) setDamaged(c cid.Cid, bad bool) (news bool) {
	k := keyOf(c)
	s.damagedMu.Lock()
	defer s.damagedMu.Unlock()
	_, was := s.damaged[k]
	if bad {
		s.damaged[k] = c
	} else {
		delete(s.damaged, k)
	}
	return was != bad
}

func (s *Store) replaced(keys []key) {
	s.damagedMu.Lock()
	defer s.damagedMu.Unlock()
	for _, k := range keys {
		delete(s.damaged, k)
	}
}

// Damage is a stored block whose bytes a read found wrong, and what lacks it.
type Damage struct {
	Block cid.Cid
	Roots []Root
}

// Damaged lists what reads have found damaged since the store was opened, and was
// not replaced since. What no root holds any more is not listed.
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
			s.setDamaged(c, false)
			continue
		}
		out = append(out, Damage{Block: c, Roots: roots})
	}
	return out, nil
}

// missDropped notes what the store had and found damaged when it was opened.
func (s *Store) missDropped(ctx context.Context) error {
	packs, ok := s.blocks.(*packBlocks)
	if !ok {
		return nil
	}
	for _, k := range packs.p.Dropped() {
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
		s.foundDamaged(c)
	}
	return nil
}
