package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrUnsupported is what a tokenizer is refused with that asks for something
// this package does not do. The error's text names it.
var ErrUnsupported = errors.New("not supported")

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrUnsupported)
}

// MaxFile is how many bytes of a tokenizer's file are read.
const MaxFile = 128 << 20

// file is a tokenizer.json. Truncation and padding are not about what the tokens
// are, and are passed over.
type file struct {
	Version       string          `json:"version"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
	Own           json.RawMessage `json:"kith"`
}

type addedToken struct {
	ID         ID     `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// ParseFile reads a Hugging Face tokenizer.json: BPE, of bytes or in
// SentencePiece's manner, and Unigram. It fails with ErrUnsupported where the
// file names a normalizer, pattern, model or option that is not known here.
func ParseFile(data []byte) (*Tokenizer, error) {
	t, err := parseFile(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	return t, nil
}

func parseFile(data []byte) (*Tokenizer, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), MaxFile)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Version != "1.0" && f.Version != "" {
		return nil, unsupported("version %q", f.Version)
	}
	s := newSpec()
	for _, part := range []struct {
		name string
		raw  json.RawMessage
		read func(json.RawMessage, *spec) error
	}{{"normalizer", f.Normalizer, readNormalizer}, {"pre_tokenizer", f.PreTokenizer, readPreTokenizer}, {"decoder", f.Decoder, checkDecoder}} {
		if err := part.read(part.raw, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	for _, a := range f.AddedTokens {
		switch {
		case a.SingleWord:
			return nil, unsupported("added token %q: single_word", a.Content)
		case a.LStrip:
			return nil, unsupported("added token %q: lstrip", a.Content)
		case a.RStrip:
			return nil, unsupported("added token %q: rstrip", a.Content)
		case a.Normalized && !isNull(f.Normalizer):
			return nil, unsupported("added token %q: normalized", a.Content)
		}
	}
	if err := readModel(f.Model, f.AddedTokens, &s); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if err := readFrame(f.PostProcessor, &s); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	if err := readOwn(f.Own, &s); err != nil {
		return nil, fmt.Errorf("kith: %w", err)
	}
	return build(s)
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// strict decodes an object all of whose members v must have.
func strict(raw json.RawMessage, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// own is what tokenizer.json has no words for.
type own struct {
	Version int   `json:"version"`
	BOS     *ID   `json:"bos,omitempty"`
	EOS     *ID   `json:"eos,omitempty"`
	Trim    bool  `json:"trim,omitempty"`
	Early   bool  `json:"early,omitempty"`
	Prefix  bool  `json:"prefix_before_space,omitempty"`
	Unused  []ID  `json:"unused,omitempty"`
	Ties    []int `json:"merge_ties,omitempty"` // how many merges share each rank, in order
}

func readOwn(raw json.RawMessage, s *spec) error {
	if isNull(raw) {
		return nil
	}
	var o own
	if err := strict(raw, &o); err != nil {
		return err
	}
	if o.Version != 1 {
		return unsupported("version %d", o.Version)
	}
	if o.BOS != nil {
		s.bos = *o.BOS
	}
	if o.EOS != nil {
		s.eos = *o.EOS
	}
	if (o.Trim || o.Early || o.Prefix) && !s.space.escape {
		return errors.New("says what to do with spaces, but they are not written otherwise")
	}
	s.space.trim, s.space.early = o.Trim, o.Early
	s.space.unless = s.space.unless && !o.Prefix
	if len(o.Unused) > 0 && !s.unigram {
		return unsupported("unused tokens of a BPE")
	}
	for _, id := range o.Unused {
		if int64(id) >= int64(len(s.pieces)) || s.pieces[id].kind != normal {
			return fmt.Errorf("unused token %d is none of the model's", id)
		}
		s.pieces[id].kind = unused
	}
	if len(o.Ties) == 0 {
		return nil
	}
	left := s.joins
	for rank, n := range o.Ties {
		if n < 1 || n > len(left) {
			return fmt.Errorf("merge_ties[%d] is %d, want 1 to %d", rank, n, len(left))
		}
		for i := range n {
			left[i].rank = uint32(rank)
		}
		left = left[n:]
	}
	if len(left) > 0 {
		return fmt.Errorf("merge_ties leaves %d merges out", len(left))
	}
	return nil
}

// fill puts the entries of a vocabulary in their places. It bounds the holes
// between them by what the file has.
func fill(vocab map[string]ID, added []addedToken) ([]piece, error) {
	top := -1
	for _, id := range vocab {
		top = max(top, int(id))
	}
	for _, a := range added {
		top = max(top, int(a.ID))
	}
	if n := len(vocab) + len(added); top >= 2*n+256 || top >= MaxVocab {
		return nil, fmt.Errorf("the highest ID is %d, with %d tokens in all", top, n)
	}
	pieces := make([]piece, top+1)
	for i := range pieces {
		pieces[i].kind = hole
	}
	for text, id := range vocab {
		if pieces[id].kind != hole {
			return nil, fmt.Errorf("%q and %q are both token %d", min(text, pieces[id].text), max(text, pieces[id].text), id)
		}
		pieces[id] = piece{text: text}
	}
	return pieces, nil
}

// putAdded puts the added tokens among the model's.
func putAdded(pieces []piece, added []addedToken) error {
	for _, a := range added {
		p := &pieces[a.ID]
		if p.kind != hole && p.text != a.Content {
			return fmt.Errorf("token %d is %q in the vocabulary and %q among the added tokens", a.ID, p.text, a.Content)
		}
		*p = piece{text: a.Content, kind: user}
		if a.Special {
			p.kind = control
		}
	}
	return nil
}

// unspellAll turns a byte-level vocabulary's own entries into bytes.
func unspellAll(pieces []piece) error {
	for id := range pieces {
		if pieces[id].kind != normal {
			continue
		}
		raw, ok := unspell(pieces[id].text)
		if !ok {
			return fmt.Errorf("token %d is %q, which does not spell bytes", id, pieces[id].text)
		}
		pieces[id].text = raw
	}
	return nil
}

// nameBytes tells byte-fallback tokens by their names.
func nameBytes(pieces []piece) {
	for id := range pieces {
		if _, ok := byteName(pieces[id].text); ok && pieces[id].kind == normal {
			pieces[id].kind = fallback
		}
	}
}

// readJoins turns merges, each of two tokens as the file spells them, into ranks
// in their order. One that would make a special token is left out, so that no
// text of a user makes it.
func readJoins(merges [][2]string, s *spec) error {
	ids := make(map[string]ID, len(s.pieces))
	for id, p := range s.pieces {
		if p.kind != hole {
			ids[s.written(ID(id))] = ID(id)
		}
	}
	for i, m := range merges {
		left, ok1 := ids[m[0]]
		right, ok2 := ids[m[1]]
		into, ok3 := ids[m[0]+m[1]]
		if !ok1 || !ok2 || !ok3 {
			return fmt.Errorf("merge %d is of %q and %q, which with both together are not all in the vocabulary", i, m[0], m[1])
		}
		if s.pieces[into].kind.special() {
			continue
		}
		s.joins = append(s.joins, join{left, right, into, uint32(len(s.joins))})
	}
	return nil
}
