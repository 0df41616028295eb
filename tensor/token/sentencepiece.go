package token

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// ParseSentencePiece reads a SentencePiece .model: BPE or unigram, byte fallback,
// dummy prefix, extra spaces left out. Its normalizer must be identity, or have
// no character map; what else it may ask for is refused with ErrUnsupported. A
// byte that is not UTF-8 is an unknown character, where SentencePiece puts
// U+FFFD.
func ParseSentencePiece(data []byte) (*Tokenizer, error) {
	t, err := parseSentencePiece(data)
	if err != nil {
		return nil, fmt.Errorf("sentencepiece model: %w", err)
	}
	return t, nil
}

// fields calls visit with each field of a protobuf message: its number, and its
// value in n or in text.
func fields(data []byte, visit func(num protowire.Number, n uint64, text []byte) error) error {
	for at := 0; at < len(data); {
		num, kind, size := protowire.ConsumeTag(data[at:])
		if size < 0 {
			return fmt.Errorf("offset %d: %w", at, protowire.ParseError(size))
		}
		var n uint64
		var text []byte
		rest, used := data[at+size:], 0
		switch kind {
		case protowire.VarintType:
			n, used = protowire.ConsumeVarint(rest)
		case protowire.Fixed32Type:
			var v uint32
			v, used = protowire.ConsumeFixed32(rest)
			n = uint64(v)
		case protowire.BytesType:
			text, used = protowire.ConsumeBytes(rest)
		default:
			used = protowire.ConsumeFieldValue(num, kind, rest)
		}
		if used < 0 {
			return fmt.Errorf("field %d at offset %d: %w", num, at, protowire.ParseError(used))
		}
		if err := visit(num, n, text); err != nil {
			return fmt.Errorf("field %d at offset %d: %w", num, at, err)
		}
		at += size + used
	}
	return nil
}

// spTrainer and spNormalizer are the parts of a model that bear on encoding.
type spTrainer struct {
	model    uint64
	fallback bool
	suffix   bool
	bos, eos int32
}

type spNormalizer struct {
	name                 string
	charsMap             int
	prefix, trim, escape bool
}

const (
	spUnigram = 1
	spBPE     = 2
)

func parseSentencePiece(data []byte) (*Tokenizer, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), MaxFile)
	}
	s := newSpec()
	tr := spTrainer{model: spUnigram, bos: 1, eos: 2}
	nz := spNormalizer{prefix: true, trim: true, escape: true}
	err := fields(data, func(num protowire.Number, _ uint64, text []byte) error {
		switch num {
		case 1:
			p, err := parsePiece(text)
			s.pieces = append(s.pieces, p)
			if len(s.pieces) > MaxVocab {
				return fmt.Errorf("more than %d tokens", MaxVocab)
			}
			return err
		case 2:
			return tr.parse(text)
		case 3:
			return nz.parse(text)
		case 5:
			var d spNormalizer
			if err := d.parse(text); err != nil {
				return err
			}
			if d.charsMap > 0 {
				return unsupported("denormalizer %q", d.name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch {
	case nz.charsMap > 0:
		return nil, unsupported("normalizer %q with a character map of %d bytes", nz.name, nz.charsMap)
	case !nz.escape:
		return nil, unsupported("escape_whitespaces false")
	case tr.suffix:
		return nil, unsupported("treat_whitespace_as_suffix")
	case tr.model != spUnigram && tr.model != spBPE:
		return nil, unsupported("model type %d (unigram is 1, BPE 2)", tr.model)
	}
	s.space = spaces{escape: true, trim: nz.trim, early: true}
	if nz.prefix {
		s.space.prefix = prefixFirst
	}
	s.unigram, s.byteFallback, s.fuseUnknown = tr.model == spUnigram, tr.fallback, true
	if err := s.takeSentencePieces(); err != nil {
		return nil, err
	}
	for _, end := range []struct {
		from int32
		to   *ID
	}{{tr.bos, &s.bos}, {tr.eos, &s.eos}} {
		if end.from >= 0 && int(end.from) < len(s.pieces) && s.pieces[end.from].kind == control {
			*end.to = ID(end.from)
		}
	}
	return build(s)
}

// takeSentencePieces checks the pieces and makes a BPE's merges.
func (s *spec) takeSentencePieces() (err error) {
	for id, p := range s.pieces {
		switch {
		case p.kind == unknown && s.unk != none:
			return fmt.Errorf("tokens %d and %d both stand for what is unknown", s.unk, id)
		case p.kind == unknown:
			s.unk = ID(id)
		case p.kind == unused && !s.unigram:
			return unsupported("unused token %d of a BPE", id)
		case p.kind == fallback && !s.byteFallback:
			return fmt.Errorf("token %d is a byte, but byte_fallback is off", id)
		case p.kind == normal && len(p.text) > maxPiece:
			return fmt.Errorf("token %d has %d bytes, want at most %d", id, len(p.text), maxPiece)
		}
	}
	if s.unk == none {
		return errors.New("no token stands for what is unknown")
	}
	if !s.unigram {
		s.joins, err = scoredJoins(s.pieces)
		return err
	}
	for id := range s.pieces {
		if s.pieces[id].kind != normal {
			s.pieces[id].score = 0
		}
	}
	return nil
}

func parsePiece(data []byte) (piece, error) {
	var p piece
	err := fields(data, func(num protowire.Number, n uint64, text []byte) error {
		switch num {
		case 1:
			p.text = string(text)
		case 2:
			if p.score = math.Float32frombits(uint32(n)); math.IsNaN(float64(p.score)) || math.IsInf(float64(p.score), 0) {
				return fmt.Errorf("score %g", p.score)
			}
		case 3:
			k, ok := kindOf(int64(min(n, math.MaxInt32)))
			if !ok {
				return fmt.Errorf("type %d, want 1 to 6", n)
			}
			p.kind = k
		}
		return nil
	})
	return p, err
}

func (t *spTrainer) parse(data []byte) error {
	return fields(data, func(num protowire.Number, n uint64, _ []byte) error {
		switch num {
		case 3:
			t.model = n
		case 24:
			t.suffix = n != 0
		case 35:
			t.fallback = n != 0
		case 41:
			t.bos = int32(n)
		case 42:
			t.eos = int32(n)
		}
		return nil
	})
}

func (z *spNormalizer) parse(data []byte) error {
	return fields(data, func(num protowire.Number, n uint64, text []byte) error {
		switch num {
		case 1:
			z.name = string(text)
		case 2:
			z.charsMap = len(text)
		case 3:
			z.prefix = n != 0
		case 4:
			z.trim = n != 0
		case 5:
			z.escape = n != 0
		}
		return nil
	})
}
