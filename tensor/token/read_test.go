package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// llama2 is a small file in the form of Llama 2's.
const llama2 = `{"version": "1.0", "truncation": null, "padding": {"strategy": "x"},
"added_tokens": [
 {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
 {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
"pre_tokenizer": null,
"post_processor": {"type": "TemplateProcessing",
 "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<unk>", "type_id": 0}}],
 "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "<unk>": {"id": "<unk>", "ids": [0], "tokens": ["<unk>"]}}},
"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
"model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
 "vocab": {"<unk>": 0, "<s>": 1, "<0xC3>": 2, "<0xA9>": 3, "▁": 4, "h": 5, "i": 6, "▁h": 7, "▁hi": 8},
 "merges": ["▁ h", "▁h i"]}}`

func TestLlama2File(t *testing.T) {
	tok, err := ParseFile([]byte(llama2))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"hi":       "[8]",
		"hi hi":    "[8 8]",
		" hi":      "[4 8]",
		"":         "[]",
		"h\u00e9":  "[7 2 3]",   // by its bytes
		"hü\u00e8": "[7 0]",     // the bytes of neither are all there, and unknown ones fuse
		"<s>hi":    "[4 0 5 6]", // plain text, of which nothing is known
	} {
		if got, err := tok.Encode(text); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
	got, err := tok.EncodeSpecial("hi<s>hi")
	if err != nil || fmt.Sprint(got) != "[8 1 8]" {
		t.Errorf("special: %v, %v", got, err)
	}
	if back, err := tok.Decode(got); err != nil || string(back) != "hi<s>hi" {
		t.Errorf("back: %q, %v", back, err)
	}
	if got := tok.Frame([]ID{8}); fmt.Sprint(got) != "[1 8 0]" {
		t.Errorf("framed: %v", got)
	}
	if back, err := tok.Decode([]ID{1, 8, 8}); err != nil || string(back) != "<s>hi hi" {
		t.Errorf("framed back: %q, %v", back, err)
	}
	reread(t, tok)
}

// reread checks that a tokenizer's file is a fixed point that means the same.
func reread(t *testing.T, tok *Tokenizer) *Tokenizer {
	t.Helper()
	again, err := ParseFile(tok.File())
	if err != nil {
		t.Fatalf("its own file: %v\n%.2000s", err, tok.File())
	}
	if string(again.File()) != string(tok.File()) || again.CID() != tok.CID() {
		t.Fatalf("the file of what its file says differs:\n%.2000s\n%.2000s", tok.File(), again.File())
	}
	if a, b := tok.Frame([]ID{0}), again.Frame([]ID{0}); !slices.Equal(a, b) {
		t.Fatalf("framed %v, of its file %v", a, b)
	}
	for _, text := range append([]string{"hi there  x ", " a  b ", "▁ ▁a", corpus(20)}, bits...) {
		a, err1 := tok.EncodeSpecial(text)
		b, err2 := again.EncodeSpecial(text)
		if !slices.Equal(a, b) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%q: %v, %v; of its file %v, %v", text, a, err1, b, err2)
		}
	}
	return again
}

func TestFiles(t *testing.T) {
	plain, err := Bytes("<end>")
	if err != nil {
		t.Fatal(err)
	}
	letters, err := Characters("a \"\\\n\x01é🙂\u2028", "<end of text>")
	if err != nil {
		t.Fatal(err)
	}
	toks := []*Tokenizer{plain, letters}
	for s := NoSplit; int(s) < len(splitters); s++ {
		toks = append(toks, train(t, TrainConfig{Vocab: 350, Split: s, Special: []string{"<s>", "</s>"}}, corpus(1000)))
	}
	ends, err := toks[2].WithEnds("<s>", "</s>")
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range append(toks, ends) {
		reread(t, tok)
	}
	// The forms of spaces and scores that a file of ours must hold.
	for _, space := range []spaces{
		{escape: true}, {escape: true, prefix: prefixAlways}, {escape: true, prefix: prefixFirst}, {escape: true, prefix: prefixFirst, unless: true},
		{escape: true, prefix: prefixAlways, unless: true, split: true}, {escape: true, split: true}, {escape: true, prefix: prefixFirst, trim: true, early: true},
		{escape: true, prefix: prefixAlways, split: true},
	} {
		for _, uni := range []bool{false, true} {
			s := newSpec()
			s.space, s.unigram, s.byteFallback, s.unk = space, uni, uni, 0
			s.pieces = []piece{{text: "<unk>", kind: unknown}, {text: "<s>", kind: control}, {text: meta, score: -3}, {text: "a", score: -1.1}, {text: meta + "a", score: -2}, {text: "aa", score: -1.5}, {text: "b", score: -0.1}, {text: "<|u|>", kind: user}}
			if uni {
				s.pieces = append(s.pieces, piece{text: "<0xFF>", kind: fallback}, piece{text: "ab", kind: unused})
			} else {
				s.joins = []join{{2, 3, 4, 0}, {3, 3, 5, 0}}
			}
			tok, err := build(s)
			if err != nil {
				t.Fatal(err)
			}
			again := reread(t, tok)
			if got := again.space; got != space {
				t.Errorf("spaces %+v came back as %+v", space, got)
			}
		}
	}
}

// TestSpaces: where a space goes, and comes back from.
func TestSpaces(t *testing.T) {
	s := newSpec()
	for _, text := range []string{"a", meta, "a" + meta, meta + "a"} {
		s.pieces = append(s.pieces, piece{text: text})
	}
	s.pieces = append(s.pieces, piece{text: "<s>", kind: control}, piece{text: "<u>", kind: user})
	s.joins = []join{{0, 1, 2, 0}, {1, 0, 3, 1}}
	const text = "a a<s> a<u>a"
	for _, c := range []struct {
		space      spaces
		want, back string
	}{
		{spaces{escape: true}, "2 0 4 3 5 0", text},
		{spaces{escape: true, prefix: prefixFirst}, "1 2 0 4 3 5 0", text},
		{spaces{escape: true, prefix: prefixAlways}, "1 2 0 4 1 3 5 3", text},
		{spaces{escape: true, prefix: prefixAlways, unless: true}, "1 2 0 4 3 5 3", "a a<s>a<u>a"},
		{spaces{escape: true, prefix: prefixFirst, unless: true, split: true}, "3 3 4 3 5 0", text},
		{spaces{escape: true, split: true}, "0 3 4 3 5 0", text},
		{spaces{escape: true, prefix: prefixFirst, trim: true, early: true}, "1 2 0 4 3 5 0", text},
	} {
		s.space = c.space
		tok, err := build(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, tok := range []*Tokenizer{tok, reread(t, tok)} {
			got, err := tok.EncodeSpecial(text)
			if s := strings.Trim(fmt.Sprint(got), "[]"); err != nil || s != c.want {
				t.Errorf("%+v: %s, %v, want %s", c.space, s, err, c.want)
			}
			if back, err := tok.Decode(got); err != nil || string(back) != c.back {
				t.Errorf("%+v: back %q, %v, want %q", c.space, back, err, c.back)
			}
			want := "<s> a" // a special token before the text does not hide the prefix
			if c.space.prefix != prefixNever {
				want = "<s>a"
			}
			if back, err := tok.Decode([]ID{4, 3}); err != nil || string(back) != want {
				t.Errorf("%+v: after BOS %q, %v, want %q", c.space, back, err, want)
			}
		}
	}
}

// TestMergesWithSpaces: such can't be written in the older form.
func TestMergesWithSpaces(t *testing.T) {
	s := newSpec()
	s.pieces = []piece{{text: "a"}, {text: " "}, {text: "a "}, {text: "a a"}}
	s.joins = []join{{0, 1, 2, 0}, {2, 0, 3, 1}}
	tok, err := build(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := reread(t, tok).Encode("a a a"); err != nil || fmt.Sprint(got) != "[2 3]" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestNFC: only a file that asks for it composes characters.
func TestNFC(t *testing.T) {
	for normalizer, want := range map[string]string{`{"type": "NFC"}`: "[2]", "null": "[0 1]"} {
		tok, err := ParseFile(fmt.Appendf(nil, `{"normalizer": %s, "model": {"type": "BPE", "vocab": {"e": 0, "\u0301": 1, "é": 2}}}`, normalizer))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := reread(t, tok).Encode("e\u0301"); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v, want %s", normalizer, got, err, want)
		}
	}
}

// TestTies: merges of one rank are made from the left, by a file of ours too.
func TestTies(t *testing.T) {
	s := newSpec()
	s.pieces = []piece{{text: "a"}, {text: "b"}, {text: "c"}, {text: "ab"}, {text: "bc"}}
	s.joins = []join{{1, 2, 4, 0}, {0, 1, 3, 0}}
	tied, err := build(s)
	if err != nil {
		t.Fatal(err)
	}
	s.joins = []join{{1, 2, 4, 0}, {0, 1, 3, 1}}
	ranked, err := build(s)
	if err != nil {
		t.Fatal(err)
	}
	for tok, want := range map[*Tokenizer]string{tied: "[3 2]", reread(t, tied): "[3 2]", ranked: "[0 4]", reread(t, ranked): "[0 4]"} {
		if got, _ := tok.Encode("abc"); fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

func TestCID(t *testing.T) {
	tok, err := Bytes()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := multihash.Sum(tok.File(), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	if want := cid.NewCidV1(cid.Raw, sum).String(); tok.CID() != want {
		t.Errorf("%s, want %s", tok.CID(), want)
	}
	// The canonical form is forever: shards name it.
	if want := "bafkreiewbbopd6jlfdetkhdupukzqrfynmeafid2flyasthcjcp4kpfj5m"; tok.CID() != want {
		t.Errorf("the byte tokenizer's file has changed: it is %s, was %s", tok.CID(), want)
	}
}

const gpt2Pre = `{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}`

// refused are files by what their refusal must name.
var refused = []struct{ want, file string }{
	{"unexpected end", `{`},
	{"model: there is none", `{}`},
	{`version "2.0"`, `{"version": "2.0"}`},
	{`normalizer: "Lowercase"`, `{"normalizer": {"type": "Lowercase"}}`},
	{`normalizer: "Precompiled"`, `{"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Precompiled", "precompiled_charsmap": "AA=="}]}}`},
	{`normalizer: {"type": "Replace"`, `{"normalizer": {"type": "Replace", "pattern": {"Regex": "x"}, "content": "▁"}}`},
	{`Prepend without Replace`, `{"normalizer": {"type": "Prepend", "prepend": "▁"}}`},
	{`pre_tokenizer: "Whitespace"`, `{"pre_tokenizer": {"type": "Whitespace"}}`},
	{`a second one`, `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [` + gpt2Split + `, ` + gpt2Split + `]}}`},
	{`pattern map["Regex":"\\w+"]`, `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated", "invert": false}}`},
	{`behavior "Removed", invert false`, `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Removed", "invert": false}}`},
	{"add_prefix_space", `{"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}}`},
	{`unknown field "shout"`, `{"pre_tokenizer": {"type": "ByteLevel", "shout": true}}`},
	{"use_regex after a Split", `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [` + gpt2Split + `, ` + gpt2Pre + `]}}`},
	{"after ByteLevel", `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [` + gpt2Pre + `, ` + gpt2Split + `]}}`},
	{`replacement "_"`, `{"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}}`},
	{`prepend_scheme "maybe"`, `{"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "maybe"}}`},
	{`decoder: "WordPiece"`, `{"decoder": {"type": "WordPiece"}}`},
	{`model: "WordPiece"`, `{"model": {"type": "WordPiece"}}`},
	{`model: "WordLevel"`, `{"model": {"type": "WordLevel", "vocab": {}}}`},
	{"dropout 0.1", `{"model": {"type": "BPE", "dropout": 0.1}}`},
	{`continuing_subword_prefix "##"`, `{"model": {"type": "BPE", "continuing_subword_prefix": "##"}}`},
	{`end_of_word_suffix "</w>"`, `{"model": {"type": "BPE", "end_of_word_suffix": "</w>"}}`},
	{`unknown field "magic"`, `{"model": {"type": "BPE", "magic": 1}}`},
	{"byte_fallback beside ByteLevel", `{"pre_tokenizer": ` + gpt2Pre + `, "model": {"type": "BPE", "byte_fallback": true}}`},
	{`added token "<m>": lstrip`, `{"added_tokens": [{"id": 0, "content": "<m>", "lstrip": true}]}`},
	{`added token "<m>": rstrip`, `{"added_tokens": [{"id": 0, "content": "<m>", "rstrip": true}]}`},
	{`added token "<m>": single_word`, `{"added_tokens": [{"id": 0, "content": "<m>", "single_word": true}]}`},
	{`added token "<m>": normalized`, `{"added_tokens": [{"id": 0, "content": "<m>", "normalized": true}], "normalizer": {"type": "NFC"}}`},
	{`"RobertaProcessing"`, `{"post_processor": {"type": "RobertaProcessing"}, "model": {"type": "BPE", "vocab": {"a": 0}}}`},
	{"without one text", `{"post_processor": {"type": "TemplateProcessing", "single": []}, "model": {"type": "BPE", "vocab": {"a": 0}}}`},
	{"highest ID is 16777215", `{"model": {"type": "BPE", "vocab": {"a": 16777215}}}`},
	{"highest ID is 4294967295", `{"added_tokens": [{"id": 4294967295, "content": "x"}], "model": {"type": "BPE", "vocab": {"a": 0}}}`},
	{"cannot unmarshal number -1", `{"model": {"type": "BPE", "vocab": {"a": -1}}}`},
	{`"a" and "b" are both token 0`, `{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}}}`},
	{`token 0 is "a" in the vocabulary and "x"`, `{"added_tokens": [{"id": 0, "content": "x"}], "model": {"type": "BPE", "vocab": {"a": 0}}}`},
	{`tokens 0 and 1 are both written "a"`, `{"added_tokens": [{"id": 1, "content": "a"}], "model": {"type": "BPE", "vocab": {"a": 0}}}`},
	{`"中", which does not spell bytes`, `{"pre_tokenizer": ` + gpt2Pre + `, "model": {"type": "BPE", "vocab": {"中": 0}}}`},
	{`merge 0 is of "a" and "b"`, `{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}`},
	{`merge "a  b"`, `{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a  b"]}}`},
	{`a merge of 3 tokens`, `{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b", "c"]]}}`},
	{`stands twice`, `{"model": {"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": ["a a", "a a"]}}`},
	{"vocabulary is empty", `{"model": {"type": "BPE", "vocab": {}}}`},
	{"unk_id is 7", `{"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", 0]]}}`},
	{`tokens 0 and 1 are both "a"`, `{"model": {"type": "Unigram", "vocab": [["a", 0], ["a", 1]]}}`},
	{"an entry of 1", `{"model": {"type": "Unigram", "vocab": [["a"]]}}`},
	{"has 513 bytes", `{"model": {"type": "Unigram", "vocab": [["` + strings.Repeat("a", 513) + `", 0]]}}`},
	{"kith: version 2", `{"model": {"type": "BPE", "vocab": {"a": 0}}, "kith": {"version": 2}}`},
	{"special token is 5", `{"model": {"type": "BPE", "vocab": {"a": 0}}, "kith": {"version": 1, "bos": 5}}`},
	{"unused tokens of a BPE", `{"model": {"type": "BPE", "vocab": {"a": 0}}, "kith": {"version": 1, "unused": [0]}}`},
	{"unused token 9", `{"model": {"type": "Unigram", "vocab": [["a", 0]]}, "kith": {"version": 1, "unused": [9]}}`},
	{"merge_ties[0] is 2", `{"model": {"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": ["a a"]}, "kith": {"version": 1, "merge_ties": [2]}}`},
	{"merge_ties leaves 1", `{"model": {"type": "BPE", "vocab": {"a": 0, "aa": 1, "aaa": 2}, "merges": ["a a", "aa a"]}, "kith": {"version": 1, "merge_ties": [1]}}`},
	{"what to do with spaces", `{"model": {"type": "BPE", "vocab": {"a": 0}}, "kith": {"version": 1, "trim": true}}`},
}

const gpt2Split = `{"type": "Split", "pattern": {"Regex": "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false}`

func TestRefusedFiles(t *testing.T) {
	for _, c := range refused {
		if _, err := ParseFile([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got %v\nwant %s", c.file, err, c.want)
		}
	}
	if _, err := ParseFile([]byte(`{"normalizer": {"type": "Lowercase"}}`)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v is not ErrUnsupported", err)
	}
}

// TestByteLevelFile reads the form of GPT-2's and Llama 3's files.
func TestByteLevelFile(t *testing.T) {
	tok, err := ParseFile([]byte(`{"added_tokens": [{"id": 6, "content": "<|end|>", "special": true}, {"id": 7, "content": "<tool>", "special": false}],
		"normalizer": {"type": "NFC"}, "pre_tokenizer": ` + gpt2Pre + `, "post_processor": ` + gpt2Pre + `, "decoder": ` + gpt2Pre + `,
		"model": {"type": "BPE", "ignore_merges": true, "vocab": {"a": 0, "Ġ": 1, "b": 2, "Ġa": 3, "ab": 4, "bab": 5, "<|end|>": 6}, "merges": [["Ġ", "a"], ["a", "b"]]}}`))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"ab a": "[4 3]", "bab": "[5]", "babb": "[2 4 2]", "a<tool>a": "[0 7 0]"} {
		if got, err := tok.Encode(text); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
	if _, err := tok.Encode("abc"); err == nil || !strings.Contains(err.Error(), `"c" at byte 2`) {
		t.Errorf("abc: %v", err)
	}
	if !tok.IsSpecial(6) || tok.IsSpecial(7) || tok.IsSpecial(99) {
		t.Error("the wrong tokens are special")
	}
	reread(t, tok)
}

// TestForgedSpecial: no merge makes a special token of plain text.
func TestForgedSpecial(t *testing.T) {
	tok, err := ParseFile([]byte(`{"added_tokens": [{"id": 2, "content": "ab", "special": true}],
		"model": {"type": "BPE", "ignore_merges": true, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tok.Encode("ab"); err != nil || fmt.Sprint(got) != "[0 1]" {
		t.Errorf("plain: %v, %v", got, err)
	}
	if got, err := tok.EncodeSpecial("ab"); err != nil || fmt.Sprint(got) != "[2]" {
		t.Errorf("special: %v, %v", got, err)
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(llama2), "hi <s> é")
	for _, c := range refused {
		f.Add([]byte(c.file), "ab")
	}
	small, err := Bytes("<s>")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small.File(), "x<s>")
	f.Add([]byte(`{"model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": [["<unk>", 0], ["a", -1], ["ab", -1.5], ["b", -1e30]]}}`), "abba")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		_, _ = new(mergeText).UnmarshalJSON(data), new(scored).UnmarshalJSON(data)
		if tok, err := ParseFile(data); err == nil {
			consistent(t, tok, text)
		}
	})
}
