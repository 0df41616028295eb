package token

import (
	"math"
	"unicode/utf8"
)

// unigram takes the cut of a text whose pieces' log probabilities have the
// greatest sum (Kudo, 2018), summed in float32 from the left as SentencePiece
// does; of equal ones the one whose last piece is longest.
type unigram struct {
	spec    *spec
	pieces  *prefixes
	bytes   [256]ID
	unknown float32 // score of one character that no piece is
}

// unknownPenalty is how much less an unknown character scores than the least
// probable piece.
const unknownPenalty = 10

func newUnigram(s *spec, ids map[string]ID) *unigram {
	u := &unigram{spec: s, pieces: newPrefixes(ids)}
	least := float32(math.MaxFloat32)
	for i := range u.bytes {
		u.bytes[i] = none
	}
	for id, p := range s.pieces {
		switch p.kind {
		case normal:
			least = min(least, p.score)
		case fallback:
			b, _ := byteName(p.text)
			u.bytes[b] = ID(id)
		}
	}
	u.unknown = least - unknownPenalty
	return u
}

// place is the best cut of the text before it.
type place struct {
	score float32
	from  int32 // where its last piece begins; -1: not reached
	id    ID    // of that piece; none: an unknown character
}

func (u *unigram) encode(dst []ID, text string, at int) ([]ID, error) {
	places := make([]place, len(text)+1)
	for i := range places {
		places[i].from = -1
	}
	places[0].from = 0
	reach := func(from, to int, score float32, id ID) {
		p := &places[to]
		if score += places[from].score; p.from < 0 || score > p.score {
			*p = place{score, int32(from), id}
		}
	}
	for i := 0; i < len(text); {
		_, size := utf8.DecodeRuneInString(text[i:])
		single := false
		u.pieces.each(text[i:], func(n int, id ID) {
			reach(i, i+n, u.spec.pieces[id].score, id)
			single = single || n == size
		})
		if !single {
			reach(i, i+size, u.unknown, none)
		}
		i += size
	}
	var cuts []int32 // ends of pieces, last first
	for i := int32(len(text)); i > 0; i = places[i].from {
		cuts = append(cuts, i)
	}
	lacking := false
	for k := len(cuts) - 1; k >= 0; k-- {
		p := places[cuts[k]]
		if p.id != none {
			dst, lacking = append(dst, p.id), false
			continue
		}
		char := text[p.from:cuts[k]]
		if u.spec.byteFallback && u.haveBytes(char) {
			for i := range len(char) {
				dst = append(dst, u.bytes[char[i]])
			}
			continue
		}
		if u.spec.unk == none {
			return dst, missing(char, at+int(p.from))
		}
		if !lacking {
			dst = append(dst, u.spec.unk)
		}
		lacking = true
	}
	return dst, nil
}

func (u *unigram) haveBytes(char string) bool {
	for i := range len(char) {
		if u.bytes[char[i]] == none {
			return false
		}
	}
	return true
}
