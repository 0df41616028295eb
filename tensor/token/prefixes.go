package token

import (
	"maps"
	"slices"
	"sort"
)

// prefixes finds those of a set of texts that another text begins with.
type prefixes struct {
	texts []string // sorted
	ids   []ID
	first [257]int32 // where the texts begin whose first byte is at least this
}

// newPrefixes is nil for an empty set; the empty text is left out.
func newPrefixes(set map[string]ID) *prefixes {
	texts := slices.Sorted(maps.Keys(set))
	if len(texts) > 0 && texts[0] == "" {
		texts = texts[1:]
	}
	if len(texts) == 0 {
		return nil
	}
	p := &prefixes{texts: texts, ids: make([]ID, len(texts))}
	for i, text := range texts {
		p.ids[i] = set[text]
		p.first[int(text[0])+1] = int32(i + 1)
	}
	for b := range 256 {
		p.first[b+1] = max(p.first[b+1], p.first[b])
	}
	return p
}

// each yields every text of the set that begins text, by its length, shortest
// first.
func (p *prefixes) each(text string, yield func(n int, id ID)) {
	if p == nil || text == "" {
		return
	}
	lo, hi := int(p.first[text[0]]), int(p.first[int(text[0])+1])
	for depth := 1; lo < hi; depth++ {
		if len(p.texts[lo]) == depth {
			yield(depth, p.ids[lo])
			lo++
		}
		if depth == len(text) {
			return
		}
		b, from := text[depth], lo
		lo += sort.Search(hi-lo, func(i int) bool { return p.texts[from+i][depth] >= b })
		from = lo
		lo, hi = from, from+sort.Search(hi-from, func(i int) bool { return p.texts[from+i][depth] > b })
	}
}

// longest is the longest text of the set that begins text; n is 0 if none does.
func (p *prefixes) longest(text string) (id ID, n int) {
	p.each(text, func(length int, found ID) { id, n = found, length })
	return id, n
}
