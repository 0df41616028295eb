package token

import (
	"container/heap"
	"fmt"
	"iter"
)

// TrainConfig says which byte-pair tokenizer to make. Tokens are the 256 bytes by
// value, then merges in the order they were found, then the special tokens.
type TrainConfig struct {
	Vocab    int      // tokens in all; Train makes fewer when the corpus has no more pairs
	Split    Splitter // merges never cross its cuts
	Special  []string
	MinCount int64 // how often a pair must occur to be merged; default 2
}

// trainWord is how many bytes of one piece are trained on together: a longer one
// is cut, so that a corpus without cuts costs no more than another.
const trainWord = 256

// Train makes a byte-pair tokenizer of a corpus: the pair that occurs most often
// becomes a token, until there are enough (Sennrich and others, 2016). Of pairs
// that occur equally often the one of lower IDs is first, left before right, so
// that equal corpora give equal tokenizers. Each text is split by itself.
func Train(texts iter.Seq[string], c TrainConfig) (*Tokenizer, error) {
	if c.MinCount == 0 {
		c.MinCount = 2
	}
	merges := c.Vocab - 256 - len(c.Special)
	switch {
	case merges < 0 || c.Vocab > MaxVocab:
		return nil, fmt.Errorf("train: vocab is %d, want %d (bytes and special tokens) to %d", c.Vocab, 256+len(c.Special), MaxVocab)
	case c.MinCount < 1:
		return nil, fmt.Errorf("train: min count is %d, want at least 1", c.MinCount)
	case int(c.Split) >= len(splitters):
		return nil, fmt.Errorf("train: splitter %d is not known", c.Split)
	}
	s := byteSpec()
	s.split = c.Split
	t := newTrainer(texts, c.Split)
	for range merges {
		p, ok := t.best(c.MinCount)
		if !ok {
			break
		}
		left, right, into := ID(p>>32), ID(p&0xffffffff), ID(len(s.pieces))
		s.joins = append(s.joins, join{left, right, into, uint32(len(s.joins))})
		s.pieces = append(s.pieces, piece{text: s.pieces[left].text + s.pieces[right].text})
		t.merge(p, into)
	}
	if err := s.addSpecial(c.Special); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	made, err := build(s)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	return made, nil
}

// trainer counts pairs as merges change them.
type trainer struct {
	words []word
	pairs map[pair]*tally
	queue tallyQueue // by count when pushed, which is never below the count now
}

// word is a distinct piece of the corpus.
type word struct {
	ids   []ID
	count int64
}

// tally is how often a pair occurs, and the words where it once did.
type tally struct {
	pair  pair
	count int64
	words []int32
}

func newTrainer(texts iter.Seq[string], split Splitter) *trainer {
	t := &trainer{pairs: map[pair]*tally{}}
	at := map[string]int32{}
	for text := range texts {
		for text != "" {
			n := split.Next(text)
			for piece := text[:n]; piece != ""; {
				cut := min(len(piece), trainWord)
				i, ok := at[piece[:cut]]
				if !ok {
					i = int32(len(t.words))
					ids := make([]ID, cut)
					for k := range ids {
						ids[k] = ID(piece[k])
					}
					at[string([]byte(piece[:cut]))] = i
					t.words = append(t.words, word{ids: ids})
				}
				t.words[i].count++
				piece = piece[cut:]
			}
			text = text[n:]
		}
	}
	for i, w := range t.words {
		for k := range len(w.ids) - 1 {
			t.add(pairOf(w.ids[k], w.ids[k+1]), w.count, int32(i))
		}
	}
	for _, p := range t.pairs {
		t.queue = append(t.queue, queued{p, p.count})
	}
	heap.Init(&t.queue)
	return t
}

// add counts a pair n times more, in a word.
func (t *trainer) add(p pair, n int64, in int32) {
	c := t.pairs[p]
	if c == nil {
		c = &tally{pair: p}
		t.pairs[p] = c
	}
	c.count += n
	if len(c.words) == 0 || c.words[len(c.words)-1] != in {
		c.words = append(c.words, in)
	}
}

// best takes the pair to merge off the queue.
func (t *trainer) best(least int64) (pair, bool) {
	for len(t.queue) > 0 {
		top := t.queue[0]
		if top.count != top.of.count { // it fell since
			if top.of.count < least {
				heap.Pop(&t.queue)
				continue
			}
			t.queue[0].count = top.of.count
			heap.Fix(&t.queue, 0)
			continue
		}
		heap.Pop(&t.queue)
		return top.of.pair, top.count >= least
	}
	return 0, false
}

// merge puts a token in the place of a pair, everywhere. The only pairs that come
// up by it hold the token.
func (t *trainer) merge(p pair, into ID) {
	left, right := ID(p>>32), ID(p&0xffffffff)
	var fresh []*tally
	for _, in := range t.pairs[p].words {
		w := &t.words[in]
		old := w.ids
		w.ids = make([]ID, 0, len(old))
		for i := 0; i < len(old); i++ {
			if i+1 < len(old) && old[i] == left && old[i+1] == right {
				w.ids = append(w.ids, into)
				i++
			} else {
				w.ids = append(w.ids, old[i])
			}
		}
		if len(w.ids) == len(old) { // an earlier merge took it
			continue
		}
		for i := range len(old) - 1 {
			t.pairs[pairOf(old[i], old[i+1])].count -= w.count
		}
		for i := range len(w.ids) - 1 {
			q := pairOf(w.ids[i], w.ids[i+1])
			if w.ids[i] != into && w.ids[i+1] != into {
				t.pairs[q].count += w.count
				continue
			}
			if t.pairs[q] == nil {
				t.pairs[q] = &tally{pair: q}
				fresh = append(fresh, t.pairs[q])
			}
			t.add(q, w.count, in)
		}
	}
	for _, f := range fresh {
		heap.Push(&t.queue, queued{f, f.count})
	}
}

// queued is a pair in the queue, with its count of then.
type queued struct {
	of    *tally
	count int64
}

type tallyQueue []queued

func (q tallyQueue) Len() int { return len(q) }
func (q tallyQueue) Less(i, j int) bool {
	if q[i].count != q[j].count {
		return q[i].count > q[j].count
	}
	return q[i].of.pair < q[j].of.pair
}
func (q tallyQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *tallyQueue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *tallyQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
