package token

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ParseGPT2 reads GPT-2's pair of files: a JSON object of tokens (vocab.json or
// encoder.json) and a line for each merge (merges.txt or vocab.bpe). They don't
// say how text is split, nor which tokens are special.
func ParseGPT2(vocab, merges []byte, split Splitter, special ...string) (*Tokenizer, error) {
	if len(vocab) > MaxFile || len(merges) > MaxFile {
		return nil, fmt.Errorf("vocab.json has %d bytes and merges.txt %d, want at most %d", len(vocab), len(merges), MaxFile)
	}
	if int(split) >= len(splitters) {
		return nil, fmt.Errorf("splitter %d is not known", split)
	}
	var ids map[string]ID
	if err := json.Unmarshal(vocab, &ids); err != nil {
		return nil, fmt.Errorf("vocab.json: %w", err)
	}
	pairs, err := parseMerges(merges)
	if err != nil {
		return nil, fmt.Errorf("merges.txt: %w", err)
	}
	var added []addedToken
	for i, text := range special {
		id, ok := ids[text]
		if !ok || slices.Contains(special[:i], text) {
			return nil, fmt.Errorf("vocab.json lacks the special token %q, or it was named twice", text)
		}
		added = append(added, addedToken{ID: id, Content: text, Special: true})
	}
	s := newSpec()
	s.byteLevel, s.split = true, split
	if err := s.fillBPE(ids, added, pairs, ""); err != nil {
		return nil, fmt.Errorf("vocab.json and merges.txt: %w", err)
	}
	return build(s)
}

// parseMerges reads a merge a line, after a first line that may name a version.
func parseMerges(data []byte) (out [][2]string, err error) {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || n == 1 && strings.HasPrefix(line, "#version") {
			continue
		}
		var m mergeText
		if err := m.parse(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, m)
	}
	return out, nil
}
