package token

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// scoredJoins are the merges of SentencePiece's BPE, which has none written down:
// any two tokens that together are one may be joined, those of the highest score
// first, of equal ones the leftmost.
func scoredJoins(pieces []piece) ([]join, error) {
	ids := make(map[string]ID, len(pieces))
	for id, p := range pieces {
		if p.kind != normal {
			continue
		}
		if len(p.text) > maxPiece {
			return nil, unsupported("token %d of %d bytes, where %d is the most,", id, len(p.text), maxPiece)
		}
		ids[p.text] = ID(id)
	}
	var joins []join
	for id, p := range pieces {
		if p.kind != normal {
			continue
		}
		for i, r := range p.text {
			if _, ok := ids[p.text[i:i+max(1, utf8.RuneLen(r))]]; !ok {
				return nil, unsupported("token %d, %q, whose character %q is no token itself,", id, p.text, r)
			}
			left, ok1 := ids[p.text[:i]]
			right, ok2 := ids[p.text[i:]]
			if i > 0 && ok1 && ok2 {
				joins = append(joins, join{left: left, right: right, into: ID(id)})
			}
		}
	}
	score := func(j join) float32 { return pieces[j.into].score }
	slices.SortFunc(joins, func(a, b join) int {
		return cmp.Or(cmp.Compare(score(b), score(a)), cmp.Compare(a.into, b.into), cmp.Compare(a.left, b.left))
	})
	for i := 1; i < len(joins); i++ {
		joins[i].rank = joins[i-1].rank
		if score(joins[i]) != score(joins[i-1]) {
			joins[i].rank++
		}
	}
	for id := range pieces {
		pieces[id].score = 0 // the ranks say it
	}
	return joins, nil
}
