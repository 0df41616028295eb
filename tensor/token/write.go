package token

import (
	"slices"
	"strconv"
	"strings"
)

// writer makes JSON with two spaces a level, the members in the order written.
// It escapes no more than JSON demands, so that the bytes hang on no library.
type writer struct {
	b     []byte
	depth int
	fresh bool // nothing stands in this object or array yet
}

func (w *writer) open(bracket byte) {
	w.b = append(w.b, bracket)
	w.depth++
	w.fresh = true
}

func (w *writer) close(bracket byte) {
	w.depth--
	if !w.fresh {
		w.line()
	}
	w.b, w.fresh = append(w.b, bracket), false
}

func (w *writer) line() {
	w.b = append(w.b, '\n')
	for range w.depth {
		w.b = append(w.b, "  "...)
	}
}

// item begins an array's next element.
func (w *writer) item() {
	if !w.fresh {
		w.b = append(w.b, ',')
	}
	w.fresh = false
	w.line()
}

// key begins an object's next member.
func (w *writer) key(name string) {
	w.item()
	w.text(name)
	w.b = append(w.b, ": "...)
}

// member writes one whose value is JSON already.
func (w *writer) member(name, value string) {
	w.key(name)
	w.b = append(w.b, value...)
}

func (w *writer) text(s string) { w.b = appendQuoted(w.b, s) }

func (w *writer) number(id ID) { w.b = strconv.AppendUint(w.b, uint64(id), 10) }

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// written is a piece as a file spells it.
func (s *spec) written(id ID) string {
	if p := s.pieces[id]; !s.byteLevel || p.kind != normal {
		return p.text
	}
	return spell(s.pieces[id].text)
}

// appendFile writes the canonical tokenizer.json. What that format can't say
// stands under the key kith, which other readers pass over.
func appendFile(b []byte, s *spec) []byte {
	w := &writer{b: b}
	w.open('{')
	w.member("version", `"1.0"`)
	w.member("truncation", "null")
	w.member("padding", "null")
	w.key("added_tokens")
	w.added(s)
	w.member("normalizer", s.normalizerJSON())
	w.member("pre_tokenizer", s.preTokenizerJSON())
	w.key("post_processor")
	w.frame(s)
	w.member("decoder", s.decoderJSON())
	w.key("model")
	if s.unigram {
		w.unigram(s)
	} else {
		w.bpe(s)
	}
	w.own(s)
	w.close('}')
	return append(w.b, '\n')
}

func (w *writer) added(s *spec) {
	w.open('[')
	for i, p := range s.pieces {
		if p.kind != control && p.kind != user && p.kind != unknown {
			continue
		}
		w.item()
		w.b = append(w.b, `{"id": `...)
		w.number(ID(i))
		w.b = append(w.b, `, "content": `...)
		w.text(p.text)
		w.b = append(w.b, `, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": `...)
		w.b = append(strconv.AppendBool(w.b, p.kind.special()), '}')
	}
	w.close(']')
}

func sequence(kind, member string, parts []string) string {
	switch len(parts) {
	case 0:
		return "null"
	case 1:
		return parts[0]
	}
	return `{"type": "` + kind + `", "` + member + `": [` + strings.Join(parts, ", ") + `]}`
}

// plain reports whether normalizers can say it, as Llama 2's file does: Metaspace
// puts no space before text that begins with one.
func (p spaces) plain() bool {
	return p.escape && !p.split && !p.unless && p.prefix != prefixFirst
}

func (s *spec) normalizerJSON() string {
	var parts []string
	if s.nfc {
		parts = append(parts, `{"type": "NFC"}`)
	}
	if s.space.plain() {
		if s.space.prefix == prefixAlways {
			parts = append(parts, `{"type": "Prepend", "prepend": "`+meta+`"}`)
		}
		parts = append(parts, `{"type": "Replace", "pattern": {"String": " "}, "content": "`+meta+`"}`)
	}
	return sequence("Sequence", "normalizers", parts)
}

func (s *spec) preTokenizerJSON() string {
	if s.space.plain() {
		return "null"
	}
	if s.space.escape {
		scheme := [...]string{prefixNever: "never", prefixFirst: "first", prefixAlways: "always"}[s.space.prefix]
		return `{"type": "Metaspace", "replacement": "` + meta + `", "prepend_scheme": "` + scheme + `", "split": ` + strconv.FormatBool(s.space.split) + `}`
	}
	var parts []string
	if p := s.split.Pattern(); p != "" {
		parts = append(parts, `{"type": "Split", "pattern": {"Regex": `+string(appendQuoted(nil, p))+`}, "behavior": "Isolated", "invert": false}`)
	}
	if s.byteLevel {
		parts = append(parts, `{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}`)
	}
	return sequence("Sequence", "pretokenizers", parts)
}

func (s *spec) decoderJSON() string {
	if s.byteLevel {
		return `{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}`
	}
	var parts []string
	if s.space.escape {
		parts = append(parts, `{"type": "Replace", "pattern": {"String": "`+meta+`"}, "content": " "}`)
	}
	if s.byteFallback {
		parts = append(parts, `{"type": "ByteFallback"}`)
	}
	parts = append(parts, `{"type": "Fuse"}`)
	if s.space.escape && s.space.prefix != prefixNever {
		parts = append(parts, `{"type": "Strip", "content": " ", "start": 1, "stop": 0}`)
	}
	return sequence("Sequence", "decoders", parts)
}

// frame writes the tokens around a text, as TemplateProcessing has them.
func (w *writer) frame(s *spec) {
	if len(s.before)+len(s.after) == 0 {
		w.b = append(w.b, "null"...)
		return
	}
	special := func(ids []ID, of string) (parts []string) {
		for _, id := range ids {
			parts = append(parts, `{"SpecialToken": {"id": `+string(appendQuoted(nil, s.pieces[id].text))+`, "type_id": `+of+`}}`)
		}
		return parts
	}
	template := func(name, of string) []string {
		return slices.Concat(special(s.before, of), []string{`{"Sequence": {"id": "` + name + `", "type_id": ` + of + `}}`}, special(s.after, of))
	}
	w.open('{')
	w.member("type", `"TemplateProcessing"`)
	w.member("single", "["+strings.Join(template("A", "0"), ", ")+"]")
	w.member("pair", "["+strings.Join(append(template("A", "0"), template("B", "1")...), ", ")+"]")
	w.key("special_tokens")
	w.open('{')
	ids := slices.Concat(s.before, s.after)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		name := string(appendQuoted(nil, s.pieces[id].text))
		w.key(s.pieces[id].text)
		w.b = append(w.b, `{"id": `+name+`, "ids": [`...)
		w.number(id)
		w.b = append(w.b, `], "tokens": [`+name+`]}`...)
	}
	w.close('}')
	w.close('}')
}

func (w *writer) bpe(s *spec) {
	w.open('{')
	w.member("type", `"BPE"`)
	w.member("dropout", "null")
	w.key("unk_token")
	if s.unk == none {
		w.b = append(w.b, "null"...)
	} else {
		w.text(s.pieces[s.unk].text)
	}
	w.member("continuing_subword_prefix", "null")
	w.member("end_of_word_suffix", "null")
	w.member("fuse_unk", strconv.FormatBool(s.fuseUnknown))
	w.member("byte_fallback", strconv.FormatBool(s.byteFallback))
	w.member("ignore_merges", strconv.FormatBool(s.whole))
	w.key("vocab")
	w.open('{')
	for i, p := range s.pieces {
		if p.kind != hole {
			w.key(s.written(ID(i)))
			w.number(ID(i))
		}
	}
	w.close('}')
	w.key("merges")
	w.open('[')
	// Text that holds a space leaves no choice but the newer form, of pairs.
	apart := !slices.ContainsFunc(s.joins, func(j join) bool {
		return strings.Contains(s.written(j.left), " ") || strings.Contains(s.written(j.right), " ")
	})
	for _, j := range s.joins {
		w.item()
		if apart {
			w.text(s.written(j.left) + " " + s.written(j.right))
			continue
		}
		w.b = append(w.b, '[')
		w.text(s.written(j.left))
		w.b = append(w.b, ", "...)
		w.text(s.written(j.right))
		w.b = append(w.b, ']')
	}
	w.close(']')
	w.close('}')
}

func (w *writer) unigram(s *spec) {
	w.open('{')
	w.member("type", `"Unigram"`)
	w.key("unk_id")
	if s.unk == none {
		w.b = append(w.b, "null"...)
	} else {
		w.number(s.unk)
	}
	w.member("byte_fallback", strconv.FormatBool(s.byteFallback))
	w.key("vocab")
	w.open('[')
	for _, p := range s.pieces {
		w.item()
		w.b = append(w.b, '[')
		w.text(p.text)
		w.b = append(w.b, ", "...)
		w.b = append(strconv.AppendFloat(w.b, float64(p.score), 'g', -1, 32), ']')
	}
	w.close(']')
	w.close('}')
}

// own writes what tokenizer.json has no words for, if there is anything.
func (w *writer) own(s *spec) {
	w.key("kith")
	w.open('{')
	w.member("version", "1")
	for _, e := range []struct {
		name string
		id   ID
	}{{"bos", s.bos}, {"eos", s.eos}} {
		if e.id != none {
			w.key(e.name)
			w.number(e.id)
		}
	}
	for _, e := range []struct {
		name string
		is   bool
	}{{"trim", s.space.trim}, {"early", s.space.early}, {"prefix_before_space", s.space.prefix != prefixNever && !s.space.unless && !s.space.plain()}} {
		if e.is {
			w.member(e.name, "true")
		}
	}
	var idle, ties []string
	for i, p := range s.pieces {
		if p.kind == unused {
			idle = append(idle, strconv.Itoa(i))
		}
	}
	shared := false
	for i := 0; i < len(s.joins); {
		n := 1
		for i+n < len(s.joins) && s.joins[i+n].rank == s.joins[i].rank {
			n++
		}
		ties = append(ties, strconv.Itoa(n))
		shared = shared || n > 1
		i += n
	}
	if len(idle) > 0 {
		w.member("unused", "["+strings.Join(idle, ",")+"]")
	}
	if shared {
		w.member("merge_ties", "["+strings.Join(ties, ",")+"]")
	}
	w.close('}')
}
