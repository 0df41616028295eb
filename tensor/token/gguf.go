package token

import (
	"fmt"
	"math"
)

// GGUF is what a GGUF file's metadata say of its vocabulary: the values of the
// keys that begin with tokenizer.ggml., nil or empty where the file has none.
type GGUF struct {
	Model         string    // model: gpt2 or llama
	Pre           string    // pre
	Tokens        []string  // tokens
	Scores        []float32 // scores
	Types         []int32   // token_type
	Merges        []string  // merges
	BOS, EOS, Unk *uint32   // bos_token_id, eos_token_id, unknown_token_id
	AddBOS        *bool     // add_bos_token
	AddEOS        *bool     // add_eos_token
	AddPrefix     *bool     // add_space_prefix
	Trim          *bool     // remove_extra_whitespaces
	CharsMap      []byte    // precompiled_charsmap
}

// Token types, as GGUF and SentencePiece number them.
var kinds = [...]kind{1: normal, 2: unknown, 3: control, 4: user, 5: unused, 6: fallback}

func kindOf(n int64) (kind, bool) {
	if n < 1 || n >= int64(len(kinds)) {
		return 0, false
	}
	return kinds[n], true
}

// pres are the names of pre-tokenizers.
var pres = map[string]struct {
	split      Splitter
	whole, bos bool
}{
	"gpt-2":     {split: GPT2},
	"llama-bpe": {split: CL100K, whole: true, bos: true},
	"llama3":    {split: CL100K, whole: true, bos: true},
	"llama-v3":  {split: CL100K, whole: true, bos: true},
	"qwen2":     {split: Qwen2},
}

// FromGGUF makes the tokenizer that a GGUF file describes, to give llama.cpp's
// tokens. Other models and pre-tokenizers are refused with ErrUnsupported. Unlike
// llama.cpp, plain text never makes a control token of a llama vocabulary.
func FromGGUF(g GGUF) (*Tokenizer, error) {
	t, err := fromGGUF(g)
	if err != nil {
		return nil, fmt.Errorf("gguf vocabulary: %w", err)
	}
	return t, nil
}

func fromGGUF(g GGUF) (*Tokenizer, error) {
	s := newSpec()
	if len(g.Types) != 0 && len(g.Types) != len(g.Tokens) {
		return nil, fmt.Errorf("token_type has %d values for %d tokens", len(g.Types), len(g.Tokens))
	}
	if len(g.CharsMap) > 0 {
		return nil, unsupported("precompiled_charsmap")
	}
	for _, end := range []struct {
		name string
		from *uint32
		to   *ID
	}{{"bos", g.BOS, &s.bos}, {"eos", g.EOS, &s.eos}, {"unknown", g.Unk, &s.unk}} {
		if end.from == nil {
			continue
		}
		if int64(*end.from) >= int64(len(g.Tokens)) {
			return nil, fmt.Errorf("%s_token_id is %d, with %d tokens", end.name, *end.from, len(g.Tokens))
		}
		*end.to = ID(*end.from)
	}
	s.pieces = make([]piece, len(g.Tokens))
	for id, text := range g.Tokens {
		k := normal
		if len(g.Types) > 0 {
			var ok bool
			if k, ok = kindOf(int64(g.Types[id])); !ok {
				return nil, fmt.Errorf("token_type of %d is %d, want 1 to 6", id, g.Types[id])
			}
		}
		if k == unknown && ID(id) != s.unk {
			k = control // padding, in files of converters
		}
		s.pieces[id] = piece{text: text, kind: k}
	}
	addBOS, err := g.fill(&s)
	if err != nil {
		return nil, err
	}
	if g.AddBOS != nil {
		addBOS = *g.AddBOS
	}
	if addBOS {
		if s.bos == none {
			return nil, fmt.Errorf("add_bos_token, but there is no bos_token_id")
		}
		s.before = []ID{s.bos}
	}
	if g.AddEOS != nil && *g.AddEOS {
		if s.eos == none {
			return nil, fmt.Errorf("add_eos_token, but there is no eos_token_id")
		}
		s.after = []ID{s.eos}
	}
	return build(s)
}

// fill does what hangs on the model. addBOS is what a file that doesn't say means.
func (g *GGUF) fill(s *spec) (addBOS bool, err error) {
	trim := g.Trim != nil && *g.Trim
	switch g.Model {
	case "gpt2":
		pre, ok := pres[g.Pre]
		switch {
		case !ok:
			return false, unsupported("pre %q", g.Pre)
		case g.AddPrefix != nil && *g.AddPrefix:
			return false, unsupported("add_space_prefix of a gpt2 vocabulary")
		}
		s.byteLevel, s.split, s.whole = true, pre.split, pre.whole
		for id, p := range s.pieces {
			switch p.kind {
			case fallback:
				return false, unsupported("byte token %d of a gpt2 vocabulary", id)
			case unused:
				s.pieces[id].kind = control // padding
			}
		}
		if s.unk != none {
			s.pieces[s.unk].kind = unknown
		}
		if err := unspellAll(s.pieces); err != nil {
			return false, err
		}
		merges := make([][2]string, len(g.Merges))
		for i, text := range g.Merges {
			var m mergeText
			if err := m.parse(text); err != nil {
				return false, fmt.Errorf("merges[%d]: %w", i, err)
			}
			merges[i] = m
		}
		return pre.bos, readJoins(merges, s)
	case "llama":
		if len(g.Scores) != len(g.Tokens) {
			return false, fmt.Errorf("scores has %d values for %d tokens", len(g.Scores), len(g.Tokens))
		}
		for id, score := range g.Scores {
			if math.IsNaN(float64(score)) {
				return false, fmt.Errorf("scores[%d] is not a number", id)
			}
			s.pieces[id].score = score
		}
		if s.unk != none {
			s.pieces[s.unk].kind = unknown
		}
		for id := range s.pieces {
			switch p := &s.pieces[id]; p.kind {
			case unused:
				p.kind = normal // as in llama.cpp
			case fallback:
				s.byteFallback = true
			}
		}
		s.fuseUnknown = true
		s.space = spaces{escape: true, prefix: prefixAlways, trim: trim}
		if g.AddPrefix != nil && !*g.AddPrefix {
			s.space.prefix = prefixNever
		}
		if trim {
			return false, unsupported("remove_extra_whitespaces of a llama vocabulary")
		}
		s.joins, err = scoredJoins(s.pieces)
		return true, err
	}
	return false, unsupported("model %q", g.Model)
}
