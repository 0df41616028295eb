package token

import (
	"errors"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// words is a small SentencePiece model.
func words(model uint64) spModel {
	m := spModel{trainer: [][2]uint64{{3, model}}, normalizer: [][2]uint64{{4, 0}}}
	m.pieces = []spPiece{{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"<sep>", 0, 4}, {"▁▁", 0, 4}}
	for i, text := range []string{"▁", "a", "b", "n", "é", "an", "ana", "na", "nan", "▁b", "ban", "▁ban", "aa", "aaa", "bé"} {
		m.pieces = append(m.pieces, spPiece{text, -1 - float32(i*7%5), 1})
	}
	return m
}

// slowScored joins, again and again, the two symbols beside each other whose
// joined text scores best.
func slowScored(m spModel, text string) (out []string) {
	scores := map[string]float32{}
	for _, p := range m.pieces {
		if p.kind == 1 {
			scores[p.text] = p.score
		}
	}
	for _, r := range text {
		out = append(out, string(r))
	}
	for {
		at, best := -1, float32(0)
		for i := range len(out) - 1 {
			if score, ok := scores[out[i]+out[i+1]]; ok && (at < 0 || score > best) {
				at, best = i, score
			}
		}
		if at < 0 {
			return out
		}
		out = slices.Replace(out, at, at+2, out[at]+out[at+1])
	}
}

// slowUnigram tries every cut, and gives the best sum.
func slowUnigram(m spModel, text string) float32 {
	scores, least := map[string]float32{}, float32(math.MaxFloat32)
	for _, p := range m.pieces {
		if p.kind == 1 {
			scores[p.text] = p.score
			least = min(least, p.score)
		}
	}
	var best func(rest string, sum float32) float32
	best = func(rest string, sum float32) float32 {
		if rest == "" {
			return sum
		}
		out := float32(math.Inf(-1))
		for n := 1; n <= len(rest); n++ {
			if score, ok := scores[rest[:n]]; ok {
				out = max(out, best(rest[n:], sum+score))
			}
		}
		_, n := utf8.DecodeRuneInString(rest)
		if _, ok := scores[rest[:n]]; !ok {
			out = max(out, best(rest[n:], sum+least-unknownPenalty))
		}
		return out
	}
	return best(text, 0)
}

func TestSentencePieceAgainstReference(t *testing.T) {
	rng := rand.New(rand.NewSource(5))
	for _, model := range []uint64{spBPE, spUnigram} {
		m := words(model)
		m.pieces = slices.DeleteFunc(m.pieces, func(p spPiece) bool { return p.kind == 4 })
		if model == spUnigram {
			m.pieces = append(m.pieces, spPiece{"xan", -2, 1}) // x is no token itself
		}
		tok, err := ParseSentencePiece(m.bytes())
		if err != nil {
			t.Fatal(err)
		}
		reread(t, tok)
		for range 2000 {
			var b strings.Builder
			for range 1 + rng.Intn(9) {
				b.WriteString([]string{"a", "n", "b", "é", " ", "an", "x", "中"}[rng.Intn(8)])
			}
			text := b.String()
			ids, err := tok.Encode(text)
			if err != nil {
				t.Fatal(err)
			}
			if model == spUnigram {
				var sum float32
				rest := meta + strings.ReplaceAll(text, " ", meta)
				for _, id := range ids {
					if id != tok.unk {
						sum += tok.pieces[id].score
						rest = strings.Replace(rest, tok.pieces[id].text, "", 1)
					}
				}
				sum += float32(utf8.RuneCountInString(rest)) * tok.model.(*unigram).unknown
				if want := slowUnigram(m, meta+strings.ReplaceAll(text, " ", meta)); math.Abs(float64(sum-want)) > 1e-4 {
					t.Fatalf("%q: %v sums to %g, the best is %g", text, ids, sum, want)
				}
				continue
			}
			var want []ID
			for _, p := range slowScored(m, meta+strings.ReplaceAll(text, " ", meta)) {
				if id, ok := tok.ids[p]; ok {
					want = append(want, id)
				} else if len(want) == 0 || want[len(want)-1] != tok.unk {
					want = append(want, tok.unk)
				}
			}
			if !slices.Equal(ids, want) {
				t.Fatalf("%q: %v, want %v", text, ids, want)
			}
		}
	}
}

func TestSentencePiece(t *testing.T) {
	tok, err := ParseSentencePiece(words(spBPE).bytes())
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := tok.BOS(); !ok || id != 1 {
		t.Errorf("BOS %d, %v", id, ok)
	}
	if id, ok := tok.EOS(); !ok || id != 2 {
		t.Errorf("EOS %d, %v", id, ok)
	}
	check := func(tok *Tokenizer, text, want, back string) {
		t.Helper()
		var names []string
		ids, err := tok.Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			names = append(names, tok.pieces[id].text)
		}
		if got := strings.Join(names, "|"); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
		if got, err := tok.Decode(ids); err != nil || string(got) != back {
			t.Errorf("%q came back as %q, %v, want %q", text, got, err, back)
		}
	}
	check(tok, "ban", "▁ban", "ban")
	check(tok, "ban<sep>ban", "▁ban|<sep>|ban", "ban<sep>ban")
	check(tok, "<sep>a", "▁|<sep>|a", "<sep>a")
	check(tok, "a<sep> a", "▁|a|<sep>|▁|a", "a<sep> a")
	check(tok, " a", "▁▁|a", " a") // the prefix and the space are a user's token together
	check(tok, "<s>a", "▁|<unk>|a", "<unk>a")
	odd := words(spBPE)
	odd.trainer = append(odd.trainer, [2]uint64{41, 6}, [2]uint64{42, math.MaxUint64})
	if tok, err = ParseSentencePiece(odd.bytes()); err != nil || tok.bos != none || tok.eos != none {
		t.Errorf("a letter as BOS, -1 as EOS: %d, %d, %v", tok.bos, tok.eos, err)
	}
	m := words(spUnigram)
	m.normalizer = nil // the default takes extra spaces out
	m.trainer = append(m.trainer, [2]uint64{35, 1})
	m.pieces = append(m.pieces, spPiece{"<0xC3>", 0, 6}, spPiece{"<0xB8>", 0, 6}, spPiece{"bb", -0.1, 5})
	if tok, err = ParseSentencePiece(m.bytes()); err != nil {
		t.Fatal(err)
	}
	reread(t, tok)
	check(tok, "  a   a ", "▁|a|▁|a", "a a")
	check(tok, "aø中bb", "▁|a|<0xC3>|<0xB8>|<unk>|b|b", "aø<unk>bb")
	check(tok, "   ", "", "")
}

// TestUnigramTies: of two cuts that score the same, that whose last token is
// longer is taken.
func TestUnigramTies(t *testing.T) {
	tok, err := ParseFile([]byte(`{"model": {"type": "Unigram", "vocab": [["a", -1], ["aa", -2], ["b", -1]]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tok.Encode("aab"); err != nil || fmt.Sprint(got) != "[1 2]" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := tok.Encode("ac"); err == nil || !strings.Contains(err.Error(), `"c" at byte 1`) {
		t.Errorf("ac: %v", err)
	}
}

func TestRefusedSentencePiece(t *testing.T) {
	good := words(spBPE)
	for want, data := range map[string][]byte{
		"no token stands for what is unknown": nil,
		"field 1 at offset 0":                 []byte("\x0a\x7f"),
		"offset 0":                            []byte("\xff"),
		`normalizer "nmt_nfkc" with a character map of 3 bytes`: good.with(func(m *spModel) { m.charsMap = "abc" }).bytes(),
		"escape_whitespaces false":                              good.with(func(m *spModel) { m.normalizer = [][2]uint64{{5, 0}} }).bytes(),
		"treat_whitespace_as_suffix":                            good.with(func(m *spModel) { m.trainer = append(m.trainer, [2]uint64{24, 1}) }).bytes(),
		"model type 3":                                          words(3).bytes(),
		"unused token 6 of a BPE":                               good.with(func(m *spModel) { m.pieces[6].kind = 5 }).bytes(),
		"tokens 0 and 1 both stand for what is unknown":         good.with(func(m *spModel) { m.pieces[1].kind = 2 }).bytes(),
		"token 1 is a byte, but byte_fallback is off":           good.with(func(m *spModel) { m.pieces[1] = spPiece{"<0x01>", 0, 6} }).bytes(),
		"type 9, want 1 to 6":                                   good.with(func(m *spModel) { m.pieces[1].kind = 9 }).bytes(),
		"type 18446744073709551615":                             good.with(func(m *spModel) { m.pieces[1].kind = math.MaxUint64 }).bytes(),
		"score NaN":                                             good.with(func(m *spModel) { m.pieces[6].score = float32(math.NaN()) }).bytes(),
		`whose character 'z' is no token itself`:                good.with(func(m *spModel) { m.pieces = append(m.pieces, spPiece{"az", 0, 1}) }).bytes(),
		"token 20 has 600 bytes":                                good.with(func(m *spModel) { m.pieces = append(m.pieces, spPiece{strings.Repeat("a", 600), 0, 1}) }).bytes(),
		"token 20 is empty":                                     good.with(func(m *spModel) { m.pieces = append(m.pieces, spPiece{"", 0, 1}) }).bytes(),
		`tokens 6 and 20 are both written "a"`:                  good.with(func(m *spModel) { m.pieces = append(m.pieces, spPiece{"a", 0, 1}) }).bytes(),
		`is "\xff", which is not UTF-8`:                         words(spUnigram).with(func(m *spModel) { m.pieces = append(m.pieces, spPiece{"\xff", 0, 1}) }).bytes(),
		`want a byte's name`:                                    good.with(func(m *spModel) { m.trainer = append(m.trainer, [2]uint64{35, 1}); m.pieces[1].kind = 6 }).bytes(),
		`token 20, "<0x41>", which is named as a byte but is none, `: words(spUnigram).with(func(m *spModel) {
			m.trainer = append(m.trainer, [2]uint64{35, 1})
			m.pieces = append(m.pieces, spPiece{"<0x41>", 0, 1})
		}).bytes(),
	} {
		if _, err := ParseSentencePiece(data); err == nil || !strings.Contains(err.Error()+" ", strings.TrimSpace(want)) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

func u32(n uint32) *uint32 { return &n }

func yes() *bool { b := true; return &b }

// smallGGUF are vocabularies of both models.
func smallGGUF() (gpt2, llama GGUF) {
	gpt2 = GGUF{Model: "gpt2", Pre: "qwen2", Tokens: []string{"a", "b", "Ġ", "ab", "Ġab", "<|end|>", "[PAD]"}, Types: []int32{1, 1, 1, 1, 1, 3, 5}, Merges: []string{"a b", "Ġ ab"}, BOS: u32(5), EOS: u32(5)}
	llama = GGUF{Model: "llama", Tokens: []string{"<unk>", "<s>", "▁", "a", "aa", "▁a", "<0x62>", "<|u|>", "[PAD]"}, Scores: []float32{0, 0, -3, -4, -1, -1, 0, 0, 0}, Types: []int32{2, 3, 1, 1, 1, 1, 6, 4, 2}, BOS: u32(1), Unk: u32(0)}
	return gpt2, llama
}

func TestGGUF(t *testing.T) {
	gpt2, llama := smallGGUF()
	tok, err := FromGGUF(gpt2)
	if err != nil {
		t.Fatal(err)
	}
	reread(t, tok)
	if got, err := tok.EncodeSpecial("ab ab<|end|>"); err != nil || fmt.Sprint(tok.Frame(got)) != "[3 4 5]" {
		t.Errorf("gpt2: %v, %v", got, err)
	}
	gpt2.Pre, gpt2.AddEOS = "llama-bpe", yes()
	if tok, err = FromGGUF(gpt2); err != nil || fmt.Sprint(tok.Frame([]ID{0})) != "[5 0 5]" || !tok.whole || tok.split != CL100K {
		t.Errorf("llama-bpe: %v", err)
	}
	reread(t, tok)
	if tok, err = FromGGUF(llama); err != nil {
		t.Fatal(err)
	}
	reread(t, tok)
	// aa and ▁a score the same, and so the one to the left is made.
	if got, err := tok.Encode("aa b<|u|>ac"); err != nil || fmt.Sprint(tok.Frame(got)) != "[1 5 3 2 6 7 5 0]" {
		t.Errorf("llama: %v, %v", tok.Frame(got), err)
	} else if back, err := tok.Decode(got[:len(got)-1]); err != nil || string(back) != "aa b<|u|>a" {
		t.Errorf("llama: back %q, %v", back, err)
	}
	no := false
	llama.AddPrefix, llama.AddBOS = &no, &no
	if tok, err = FromGGUF(llama); err != nil {
		t.Fatal(err)
	}
	if got, err := tok.Encode("aa"); err != nil || fmt.Sprint(tok.Frame(got)) != "[4]" {
		t.Errorf("no prefix: %v, %v", got, err)
	}
}

func TestRefusedGGUF(t *testing.T) {
	gpt2, llama := smallGGUF()
	change := func(g GGUF, f func(*GGUF)) GGUF {
		g.Tokens, g.Types, g.Scores, g.Merges = slices.Clone(g.Tokens), slices.Clone(g.Types), slices.Clone(g.Scores), slices.Clone(g.Merges)
		f(&g)
		return g
	}
	for want, g := range map[string]GGUF{
		`model "t5"`:                       change(gpt2, func(g *GGUF) { g.Model = "t5" }),
		`pre "tekken"`:                     change(gpt2, func(g *GGUF) { g.Pre = "tekken" }),
		`pre "default"`:                    change(gpt2, func(g *GGUF) { g.Pre = "default" }),
		`pre ""`:                           change(gpt2, func(g *GGUF) { g.Pre = "" }),
		"precompiled_charsmap":             change(llama, func(g *GGUF) { g.CharsMap = []byte{1} }),
		"add_space_prefix of a gpt2":       change(gpt2, func(g *GGUF) { g.AddPrefix = yes() }),
		"remove_extra_whitespaces":         change(llama, func(g *GGUF) { g.Trim = yes() }),
		"bos_token_id is 7, with 7 tokens": change(gpt2, func(g *GGUF) { g.BOS = u32(7) }),
		"eos_token_id is 4294967295":       change(gpt2, func(g *GGUF) { g.EOS = u32(math.MaxUint32) }),
		"token_type has 6 values":          change(gpt2, func(g *GGUF) { g.Types = g.Types[1:] }),
		"token_type of 0 is -1":            change(gpt2, func(g *GGUF) { g.Types[0] = -1 }),
		"scores has 0 values for 9":        change(llama, func(g *GGUF) { g.Scores = nil }),
		"scores[3] is not a number":        change(llama, func(g *GGUF) { g.Scores[3] = float32(math.NaN()) }),
		"byte token 0 of a gpt2":           change(gpt2, func(g *GGUF) { g.Types[0] = 6 }),
		"merges[1]":                        change(gpt2, func(g *GGUF) { g.Merges[1] = "ab" }),
		"merge 0 is of":                    change(gpt2, func(g *GGUF) { g.Merges[0] = "b a" }),
		"does not spell bytes":             change(gpt2, func(g *GGUF) { g.Tokens[0] = "中" }),
		"no bos_token_id":                  change(gpt2, func(g *GGUF) { g.BOS, g.AddBOS = nil, yes() }),
		"no eos_token_id":                  change(gpt2, func(g *GGUF) { g.EOS, g.AddEOS = nil, yes() }),
		"vocabulary is empty":              {Model: "llama", AddBOS: new(bool)},
	} {
		if _, err := FromGGUF(g); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	if _, err := FromGGUF(GGUF{Model: "rwkv"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v is not ErrUnsupported", err)
	}
}

func TestGPT2Files(t *testing.T) {
	const vocab = `{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}`
	tok, err := ParseGPT2([]byte(vocab), []byte("#version: 0.2\r\na b\r\n\r\n"), GPT2, "<|endoftext|>")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tok.EncodeSpecial("aba<|endoftext|>"); err != nil || fmt.Sprint(got) != "[2 0 3]" {
		t.Errorf("%v, %v", got, err)
	}
	reread(t, tok)
	for want, files := range map[string][3]string{
		"vocab.json: unexpected end":          {"{", "", "<|endoftext|>"},
		"merges.txt: line 2: merge \"ab\"":    {vocab, "a b\nab\n", "<|endoftext|>"},
		"line 2: merge \"#version: 0.2 x\"":   {vocab, "a b\n#version: 0.2 x\n", "<|endoftext|>"},
		"merge 0 is of \"b\" and \"a\"":       {vocab, "b a", "<|endoftext|>"},
		`lacks the special token "<s>"`:       {vocab, "", "<s>"},
		"both token 0":                        {`{"a": 0, "b": 0, "<s>": 1}`, "", "<s>"},
		"highest ID is 9999, with 3 tokens":   {`{"a": 9999, "<s>": 1}`, "", "<s>"},
		"cannot unmarshal string into Go val": {`{"a": "0"}`, "", "<s>"},
	} {
		if _, err := ParseGPT2([]byte(files[0]), []byte(files[1]), GPT2, files[2]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	if _, err := ParseGPT2([]byte(vocab), nil, 77); err == nil || !strings.Contains(err.Error(), "splitter 77") {
		t.Error(err)
	}
}

// consistent checks what must hold of any tokenizer that a reader let pass.
func consistent(t *testing.T, tok *Tokenizer, text string) {
	t.Helper()
	again, err := ParseFile(tok.File())
	if err != nil || string(again.File()) != string(tok.File()) {
		t.Fatalf("its own file: %v\n%s", err, tok.File())
	}
	ids, err := tok.EncodeSpecial(text)
	if err != nil {
		return
	}
	for _, id := range ids {
		if int(id) >= tok.Vocab() {
			t.Fatalf("token %d of %d", id, tok.Vocab())
		}
	}
	if same, err := again.EncodeSpecial(text); err != nil || !slices.Equal(ids, same) {
		t.Fatalf("%v, and from its own file %v, %v", ids, same, err)
	}
	if _, err := tok.Decode(ids); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseSentencePiece(f *testing.F) {
	for model := range uint64(4) {
		f.Add(words(model).bytes(), "ban ana é")
	}
	f.Add(words(spBPE).with(func(m *spModel) {
		m.trainer = append(m.trainer, [2]uint64{35, 1})
		m.pieces[1] = spPiece{"<0x41>", 0, 6}
	}).bytes(), "A  b")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if tok, err := ParseSentencePiece(data); err == nil {
			consistent(t, tok, text)
		}
	})
}

func FuzzParseGPT2(f *testing.F) {
	f.Add([]byte(`{"a": 0, "b": 1, "ab": 2, "<s>": 3}`), []byte("#version: 0.2\na b\n"), "aab", "<s>")
	f.Add([]byte(`{"a": 0, "Ġ": 1, "Ġa": 2}`), []byte("Ġ a"), "a a", "Ġa")
	f.Fuzz(func(t *testing.T, vocab, merges []byte, text, special string) {
		if tok, err := ParseGPT2(vocab, merges, CL100K, special); err == nil {
			consistent(t, tok, text)
		}
	})
}

func FuzzFromGGUF(f *testing.F) {
	gpt2, llama := smallGGUF()
	for _, g := range []GGUF{gpt2, llama} {
		types := make([]byte, len(g.Types))
		for i, k := range g.Types {
			types[i] = byte(k)
		}
		f.Add(g.Model, strings.Join(g.Tokens, "\n"), types, strings.Join(g.Merges, "\n"), uint32(0), "ab<|u|> a")
	}
	f.Fuzz(func(t *testing.T, model, tokens string, types []byte, merges string, unk uint32, text string) {
		g := GGUF{Model: model, Pre: "gpt-2", Tokens: strings.Split(tokens, "\n"), Unk: &unk}
		if merges != "" {
			g.Merges = strings.Split(merges, "\n")
		}
		for i, k := range types {
			g.Types = append(g.Types, int32(k))
			g.Scores = append(g.Scores, float32(i*7%5))
		}
		if tok, err := FromGGUF(g); err == nil {
			consistent(t, tok, text)
		}
	})
}
