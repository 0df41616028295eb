package token

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// kind of a vocabulary's entry.
type kind uint8

const (
	normal   kind = iota
	control       // special: it stands for no text
	user          // looked for in text before anything else
	unknown       // stands for what the vocabulary lacks
	fallback      // one byte of such a character, named <0x00> to <0xFF>
	unused        // never made
	hole          // no entry at all
)

func (k kind) special() bool { return k == control || k == unknown }

// piece is a vocabulary's entry. Byte-level vocabularies hold bytes here, others
// text in which meta may stand for a space.
type piece struct {
	text  string
	score float32 // unigram: log probability
	kind  kind
}

// join is a merge of a BPE: left and right beside each other become into. The
// one of lowest rank is made first, of equal ones the leftmost.
type join struct {
	left, right, into ID
	rank              uint32
}

// prefixMode says where a space is put before text.
type prefixMode uint8

const (
	prefixNever  prefixMode = iota
	prefixFirst             // before a text, unless an added token begins it
	prefixAlways            // before it, and after every added token
)

// spaces is what becomes of them in SentencePiece's family.
type spaces struct {
	escape bool // write meta for them
	prefix prefixMode
	unless bool // put none before text that begins with one
	split  bool // cut before each one
	trim   bool // leave out those at the ends and more than one in a row
	early  bool // all this before added tokens are looked for, not after
}

// meta is what SentencePiece writes for a space.
const meta = "\u2581"

// spec is all that a tokenizer is.
type spec struct {
	pieces        []piece
	joins         []join // by rank; nil for a unigram model
	unigram       bool
	byteLevel     bool // symbols are bytes, not characters
	split         Splitter
	nfc           bool
	space         spaces
	whole         bool // a piece that is in the vocabulary is that token, whatever merges say
	byteFallback  bool
	fuseUnknown   bool
	unk, bos, eos ID
	before, after []ID
}

func newSpec() spec { return spec{unk: none, bos: none, eos: none} }

// build makes the tokenizer of a spec that a reader filled, and checks what they
// have in common.
func build(s spec) (*Tokenizer, error) {
	if len(s.pieces) == 0 {
		return nil, fmt.Errorf("the vocabulary is empty")
	}
	if len(s.pieces) > MaxVocab {
		return nil, fmt.Errorf("the vocabulary has %d tokens, want at most %d", len(s.pieces), MaxVocab)
	}
	for _, id := range append(append([]ID{s.unk, s.bos, s.eos}, s.before...), s.after...) {
		if id != none && (int(id) >= len(s.pieces) || s.pieces[id].kind == hole) {
			return nil, fmt.Errorf("a special token is %d, which the vocabulary of %d does not have", id, len(s.pieces))
		}
	}
	t := &Tokenizer{spec: s, ids: make(map[string]ID, len(s.pieces)), special: map[string]ID{}}
	plain, all := map[string]ID{}, map[string]ID{}
	seen := make(map[string]ID, len(s.pieces)) // as files spell them
	for i, p := range s.pieces {
		id := ID(i)
		if p.kind != hole {
			text := s.written(id)
			if other, ok := seen[text]; ok {
				return nil, fmt.Errorf("tokens %d and %d are both written %q", other, id, text)
			}
			seen[text] = id
		}
		if !utf8.ValidString(p.text) && !(s.byteLevel && p.kind == normal) {
			return nil, fmt.Errorf("token %d is %q, which is not UTF-8", id, p.text)
		}
		switch p.kind {
		case normal:
			if p.text == "" {
				return nil, fmt.Errorf("token %d is empty", id)
			}
			if _, ok := byteName(p.text); ok && s.byteFallback {
				return nil, unsupported("token %d, %q, which is named as a byte but is none,", id, p.text)
			}
			t.ids[p.text] = id
		case control, user, unknown:
			if p.text == "" || len(p.text) > maxSpecial {
				return nil, fmt.Errorf("added token %d has %d bytes, want 1 to %d", id, len(p.text), maxSpecial)
			}
			all[p.text] = id
			if p.kind == user {
				plain[p.text] = id
			} else {
				t.special[p.text] = id
			}
		case fallback:
			if _, ok := byteName(p.text); !ok {
				return nil, fmt.Errorf("token %d is %q, want a byte's name such as <0x0A>", id, p.text)
			}
		}
	}
	t.plain, t.all = newPrefixes(plain), newPrefixes(all)
	if s.unigram {
		t.model = newUnigram(&t.spec, t.ids)
	} else {
		b, err := newBPE(&t.spec, t.ids)
		if err != nil {
			return nil, err
		}
		t.model = b
	}
	t.file = sync.OnceValue(func() []byte { return appendFile(nil, &t.spec) })
	return t, nil
}

// CID names the tokenizer: version 1, raw, SHA-256 of File's bytes, in base 32.
// Equal tokenizers have equal ones, whatever file they were read from. A store
// that cuts files into blocks names one of several blocks by another.
func (t *Tokenizer) CID() string {
	sum := sha256.Sum256(t.file())
	cid := append([]byte{1, 0x55, 0x12, sha256.Size}, sum[:]...)
	return "b" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(cid))
}

// File is the tokenizer in its canonical form, a Hugging Face tokenizer.json,
// which ParseFile reads back. The caller must not change it.
func (t *Tokenizer) File() []byte { return t.file() }

// WithEnds gives the same tokenizer with other BOS and EOS tokens, which must be
// special ones of it; "" for none. Frame is left as it was.
func (t *Tokenizer) WithEnds(bos, eos string) (*Tokenizer, error) {
	s := t.spec
	for _, end := range []struct {
		to   *ID
		text string
	}{{&s.bos, bos}, {&s.eos, eos}} {
		*end.to = none
		if end.text != "" {
			id, ok := t.Special(end.text)
			if !ok {
				return nil, fmt.Errorf("%q is no special token of this vocabulary", end.text)
			}
			*end.to = id
		}
	}
	return build(s)
}

// byteName reads <0x00> to <0xFF>.
func byteName(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	hi, lo := strings.IndexByte(hexDigits, s[3]), strings.IndexByte(hexDigits, s[4])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

const hexDigits = "0123456789ABCDEF"
