package token

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// vocabularies is a folder with llama.cpp's models/ggml-vocab-*.gguf and their
// .inp and .out files. It may hold llama3.2/encoder.json and llama3.2/vocab.bpe,
// Llama 3's vocabulary in GPT-2's form, as ollama's repository has it.
const vocabularies = "KITH_LLAMA_VOCABS"

// readGGUF reads the metadata of a file that is known to be sound.
func readGGUF(t *testing.T, path string) map[string]any {
	t.Helper()
	d, err := os.ReadFile(path)
	if err != nil || len(d) < 24 || string(d[:4]) != "GGUF" {
		t.Skipf("%s is no GGUF file: %v", path, err)
	}
	u32 := func() uint32 { v := binary.LittleEndian.Uint32(d); d = d[4:]; return v }
	u64 := func() uint64 { v := binary.LittleEndian.Uint64(d); d = d[8:]; return v }
	text := func() string { n := u64(); v := string(d[:n]); d = d[n:]; return v }
	var value func(kind uint32) any
	value = func(kind uint32) any {
		switch kind {
		case 0, 1, 7:
			v := d[0]
			d = d[1:]
			return v != 0
		case 4:
			return u32()
		case 5:
			return int32(u32())
		case 6:
			return math.Float32frombits(u32())
		case 8:
			return text()
		case 9:
			kind, n := u32(), u64()
			var out []any
			for range n {
				out = append(out, value(kind))
			}
			return out
		case 10, 11, 12:
			return u64()
		}
		t.Fatalf("%s: value type %d", path, kind)
		return nil
	}
	d = d[16:]
	out := map[string]any{}
	for range u64() {
		key := text()
		out[key] = value(u32())
	}
	return out
}

func list[T any](v any) (out []T) {
	all, _ := v.([]any)
	for _, e := range all {
		out = append(out, e.(T))
	}
	return out
}

func optional[T any](v any) *T {
	if x, ok := v.(T); ok {
		return &x
	}
	return nil
}

func vocabularyOf(t *testing.T, path string) GGUF {
	m := readGGUF(t, path)
	at := func(key string) any { return m["tokenizer.ggml."+key] }
	model, _ := at("model").(string)
	pre, _ := at("pre").(string)
	return GGUF{
		Model: model, Pre: pre, Tokens: list[string](at("tokens")), Scores: list[float32](at("scores")), Types: list[int32](at("token_type")), Merges: list[string](at("merges")),
		BOS: optional[uint32](at("bos_token_id")), EOS: optional[uint32](at("eos_token_id")), Unk: optional[uint32](at("unknown_token_id")),
		AddBOS: optional[bool](at("add_bos_token")), AddEOS: optional[bool](at("add_eos_token")), AddPrefix: optional[bool](at("add_space_prefix")),
	}
}

// fixtures compares a tokenizer with llama.cpp's expectations.
func fixtures(t *testing.T, tok *Tokenizer, path string) {
	t.Helper()
	in, err := os.ReadFile(path + ".inp")
	if err != nil {
		t.Skip(err)
	}
	want, err := os.ReadFile(path + ".out")
	if err != nil {
		t.Skip(err)
	}
	const separator = "\n__ggml_vocab_test__\n"
	texts := strings.Split(strings.TrimSuffix(string(in), separator), separator)
	lines := strings.Split(strings.TrimSuffix(string(want), "\n"), "\n")
	if len(texts) != len(lines) || len(texts) < 40 {
		t.Fatalf("%s: %d texts, %d results", path, len(texts), len(lines))
	}
	for i, text := range texts {
		got, err := tok.Encode(text)
		if s := strings.Trim(fmt.Sprint(got), "[]"); err != nil || s != strings.Join(strings.Fields(lines[i]), " ") {
			t.Errorf("%s: %q:\n got %s, %v\nwant %s", filepath.Base(path), text, s, err, lines[i])
		}
		if back, err := tok.Decode(got); err != nil || string(back) != text {
			t.Errorf("%s: %q came back as %q, %v", filepath.Base(path), text, back, err)
		}
	}
	t.Logf("%s: %d texts", filepath.Base(path), len(texts))
}

// TestLlamaCpp compares our tokens with llama.cpp's on its own fixtures.
func TestLlamaCpp(t *testing.T) {
	dir := os.Getenv(vocabularies)
	if dir == "" {
		t.Skipf("set %s to a folder with llama.cpp's models/ggml-vocab-* files", vocabularies)
	}
	for _, name := range []string{"gpt-2", "llama-spm", "phi-3", "llama-bpe", "qwen2", "deepseek-r1-qwen"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "ggml-vocab-"+name+".gguf")
			tok, err := FromGGUF(vocabularyOf(t, path))
			if err != nil {
				t.Fatal(err)
			}
			fixtures(t, tok, path)
			fixtures(t, reread(t, tok), path)
		})
	}
	t.Run("llama3 from GPT-2's files", func(t *testing.T) {
		vocab, err := os.ReadFile(filepath.Join(dir, "llama3.2", "encoder.json"))
		if err != nil {
			t.Skip(err)
		}
		merges, err := os.ReadFile(filepath.Join(dir, "llama3.2", "vocab.bpe"))
		if err != nil {
			t.Skip(err)
		}
		tok, err := ParseGPT2(vocab, merges, CL100K)
		if err != nil {
			t.Fatal(err)
		}
		s := tok.spec
		s.whole = true
		if tok, err = build(s); err != nil {
			t.Fatal(err)
		}
		fixtures(t, tok, filepath.Join(dir, "ggml-vocab-llama-bpe.gguf"))
	})
	t.Run("gpt-2 from GPT-2's files", func(t *testing.T) {
		path := filepath.Join(dir, "ggml-vocab-gpt-2.gguf")
		g := vocabularyOf(t, path)
		var vocab []byte
		for id, text := range g.Tokens {
			vocab = fmt.Appendf(vocab, ",%s:%d", appendQuoted(nil, text), id)
		}
		vocab[0] = '{'
		tok, err := ParseGPT2(append(vocab, '}'), []byte("#version: 0.2\n"+strings.Join(g.Merges, "\n")), GPT2, "<|endoftext|>")
		if err != nil {
			t.Fatal(err)
		}
		fixtures(t, tok, path)
	})
	t.Run("llama from a SentencePiece model", func(t *testing.T) {
		path := filepath.Join(dir, "ggml-vocab-llama-spm.gguf")
		g := vocabularyOf(t, path)
		m := spModel{trainer: [][2]uint64{{3, 2}, {35, 1}}, normalizer: [][2]uint64{{4, 0}}}
		for id, text := range g.Tokens {
			m.pieces = append(m.pieces, spPiece{text, g.Scores[id], uint64(g.Types[id])})
		}
		tok, err := ParseSentencePiece(m.bytes())
		if err != nil {
			t.Fatal(err)
		}
		fixtures(t, tok, path)
		fixtures(t, reread(t, tok), path)
	})
	for name, want := range map[string]string{
		"bert-bge": `model "bert"`, "deepseek-coder": `pre "deepseek-coder"`, "deepseek-llm": `pre "deepseek-llm"`, "falcon": `pre "falcon"`, "mpt": `pre "mpt"`, "starcoder": `pre "starcoder"`, "refact": `pre "refact"`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := FromGGUF(vocabularyOf(t, filepath.Join(dir, "ggml-vocab-"+name+".gguf"))); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

// spModel writes a SentencePiece model.
type spModel struct {
	pieces              []spPiece
	trainer, normalizer [][2]uint64 // fields and their values
	charsMap            string
}

type spPiece struct {
	text  string
	score float32
	kind  uint64
}

func (m spModel) bytes() (out []byte) {
	message := func(num protowire.Number, body []byte) {
		out = protowire.AppendBytes(protowire.AppendTag(out, num, protowire.BytesType), body)
	}
	ints := func(list [][2]uint64) (b []byte) {
		for _, f := range list {
			b = protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(f[0]), protowire.VarintType), f[1])
		}
		return b
	}
	for _, p := range m.pieces {
		b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), p.text)
		b = protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), math.Float32bits(p.score))
		message(1, append(b, ints([][2]uint64{{3, p.kind}})...))
	}
	message(2, ints(m.trainer))
	nz := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "nmt_nfkc")
	if m.charsMap != "" {
		nz = protowire.AppendString(protowire.AppendTag(nz, 2, protowire.BytesType), m.charsMap)
	}
	message(3, append(nz, ints(m.normalizer)...))
	return out
}

func (m spModel) with(change func(*spModel)) spModel {
	m.pieces, m.trainer, m.normalizer = slices.Clone(m.pieces), slices.Clone(m.trainer), slices.Clone(m.normalizer)
	change(&m)
	return m
}
