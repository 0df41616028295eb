package token

import (
	"encoding/json"
	"fmt"
	"slices"
)

// typeOf is the name of a component.
func typeOf(raw json.RawMessage) (string, error) {
	var c struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(raw, &c)
	return c.Type, err
}

// parts are the components of a Sequence, or the one that stands alone.
func parts(raw json.RawMessage, member string) ([]json.RawMessage, error) {
	if isNull(raw) {
		return nil, nil
	}
	if name, err := typeOf(raw); err != nil || name != "Sequence" {
		return []json.RawMessage{raw}, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(all[member], &list); err != nil {
		return nil, fmt.Errorf("%s: %w", member, err)
	}
	return list, nil
}

func readNormalizer(raw json.RawMessage, s *spec) error {
	list, err := parts(raw, "normalizers")
	if err != nil {
		return err
	}
	for _, raw := range list {
		name, err := typeOf(raw)
		if err != nil {
			return err
		}
		var n struct {
			Type    string            `json:"type"`
			Prepend string            `json:"prepend"`
			Pattern map[string]string `json:"pattern"`
			Content string            `json:"content"`
		}
		switch name {
		case "NFC", "Prepend", "Replace":
			if err := strict(raw, &n); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		default:
			return unsupported("%q", name)
		}
		switch {
		case name == "NFC":
			s.nfc = true
		case name == "Prepend" && n.Prepend == meta && !s.space.escape && s.space.prefix == prefixNever:
			s.space.prefix = prefixAlways
		case name == "Replace" && n.Content == meta && len(n.Pattern) == 1 && n.Pattern["String"] == " " && !s.space.escape:
			s.space.escape = true
		default:
			return unsupported("%s", raw)
		}
	}
	if s.space.prefix != prefixNever && !s.space.escape {
		return unsupported("Prepend without Replace")
	}
	return nil
}

func readPreTokenizer(raw json.RawMessage, s *spec) error {
	list, err := parts(raw, "pretokenizers")
	if err != nil {
		return err
	}
	for i, raw := range list {
		name, err := typeOf(raw)
		if err != nil {
			return err
		}
		switch name {
		case "ByteLevel":
			err = readByteLevel(raw, s)
		case "Split":
			err = readSplit(raw, s)
		case "Metaspace":
			if len(list) > 1 || s.space.escape {
				return unsupported("Metaspace beside others")
			}
			err = readMetaspace(raw, s)
		default:
			return unsupported("%q", name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if s.byteLevel && i+1 < len(list) {
			return unsupported("a pre-tokenizer after ByteLevel")
		}
	}
	if s.space.escape && (s.byteLevel || s.split != NoSplit) {
		return unsupported("a pre-tokenizer beside Replace")
	}
	return nil
}

func readByteLevel(raw json.RawMessage, s *spec) error {
	b := struct {
		Type           string `json:"type"`
		AddPrefixSpace bool   `json:"add_prefix_space"`
		TrimOffsets    bool   `json:"trim_offsets"`
		UseRegex       bool   `json:"use_regex"`
	}{UseRegex: true}
	if err := strict(raw, &b); err != nil {
		return err
	}
	s.byteLevel = true
	switch {
	case b.AddPrefixSpace:
		return unsupported("add_prefix_space")
	case b.UseRegex && s.split != NoSplit:
		return unsupported("use_regex after a Split")
	case b.UseRegex:
		s.split = GPT2
	}
	return nil
}

func readSplit(raw json.RawMessage, s *spec) error {
	var p struct {
		Type     string            `json:"type"`
		Pattern  map[string]string `json:"pattern"`
		Behavior string            `json:"behavior"`
		Invert   bool              `json:"invert"`
	}
	if err := strict(raw, &p); err != nil {
		return err
	}
	if p.Behavior != "Isolated" && (p.Behavior != "Removed" || !p.Invert) {
		return unsupported("behavior %q, invert %v", p.Behavior, p.Invert)
	}
	if s.split != NoSplit {
		return unsupported("a second one")
	}
	for k := GPT2; int(k) < len(splitters); k++ {
		if len(p.Pattern) == 1 && p.Pattern["Regex"] == k.Pattern() {
			s.split = k
			return nil
		}
	}
	return unsupported("pattern %q", p.Pattern)
}

func readMetaspace(raw json.RawMessage, s *spec) error {
	var m struct {
		Type           string `json:"type"`
		Replacement    string `json:"replacement"`
		StrRep         string `json:"str_rep"`
		AddPrefixSpace *bool  `json:"add_prefix_space"`
		PrependScheme  string `json:"prepend_scheme"`
		Split          *bool  `json:"split"`
	}
	if err := strict(raw, &m); err != nil {
		return err
	}
	if m.Replacement != meta {
		return unsupported("replacement %q", m.Replacement)
	}
	s.space = spaces{escape: true, split: m.Split == nil || *m.Split}
	switch m.PrependScheme {
	case "always", "":
		s.space.prefix = prefixAlways
	case "first":
		s.space.prefix = prefixFirst
	case "never":
	default:
		return unsupported("prepend_scheme %q", m.PrependScheme)
	}
	if m.AddPrefixSpace != nil && !*m.AddPrefixSpace {
		s.space.prefix = prefixNever
	}
	s.space.unless = s.space.prefix != prefixNever
	return nil
}

// checkDecoder refuses a decoder that could do other than undo the rest.
func checkDecoder(raw json.RawMessage, _ *spec) error {
	list, err := parts(raw, "decoders")
	if err != nil {
		return err
	}
	for _, raw := range list {
		name, err := typeOf(raw)
		if err != nil {
			return err
		}
		if !slices.Contains([]string{"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}, name) {
			return unsupported("%q", name)
		}
	}
	return nil
}

// readFrame reads the tokens that are put around one text.
func readFrame(raw json.RawMessage, s *spec) error {
	list, err := parts(raw, "processors")
	if err != nil {
		return err
	}
	for _, raw := range list {
		name, err := typeOf(raw)
		switch {
		case err != nil:
			return err
		case name == "ByteLevel": // moves offsets, not tokens
			continue
		case name != "TemplateProcessing":
			return unsupported("%q", name)
		}
		var p struct {
			Single []struct {
				SpecialToken *struct {
					ID string `json:"id"`
				}
				Sequence *struct {
					ID string `json:"id"`
				}
			} `json:"single"`
			SpecialTokens map[string]struct {
				IDs []ID `json:"ids"`
			} `json:"special_tokens"`
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			return err
		}
		seen := false
		for _, e := range p.Single {
			switch {
			case e.Sequence != nil && !seen && e.Sequence.ID == "A":
				seen = true
			case e.SpecialToken != nil && seen:
				s.after = append(s.after, p.SpecialTokens[e.SpecialToken.ID].IDs...)
			case e.SpecialToken != nil:
				s.before = append(s.before, p.SpecialTokens[e.SpecialToken.ID].IDs...)
			default:
				return unsupported("template %s", raw)
			}
		}
		if !seen || len(s.before)+len(s.after) > maxFrame {
			return unsupported("a template of %d tokens without one text among them, or more than %d", len(s.before)+len(s.after), maxFrame)
		}
	}
	return nil
}

// maxFrame is how many tokens may stand around a text.
const maxFrame = 64
