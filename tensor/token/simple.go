package token

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// Bytes is the tokenizer whose first 256 tokens are the bytes, by value; special
// tokens follow.
func Bytes(special ...string) (*Tokenizer, error) {
	s := byteSpec()
	if err := s.addSpecial(special); err != nil {
		return nil, err
	}
	return build(s)
}

// byteSpec has the 256 bytes and nothing else.
func byteSpec() spec {
	s := newSpec()
	s.byteLevel = true
	for b := range 256 {
		s.pieces = append(s.pieces, piece{text: string([]byte{byte(b)})})
	}
	return s
}

func (s *spec) addSpecial(texts []string) error {
	for i, text := range texts {
		if !utf8.ValidString(text) {
			return fmt.Errorf("special token %q is not UTF-8", text)
		}
		if slices.Contains(texts[:i], text) {
			return fmt.Errorf("special token %q stands twice", text)
		}
		s.pieces = append(s.pieces, piece{text: text, kind: control})
	}
	return nil
}

// Characters is the tokenizer whose tokens are the characters of a corpus, by
// code point; special tokens follow. Encode fails on any other character.
func Characters(corpus string, special ...string) (*Tokenizer, error) {
	if !utf8.ValidString(corpus) {
		return nil, fmt.Errorf("the corpus is not UTF-8: use the byte tokenizer")
	}
	seen := map[rune]bool{}
	for _, r := range corpus {
		seen[r] = true
	}
	s := newSpec()
	for _, r := range slices.Sorted(maps.Keys(seen)) {
		s.pieces = append(s.pieces, piece{text: string(r)})
	}
	if err := s.addSpecial(special); err != nil {
		return nil, err
	}
	return build(s)
}
