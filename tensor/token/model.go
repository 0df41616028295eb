package token

import (
	"encoding/json"
	"fmt"
	"strings"
)

// mergeText is one merge of a tokenizer.json: "a b", or ["a", "b"].
type mergeText [2]string

// UnmarshalJSON reads either form.
func (m *mergeText) UnmarshalJSON(data []byte) error {
	if len(data) == 0 || data[0] != '"' {
		var list []string
		if err := json.Unmarshal(data, &list); err != nil {
			return err
		}
		if len(list) != 2 {
			return fmt.Errorf("a merge of %d tokens, want 2", len(list))
		}
		*m = mergeText(list)
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	return m.parse(text)
}

func (m *mergeText) parse(text string) error {
	left, right, ok := strings.Cut(text, " ")
	if !ok || left == "" || right == "" || strings.Contains(right, " ") {
		return fmt.Errorf("merge %q: want two tokens and one space between them", text)
	}
	*m = mergeText{left, right}
	return nil
}

func readModel(raw json.RawMessage, added []addedToken, s *spec) error {
	if isNull(raw) {
		return fmt.Errorf("there is none")
	}
	var m struct {
		Type   string          `json:"type"`
		Merges json.RawMessage `json:"merges"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	switch {
	case m.Type == "BPE" || m.Type == "" && m.Merges != nil: // early files name no type
		return readBPE(raw, added, s)
	case m.Type == "Unigram":
		return readUnigram(raw, added, s)
	}
	return unsupported("%q", m.Type)
}

func readBPE(raw json.RawMessage, added []addedToken, s *spec) error {
	var m struct {
		Type          string        `json:"type"`
		Dropout       *float64      `json:"dropout"`
		Unknown       *string       `json:"unk_token"`
		Continuing    *string       `json:"continuing_subword_prefix"`
		EndOfWord     *string       `json:"end_of_word_suffix"`
		FuseUnknown   bool          `json:"fuse_unk"`
		ByteFallback  bool          `json:"byte_fallback"`
		IgnoresMerges bool          `json:"ignore_merges"`
		Vocab         map[string]ID `json:"vocab"`
		Merges        []mergeText   `json:"merges"`
	}
	if err := strict(raw, &m); err != nil {
		return err
	}
	switch {
	case m.Dropout != nil && *m.Dropout != 0:
		return unsupported("dropout %g", *m.Dropout)
	case m.Continuing != nil && *m.Continuing != "":
		return unsupported("continuing_subword_prefix %q", *m.Continuing)
	case m.EndOfWord != nil && *m.EndOfWord != "":
		return unsupported("end_of_word_suffix %q", *m.EndOfWord)
	case m.ByteFallback && s.byteLevel:
		return unsupported("byte_fallback beside ByteLevel")
	}
	s.whole, s.byteFallback, s.fuseUnknown = m.IgnoresMerges, m.ByteFallback, m.FuseUnknown
	merges := make([][2]string, len(m.Merges))
	for i, pair := range m.Merges {
		merges[i] = pair
	}
	unk := ""
	if m.Unknown != nil {
		unk = *m.Unknown
	}
	return s.fillBPE(m.Vocab, added, merges, unk)
}

// fillBPE puts vocabulary, added tokens and merges together, all as a file spells
// them. unk is "" where the file names none.
func (s *spec) fillBPE(vocab map[string]ID, added []addedToken, merges [][2]string, unk string) (err error) {
	if s.pieces, err = fill(vocab, added); err != nil {
		return err
	}
	if err := putAdded(s.pieces, added); err != nil {
		return err
	}
	if id, ok := vocab[unk]; ok && unk != "" {
		s.unk = id
		s.pieces[id].kind = unknown
	}
	if s.byteLevel {
		if err := unspellAll(s.pieces); err != nil {
			return err
		}
	}
	if s.byteFallback {
		nameBytes(s.pieces)
	}
	return readJoins(merges, s)
}

// scored is a unigram vocabulary's entry: its text and its log probability.
type scored struct {
	text  string
	score float32
}

// UnmarshalJSON reads ["text", -1.5].
func (p *scored) UnmarshalJSON(data []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("an entry of %d, want a text and a score", len(pair))
	}
	if err := json.Unmarshal(pair[0], &p.text); err != nil {
		return err
	}
	return json.Unmarshal(pair[1], &p.score)
}

func readUnigram(raw json.RawMessage, added []addedToken, s *spec) error {
	var m struct {
		Type         string   `json:"type"`
		Unknown      *ID      `json:"unk_id"`
		ByteFallback bool     `json:"byte_fallback"`
		Vocab        []scored `json:"vocab"`
	}
	if err := strict(raw, &m); err != nil {
		return err
	}
	if s.byteLevel {
		return unsupported("Unigram beside ByteLevel")
	}
	s.unigram, s.byteFallback = true, m.ByteFallback
	vocab := make(map[string]ID, len(m.Vocab))
	for id, p := range m.Vocab {
		if other, ok := vocab[p.text]; ok {
			return fmt.Errorf("tokens %d and %d are both %q", other, id, p.text)
		}
		vocab[p.text] = ID(id)
	}
	var err error
	if s.pieces, err = fill(vocab, added); err != nil {
		return err
	}
	if err := putAdded(s.pieces, added); err != nil {
		return err
	}
	for id, p := range m.Vocab {
		s.pieces[id].score = p.score
	}
	if m.Unknown != nil {
		if s.unk = *m.Unknown; int64(s.unk) >= int64(len(s.pieces)) {
			return fmt.Errorf("unk_id is %d, with %d tokens in all", s.unk, len(s.pieces))
		}
		s.pieces[s.unk].kind = unknown
	}
	if s.byteFallback {
		nameBytes(s.pieces)
	}
	for id, p := range s.pieces {
		if p.kind == normal && len(p.text) > maxPiece {
			return fmt.Errorf("token %d has %d bytes, want at most %d", id, len(p.text), maxPiece)
		}
	}
	return nil
}

// maxPiece is how many bytes a token of SentencePiece's family may have, whose
// cost grows by the length of the longest.
const maxPiece = 512
