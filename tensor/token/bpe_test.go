package token

import (
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// corpus has words of several scripts, repeated by a seeded source.
func corpus(n int) string {
	rng := rand.New(rand.NewSource(7))
	words := strings.Fields("the cat sat on a mat and the dog didn't see it aaaa aaab banana bananas größe straße 中文 字 привет мир 12 1999 2024 != -- :)")
	var b strings.Builder
	for range n {
		b.WriteString(words[rng.Intn(len(words))])
		b.WriteString([]string{" ", " ", "  ", "\n"}[rng.Intn(4)])
	}
	return b.String()
}

func train(t testing.TB, c TrainConfig, texts ...string) *Tokenizer {
	t.Helper()
	tok, err := Train(slices.Values(texts), c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// slowTrain counts every pair anew for each merge, and gives the merges.
func slowTrain(texts []string, merges int, split Splitter) (out [][2]ID) {
	counts := map[string]int{}
	for _, text := range texts {
		for _, p := range fastSplit(split, text) {
			for len(p) > trainWord {
				counts[p[:trainWord]]++
				p = p[trainWord:]
			}
			counts[p]++
		}
	}
	words := map[string][]ID{}
	for w := range counts {
		for i := range len(w) {
			words[w] = append(words[w], ID(w[i]))
		}
	}
	for len(out) < merges {
		pairs := map[[2]ID]int{}
		for w, ids := range words {
			for i := range len(ids) - 1 {
				pairs[[2]ID{ids[i], ids[i+1]}] += counts[w]
			}
		}
		best, most := [2]ID{}, 0
		for p, n := range pairs {
			if n > most || n == most && (p[0] < best[0] || p[0] == best[0] && p[1] < best[1]) {
				best, most = p, n
			}
		}
		if most < 2 {
			return out
		}
		for w, ids := range words {
			words[w] = slowMerge(ids, best, ID(256+len(out)))
		}
		out = append(out, best)
	}
	return out
}

// slowMerge puts into in the place of a pair, from the left.
func slowMerge(ids []ID, p [2]ID, into ID) (out []ID) {
	for i := 0; i < len(ids); i++ {
		if i+1 < len(ids) && ids[i] == p[0] && ids[i+1] == p[1] {
			out = append(out, into)
			i++
			continue
		}
		out = append(out, ids[i])
	}
	return out
}

// slowEncode makes one merge after another, each the first of the lowest rank.
func slowEncode(tok *Tokenizer, text string) (out []ID) {
	for _, p := range fastSplit(tok.split, text) {
		var ids []ID
		for i := range len(p) {
			ids = append(ids, ID(p[i]))
		}
		for {
			at, best := -1, join{}
			for i := range len(ids) - 1 {
				for _, j := range tok.joins {
					if j.left == ids[i] && j.right == ids[i+1] && (at < 0 || j.rank < best.rank) {
						at, best = i, j
					}
				}
			}
			if at < 0 {
				break
			}
			ids = slices.Replace(ids, at, at+2, best.into)
		}
		out = append(out, ids...)
	}
	return out
}

func TestTrainAgainstReference(t *testing.T) {
	runs := strings.Repeat("a", 700) + strings.Repeat("ab", 300) + strings.Repeat("\x00\xff", 9)
	for _, c := range []struct {
		texts  []string
		split  Splitter
		merges int
	}{
		{[]string{corpus(3000)}, GPT2, 300},
		{[]string{corpus(500), corpus(900)}, CL100K, 200},
		{[]string{runs}, NoSplit, 40},
		{[]string{"aaa aaa aaaa", "aaaaa"}, Qwen2, 20},
		{[]string{"abcabc"}, GPT2, 20},
		{[]string{""}, GPT2, 5},
	} {
		tok := train(t, TrainConfig{Vocab: 256 + c.merges, Split: c.split}, c.texts...)
		var got [][2]ID
		for _, j := range tok.joins {
			got = append(got, [2]ID{j.left, j.right})
		}
		if want := slowTrain(c.texts, c.merges, c.split); !slices.Equal(got, want) {
			t.Errorf("%v %.20q: %d merges %v, want %d %v", c.split, c.texts, len(got), got, len(want), want)
		}
	}
}

func TestTrainRefuses(t *testing.T) {
	for want, c := range map[string]TrainConfig{
		"vocab is 256, want 257":   {Vocab: 256, Special: []string{"<end>"}},
		"vocab is 16777217":        {Vocab: MaxVocab + 1},
		"min count is -1":          {Vocab: 300, MinCount: -1},
		"splitter 99":              {Vocab: 300, Split: 99},
		`"<x>" stands twice`:       {Vocab: 300, Special: []string{"<x>", "<x>"}},
		`"\xff" is not UTF-8`:      {Vocab: 300, Special: []string{"\xff"}},
		"has 0 bytes, want 1 to":   {Vocab: 300, Special: []string{""}},
		"has 257 bytes, want 1 to": {Vocab: 300, Special: []string{strings.Repeat("x", 257)}},
	} {
		if _, err := Train(slices.Values([]string{"abab"}), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func TestEncodeAgainstReference(t *testing.T) {
	tok := train(t, TrainConfig{Vocab: 500, Split: GPT2, Special: []string{"<end>"}}, corpus(3000))
	rng := rand.New(rand.NewSource(3))
	text := corpus(300)
	for range 300 {
		at := rng.Intn(len(text) - 80)
		piece := text[at : at+rng.Intn(80)]
		if rng.Intn(3) == 0 {
			piece += bits[rng.Intn(len(bits))] + strings.Repeat("banan", rng.Intn(20))
		}
		for range 2 { // the second time from the cache
			got, err := tok.Encode(piece)
			if want := slowEncode(tok, piece); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%q: %v, %v; want %v", piece, got, err, want)
			}
		}
	}
}

// TestRoundTrip: byte-level tokenizers give back every byte.
func TestRoundTrip(t *testing.T) {
	plain, err := Bytes()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	toks := []*Tokenizer{plain}
	for s := NoSplit; int(s) < len(splitters); s++ {
		toks = append(toks, train(t, TrainConfig{Vocab: 400, Split: s, Special: []string{"<end>"}}, corpus(1000)))
	}
	for _, tok := range toks {
		for _, text := range append([]string{string(all), string(all) + string(all), corpus(50), "<end>"}, bits...) {
			roundTrip(t, tok, text)
		}
	}
}

func roundTrip(t *testing.T, tok *Tokenizer, text string) {
	t.Helper()
	for _, encode := range []func(string) ([]ID, error){tok.Encode, tok.EncodeSpecial} {
		ids, err := encode(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tok.Decode(ids)
		if err != nil || string(got) != text {
			t.Fatalf("%q came back as %q, %v", text, got, err)
		}
		var parts []byte
		for _, id := range ids {
			parts = append(parts, tok.Bytes(id)...)
		}
		if string(parts) != text {
			t.Fatalf("%q came back in parts as %q", text, parts)
		}
	}
}

func FuzzRoundTrip(f *testing.F) {
	tok := train(f, TrainConfig{Vocab: 400, Split: CL100K, Special: []string{"<end>", "<|x|>"}}, corpus(1000))
	for _, b := range bits {
		f.Add("<end>" + b)
	}
	f.Fuzz(func(t *testing.T, text string) { roundTrip(t, tok, text) })
}

func TestSpecial(t *testing.T) {
	tok, err := Bytes("<s>", "<s>x", "</s>")
	if err != nil {
		t.Fatal(err)
	}
	const text = "<s>a<s>xb<s"
	if ids, _ := tok.Encode(text); len(ids) != len(text) || slices.ContainsFunc(ids, tok.IsSpecial) {
		t.Errorf("plain text made %v", ids)
	}
	if ids, _ := tok.EncodeSpecial(text); fmt.Sprint(ids) != "[256 97 257 98 60 115]" {
		t.Errorf("special text made %v", ids)
	}
	if id, ok := tok.Special("</s>"); !ok || id != 258 || tok.Vocab() != 259 {
		t.Errorf("</s> is %d, %v of %d", id, ok, tok.Vocab())
	}
	if _, err := tok.Decode([]ID{97, 259}); err == nil || !strings.Contains(err.Error(), "token 1 is 259") {
		t.Errorf("decode: %v", err)
	}
	if _, ok := tok.BOS(); ok {
		t.Error("there is a BOS")
	}
	tok, err = tok.WithEnds("<s>", "</s>")
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := tok.BOS(); !ok || id != 256 {
		t.Errorf("BOS is %d, %v", id, ok)
	}
	if id, ok := tok.EOS(); !ok || id != 258 {
		t.Errorf("EOS is %d, %v", id, ok)
	}
	if _, err := tok.WithEnds("a", ""); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("a as BOS: %v", err)
	}
}

func TestCharacters(t *testing.T) {
	tok, err := Characters("hello wörld\n", "<end>")
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := tok.Encode("low\n"); err != nil || fmt.Sprint(ids) != "[5 6 8 0]" {
		t.Errorf("low: %v, %v", ids, err)
	}
	if got, err := tok.Decode([]ID{4, 9, 10}); err != nil || string(got) != "hö<end>" {
		t.Errorf("%q, %v", got, err)
	}
	if ids, err := tok.Append([]ID{1}, "hex", false); err == nil || !strings.Contains(err.Error(), `"x" at byte 2`) || len(ids) != 1 {
		t.Errorf("hex: %v, %v", ids, err)
	}
	if _, err := Characters("a\xff"); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("bytes: %v", err)
	}
	if _, err := Characters(""); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("nothing: %v", err)
	}
}

// TestLongPieces: a long piece is cut as a short one is. Quadratic code would take
// minutes over it.
func TestLongPieces(t *testing.T) {
	tok := train(t, TrainConfig{Vocab: 600, Split: NoSplit}, corpus(2000), strings.Repeat("a", 5000))
	for _, unit := range []string{"a", "ab", "banana", " ", "the cat "} {
		short, long := strings.Repeat(unit, 400/len(unit)), strings.Repeat(unit, 100_000/len(unit))
		ids, err := tok.Encode(long)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := tok.Decode(ids); string(got) != long {
			t.Errorf("many of %q do not come back", unit)
		}
		if want, _ := tok.Encode(short); !slices.Equal(want, slowEncode(tok, short)) {
			t.Errorf("%q: not the reference's", unit)
		}
	}
}

// TestCanonical: equal training gives equal bytes, and a name of them.
func TestCanonical(t *testing.T) {
	c := TrainConfig{Vocab: 300, Split: Qwen2, Special: []string{"<end>"}}
	a, b := train(t, c, corpus(500)), train(t, c, corpus(500))
	if string(a.File()) != string(b.File()) || a.CID() != b.CID() {
		t.Error("two trainings differ")
	}
	c.Split = GPT2
	if d := train(t, c, corpus(500)); d.CID() == a.CID() {
		t.Error("another splitter has the same CID")
	}
}

// shakespeare is the corpus that benchmarks train on; skipped where it is absent.
func shakespeare(b *testing.B) string {
	b.Helper()
	path := os.Getenv("KITH_TINYSHAKESPEARE")
	data, err := os.ReadFile(path)
	if err != nil {
		b.Skipf("set KITH_TINYSHAKESPEARE to the file tinyshakespeare.txt: %v", err)
	}
	return string(data)
}

func BenchmarkTrain8192(b *testing.B) {
	text := shakespeare(b)
	for b.Loop() {
		start := time.Now()
		tok := train(b, TrainConfig{Vocab: 8192, Split: GPT2}, text)
		if tok.Vocab() != 8192 {
			b.Fatal(tok.Vocab())
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/training")
	}
}

func BenchmarkEncode(b *testing.B) {
	text := shakespeare(b)
	tok := train(b, TrainConfig{Vocab: 8192, Split: GPT2}, text)
	b.SetBytes(int64(len(text)))
	var ids []ID
	for b.Loop() {
		ids, _ = tok.Append(ids[:0], text, false)
	}
}

func BenchmarkEncodeLongPiece(b *testing.B) {
	tok := train(b, TrainConfig{Vocab: 600, Split: NoSplit}, corpus(2000))
	text := strings.Repeat("banana ", 150_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		_, _ = tok.Encode(text)
	}
}

func TestAlphabet(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for raw, want := range map[string]string{" a\n": "ĠaĊ", "\x00\x7f\xad": "ĀġŃ", "\xff~": "ÿ~"} {
		if got := spell(raw); got != want {
			t.Errorf("%q is spelled %q, want %q", raw, got, want)
		}
	}
	if got, ok := unspell(spell(string(all))); !ok || got != string(all) {
		t.Errorf("all bytes come back as %q, %v", got, ok)
	}
	for _, text := range []string{" ", "\n", "\u00ad", "\u0144", "中", "\xff", "\ufffd"} {
		if got, ok := unspell(text); ok {
			t.Errorf("%q is read as %q", text, got)
		}
	}
}
