package token

import (
	"fmt"
	"math"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// ID is a token's number in its vocabulary, from 0.
type ID uint32

// Bounds of any vocabulary and of any one text.
const (
	MaxVocab   = 1 << 24
	MaxText    = 1 << 29 // bytes, so that offsets fit 32 bits when spaces take three
	maxSpecial = 256     // bytes of a token that is looked for in text before splitting
)

// none stands where a token is missing. It is above MaxVocab.
const none = ^ID(0)

// Tokenizer maps text to tokens and back. It never changes: any number of
// goroutines may use it.
type Tokenizer struct {
	spec
	ids     map[string]ID // texts that the model may make
	special map[string]ID
	plain   *prefixes // added tokens that are always looked for
	all     *prefixes // those, and special ones
	model   model
	file    func() []byte
}

// model cuts one piece of text, already normalised and split, into tokens. at is
// where the piece stands in the text, for errors.
type model interface {
	encode(dst []ID, text string, at int) ([]ID, error)
}

// Vocab is how many IDs there are: each is below it.
func (t *Tokenizer) Vocab() int { return len(t.pieces) }

// Special is the ID of the special token with a text.
func (t *Tokenizer) Special(text string) (ID, bool) {
	id, ok := t.special[text]
	return id, ok
}

// IsSpecial reports whether a token stands for no text of a user.
func (t *Tokenizer) IsSpecial(id ID) bool {
	return int(id) < len(t.pieces) && t.pieces[id].kind.special()
}

// BOS is the token that a text begins with, if there is one.
func (t *Tokenizer) BOS() (ID, bool) { return t.bos, t.bos != none }

// EOS is the token that ends a text, if there is one.
func (t *Tokenizer) EOS() (ID, bool) { return t.eos, t.eos != none }

// Frame puts the tokens around a text's that its tokenizer's file asks for, such
// as BOS. The result may share memory with ids.
func (t *Tokenizer) Frame(ids []ID) []ID {
	if len(t.before) > 0 {
		ids = append(append(make([]ID, 0, len(t.before)+len(ids)+len(t.after)), t.before...), ids...)
	}
	return append(ids, t.after...)
}

// Encode gives the tokens of a text, any bytes at all, without those of Frame.
// The texts of special tokens in it are plain text. It fails on a text above
// MaxText, and on a character that the vocabulary lacks, which a byte-level one
// does not.
func (t *Tokenizer) Encode(text string) ([]ID, error) { return t.Append(nil, text, false) }

// EncodeSpecial is Encode, but gives special tokens for their texts. Never hand
// it the text of somebody else.
func (t *Tokenizer) EncodeSpecial(text string) ([]ID, error) { return t.Append(nil, text, true) }

// Append appends the tokens of a text to dst, as Encode gives them, or with
// special as EncodeSpecial does.
func (t *Tokenizer) Append(dst []ID, text string, special bool) ([]ID, error) {
	if len(text) > MaxText {
		return dst, fmt.Errorf("encode: the text has %d bytes, want at most %d: cut it", len(text), MaxText)
	}
	find := t.plain
	if special {
		find = t.all
	}
	if t.space.early {
		text = t.normalise(text, true)
	}
	begin, from := len(dst), 0 // of dst; of the text since the last added token
	flush := func(to int) (err error) {
		if from < to {
			dst, err = t.fragment(dst, text[from:to], from)
		}
		return err
	}
	for at := 0; at < len(text) && find != nil; {
		id, n := find.longest(text[at:])
		if n == 0 {
			at++
			continue
		}
		if err := flush(at); err != nil {
			return dst[:begin], fmt.Errorf("encode: %w", err)
		}
		dst = append(dst, id)
		at += n
		from = at
	}
	if err := flush(len(text)); err != nil {
		return dst[:begin], fmt.Errorf("encode: %w", err)
	}
	return dst, nil
}

// fragment appends the tokens of text between two added tokens.
func (t *Tokenizer) fragment(dst []ID, text string, at int) ([]ID, error) {
	if !t.space.early {
		text = t.normalise(text, at == 0)
	}
	if len(text) > math.MaxInt32 {
		return dst, fmt.Errorf("the text has %d bytes when normalised, want at most %d: cut it", len(text), math.MaxInt32)
	}
	var err error
	for done := 0; done < len(text); {
		n := t.next(text[done:])
		if dst, err = t.model.encode(dst, text[done:done+n], at+done); err != nil {
			return dst, err
		}
		done += n
	}
	return dst, nil
}

// normalise does to text what is done before it is cut. first: it begins a text.
func (s *spec) normalise(text string, first bool) string {
	if s.nfc {
		text = norm.NFC.String(text)
	}
	if !s.space.escape {
		return text
	}
	if s.space.trim {
		text = strings.Trim(text, " ")
		for strings.Contains(text, "  ") {
			text = strings.ReplaceAll(text, "  ", " ")
		}
	}
	text = strings.ReplaceAll(text, " ", meta)
	if text == "" || s.space.prefix == prefixNever || s.space.prefix == prefixFirst && !first || s.space.unless && strings.HasPrefix(text, meta) {
		return text
	}
	return meta + text
}

// next is the length of the first of the pieces that the model sees alone.
func (t *Tokenizer) next(text string) int {
	if t.space.split {
		if i := strings.Index(text[1:], meta); i >= 0 {
			return 1 + i
		}
		return len(text)
	}
	return t.split.Next(text)
}

// Decode gives the bytes that tokens stand for, special ones with their texts.
// For byte-level tokenizers it undoes Encode exactly. It fails on an ID that the
// vocabulary lacks.
func (t *Tokenizer) Decode(ids []ID) ([]byte, error) {
	out := make([]byte, 0, 4*len(ids))
	start := t.space.prefix != prefixNever // here the space stands that normalise put
	for i, id := range ids {
		if int(id) >= len(t.pieces) || t.pieces[id].kind == hole {
			return nil, fmt.Errorf("decode: token %d is %d, which this vocabulary of %d does not have", i, id, len(t.pieces))
		}
		from, k := len(out), t.pieces[id].kind
		out = t.appendBytes(out, id)
		if start && (k == normal || k == user && t.space.early) && out[from] == ' ' {
			out = append(out[:from], out[from+1:]...)
		}
		if t.space.prefix == prefixAlways {
			start = k == control || k == user
		} else {
			start = start && k == control
		}
	}
	return out, nil
}

// Bytes is what a token stands for in the middle of a text; nil for an ID that
// the vocabulary lacks.
func (t *Tokenizer) Bytes(id ID) []byte {
	if int(id) >= len(t.pieces) {
		return nil
	}
	return t.appendBytes(nil, id)
}

func (t *Tokenizer) appendBytes(dst []byte, id ID) []byte {
	p := t.pieces[id]
	switch {
	case p.kind == fallback:
		b, _ := byteName(p.text)
		return append(dst, b)
	case t.space.escape && (p.kind == normal || p.kind == user && t.space.early):
		for rest := p.text; ; {
			before, after, found := strings.Cut(rest, meta)
			dst = append(dst, before...)
			if !found {
				return dst
			}
			dst, rest = append(dst, ' '), after
		}
	}
	return append(dst, p.text...)
}
