package token

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand"
	"slices"
	"strings"
	"testing"
)

const someCID = "bafkreiewbbopd6jlfdetkhdupukzqrfynmeafid2flyasthcjcp4kpfj5m"

// shard writes tokens in parts of odd sizes.
func shard(t testing.TB, h ShardHeader, ids []ID, loss []bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewShardWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(ids); {
		n := min(1+at%977, len(ids)-at)
		if loss == nil {
			err = w.Write(ids[at : at+n])
		} else {
			err = w.WriteMasked(ids[at:at+n], loss[at:at+n])
		}
		if err != nil {
			t.Fatal(err)
		}
		at += n
	}
	if w.Len() != int64(len(ids)) {
		t.Errorf("wrote %d of %d", w.Len(), len(ids))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// counting says how much of a shard was read.
type counting struct {
	r io.ReaderAt
	n int
}

func (c *counting) ReadAt(b []byte, at int64) (int, error) {
	c.n += len(b)
	return c.r.ReadAt(b, at)
}

func TestShard(t *testing.T) {
	rng := rand.New(rand.NewSource(2))
	for _, vocab := range []int{1, 300, 1 << 16, 1<<16 + 1, MaxVocab} {
		for _, n := range []int{0, 1, 7, 8, 9, 4096, 8192, 20001} {
			for _, masked := range []bool{false, true} {
				ids, loss := make([]ID, n), []bool(nil)
				for i := range ids {
					ids[i] = ID(rng.Intn(vocab))
				}
				if n > 0 {
					ids[n-1] = ID(vocab - 1)
				}
				if masked {
					for range ids {
						loss = append(loss, rng.Intn(3) == 0)
					}
				}
				h := ShardHeader{Vocab: vocab, Tokenizer: someCID, Masked: masked}
				data := shard(t, h, ids, loss)
				s, err := OpenShard(bytes.NewReader(data), int64(len(data)))
				if err != nil {
					t.Fatal(err)
				}
				if s.Len() != int64(n) || s.Header() != h {
					t.Fatalf("%d tokens, %+v", s.Len(), s.Header())
				}
				for range 20 {
					at := rng.Intn(n + 1)
					got := make([]ID, rng.Intn(n-at+1))
					mask := make([]bool, len(got))
					if err := s.Read(int64(at), got); err != nil || !slices.Equal(got, ids[at:at+len(got)]) {
						t.Fatalf("%d tokens of %d, %d from %d: %v", n, vocab, len(got), at, err)
					}
					if err := s.ReadMask(int64(at), mask); err != nil {
						t.Fatal(err)
					}
					for i, m := range mask {
						if want := !masked || loss[at+i]; m != want {
							t.Fatalf("token %d of %d counts: %v, want %v", at+i, n, m, want)
						}
					}
				}
			}
		}
	}
}

// TestShardReadsLittle: a window costs the chunks it lies in.
func TestShardReadsLittle(t *testing.T) {
	data := shard(t, ShardHeader{Vocab: 300, Tokenizer: someCID, Masked: true}, make([]ID, 1<<20), nil)
	r := &counting{r: bytes.NewReader(data)}
	s, err := OpenShard(r, int64(len(data)))
	if err != nil || r.n > 1000 {
		t.Fatalf("opening read %d bytes, %v", r.n, err)
	}
	r.n = 0
	window := make([]ID, 257)
	if err := s.Read(500_000, window); err != nil || r.n > 2*shardChunk+8 {
		t.Errorf("a window of 257 read %d bytes, %v", r.n, err)
	}
	if n := testing.AllocsPerRun(20, func() { _ = s.Read(700_000, window) }); n > 1 {
		t.Errorf("a window allocates %v times", n)
	}
}

func TestShardGolden(t *testing.T) {
	for vocab, want := range map[int]int{1: 2, 1 << 16: 2, 1<<16 + 1: 4} {
		if got := (ShardHeader{Vocab: vocab}).width(); got != want {
			t.Errorf("a token of %d takes %d bytes, want %d", vocab, got, want)
		}
	}
	data := shard(t, ShardHeader{Vocab: 300, Tokenizer: "bafy", Masked: true}, []ID{1, 299, 256}, []bool{true, false, true})
	want := "kithtok\n" + "\x01\x00" + "\x02" + "\x01" + "\x2c\x01\x00\x00" + "\x04\x00" + "bafy" + strings.Repeat("\x00", 10) +
		"\x01\x00\x2b\x01\x00\x01" + "\x05"
	want += string(binary.LittleEndian.AppendUint32(nil, crc32.Checksum([]byte(want[32:]), castagnoli)))
	end := binary.LittleEndian.AppendUint32([]byte("\x03\x00\x00\x00\x00\x00\x00\x00"), crc32.Checksum([]byte(want[:32]), castagnoli))
	want += string(binary.LittleEndian.AppendUint32(end, crc32.Checksum(end, castagnoli))) + "kithend\n"
	if string(data) != want {
		t.Errorf("\n got %q\nwant %q", data, want)
	}
}

func TestShardWriterRefuses(t *testing.T) {
	for want, h := range map[string]ShardHeader{
		"vocab is 0":         {Tokenizer: someCID},
		"vocab is 16777217":  {Vocab: MaxVocab + 1, Tokenizer: someCID},
		`tokenizer is ""`:    {Vocab: 1},
		`tokenizer is "a b"`: {Vocab: 1, Tokenizer: "a b"},
		`tokenizer is "aaa`:  {Vocab: 1, Tokenizer: strings.Repeat("a", 129)},
	} {
		if _, err := NewShardWriter(io.Discard, h); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	w, err := NewShardWriter(io.Discard, ShardHeader{Vocab: 3, Tokenizer: someCID})
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"token 1 is 3":              w.Write([]ID{0, 3}),
		"2 tokens, but a mask of 1": w.WriteMasked([]ID{0, 1}, []bool{true}),
		"set Masked":                w.WriteMasked([]ID{0}, []bool{false}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) || w.Len() != 0 {
			t.Errorf("%v, want %s; %d written", err, want, w.Len())
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Write([]ID{1}); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}
	if w, err = NewShardWriter(&failing{after: 1}, ShardHeader{Vocab: 3, Tokenizer: someCID}); err != nil {
		t.Fatal(err)
	}
	err = w.Write(make([]ID, 9000))
	if again := w.Close(); !errors.Is(err, errFull) || !errors.Is(again, errFull) {
		t.Errorf("a full disk: %v, then %v", err, again)
	}
}

var errFull = errors.New("full")

type failing struct{ after int }

func (f *failing) Write(b []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// rebuilt puts right the sums of a shard whose header or trailer was changed.
func rebuilt(data []byte, head int) []byte {
	t := data[len(data)-shardTrailer:]
	binary.LittleEndian.PutUint32(t[8:], crc32.Checksum(data[:head], castagnoli))
	binary.LittleEndian.PutUint32(t[12:], crc32.Checksum(t[:12], castagnoli))
	return data
}

func TestHostileShard(t *testing.T) {
	const head = 80 // bytes of the header
	good := shard(t, ShardHeader{Vocab: 300, Tokenizer: someCID, Masked: true}, make([]ID, 9000), nil)
	end := int64(len(good) - shardTrailer)
	for _, c := range []struct {
		field  string
		offset int64
		change func(b []byte) []byte
	}{
		{"size", 0, func(b []byte) []byte { return b[:41] }},
		{"magic", 0, func(b []byte) []byte { b[0] = 'K'; return b }},
		{"version", 8, func(b []byte) []byte { b[8] = 2; return b }},
		{"bytes of a token", 10, func(b []byte) []byte { b[10] = 4; return b }},
		{"flags", 11, func(b []byte) []byte { b[11] = 3; return b }},
		{"vocab", 12, func(b []byte) []byte { copy(b[12:], "\x00\x00\x00\x00"); return b }},
		{"vocab", 12, func(b []byte) []byte { copy(b[12:], "\xff\xff\xff\xff"); return b }},
		{"length of the tokenizer's CID", 16, func(b []byte) []byte { copy(b[16:], "\xff\xff"); return b }},
		{"length of the tokenizer's CID", 16, func(b []byte) []byte { b[16] = 129; return b }},
		{"length of the tokenizer's CID", 16, func(b []byte) []byte { return b[:60] }},
		{"tokenizer's CID", 18, func(b []byte) []byte { b[16] = 0; return b }},
		{"tokenizer's CID", 18, func(b []byte) []byte { b[20] = '/'; return b }},
		{"padding", 79, func(b []byte) []byte { b[79] = 1; return b }},
		{"header's checksum", end + 8, func(b []byte) []byte { b[20] ^= 1; return b }},
		{"trailer's magic", end + 16, func(b []byte) []byte { b[end+16] ^= 1; return b }},
		{"trailer's magic", end + 15, func(b []byte) []byte { return b[:len(b)-1] }},
		{"trailer's checksum", end + 12, func(b []byte) []byte { b[end] ^= 1; return b }},
		{"count", end, func(b []byte) []byte { binary.LittleEndian.PutUint64(b[end:], math.MaxUint64); return rebuilt(b, head) }},
		{"count", end, func(b []byte) []byte { binary.LittleEndian.PutUint64(b[end:], math.MaxInt64); return rebuilt(b, head) }},
		{"count", end, func(b []byte) []byte { binary.LittleEndian.PutUint64(b[end:], 9001); return rebuilt(b, head) }},
		{"count", end, func(b []byte) []byte { binary.LittleEndian.PutUint64(b[end:], 0); return rebuilt(b, head) }},
		{"count", end, func(b []byte) []byte { b[11] = 0; return rebuilt(b, head) }},
	} {
		data := c.change(bytes.Clone(good))
		_, err := OpenShard(bytes.NewReader(data), int64(len(data)))
		var wrong *ShardError
		if !errors.As(err, &wrong) || wrong.Field != c.field || wrong.Offset != c.offset {
			t.Errorf("got %v, want %s at %d", err, c.field, c.offset)
		}
	}
	plain := shard(t, ShardHeader{Vocab: 300, Tokenizer: someCID}, make([]ID, 9000), nil)
	binary.LittleEndian.PutUint64(plain[len(plain)-shardTrailer:], 1<<63|9000) // twice that is 18000 again
	var over *ShardError
	if _, err := OpenShard(bytes.NewReader(rebuilt(plain, head)), int64(len(plain))); !errors.As(err, &over) || over.Field != "count" {
		t.Errorf("a count that overflows: %v", err)
	}
	if _, err := OpenShard(bytes.NewReader(good[:100]), int64(len(good))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file shorter than said: %v", err)
	}
	damaged := bytes.Clone(good)
	damaged[head+17000] ^= 4 // token 8500, under the second sum
	s, err := OpenShard(bytes.NewReader(damaged), int64(len(damaged)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Read(0, make([]ID, 8192)); err != nil {
		t.Errorf("what is not damaged: %v", err)
	}
	var wrong *ShardError
	if err := s.Read(8000, make([]ID, 500)); !errors.As(err, &wrong) || wrong.Field != "checksum" || wrong.Offset != head+18000+1125+4 {
		t.Errorf("damage: %v", err)
	}
	for _, at := range []int64{-1, 9000, math.MaxInt64, math.MinInt64} {
		if err := s.Read(at, make([]ID, 1)); err == nil || !strings.Contains(err.Error(), "of 9000") {
			t.Errorf("from %d: %v", at, err)
		}
		if err := s.ReadMask(at, make([]bool, 1)); err == nil {
			t.Errorf("mask from %d was read", at)
		}
	}
	binary.LittleEndian.PutUint16(damaged[head+10:], 300)
	first := damaged[head : head+shardChunk]
	binary.LittleEndian.PutUint32(damaged[head+18000+1125:], crc32.Checksum(first, castagnoli))
	if err := s.Read(3, make([]ID, 5)); !errors.As(err, &wrong) || wrong.Field != "token" || wrong.Offset != head+10 {
		t.Errorf("a token above the vocabulary: %v", err)
	}
}

func FuzzOpenShard(f *testing.F) {
	for _, masked := range []bool{false, true} {
		f.Add(shard(f, ShardHeader{Vocab: 300, Tokenizer: "bafy", Masked: masked}, []ID{1, 2, 299}, nil), int64(1), 2, true)
	}
	f.Add(shard(f, ShardHeader{Vocab: 1 << 20, Tokenizer: "bafy", Masked: true}, make([]ID, 40), nil), int64(3), 20, false)
	f.Fuzz(func(t *testing.T, data []byte, at int64, n int, mend bool) {
		if mend && len(data) >= shardFixed+shardTrailer {
			data = bytes.Clone(data)
			head := (shardFixed + int(binary.LittleEndian.Uint16(data[16:])) + 15) &^ 15
			rebuilt(data, min(head, len(data)))
		}
		s, err := OpenShard(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if s.Len() > int64(len(data)) {
			t.Fatalf("%d tokens in %d bytes", s.Len(), len(data))
		}
		ids := make([]ID, max(0, min(n, len(data)+1)))
		if err := s.Read(at, ids); err == nil {
			for _, id := range ids {
				if int(id) >= s.Header().Vocab {
					t.Fatalf("token %d of %d", id, s.Header().Vocab)
				}
			}
		}
		_ = s.ReadMask(at, make([]bool, len(ids)))
		all := make([]ID, s.Len())
		if s.Read(0, all) != nil {
			return
		}
		mask := make([]bool, s.Len())
		if s.ReadMask(0, mask) != nil {
			return
		}
		if again := shard(t, s.Header(), all, mask); len(again) != len(data) {
			t.Fatalf("written again it has %d bytes, not %d", len(again), len(data))
		}
	})
}

func TestPackText(t *testing.T) {
	tok, err := Bytes("<s>", "</s>")
	if err != nil {
		t.Fatal(err)
	}
	if tok, err = tok.WithEnds("<s>", "</s>"); err != nil {
		t.Fatal(err)
	}
	pack := func(tok *Tokenizer) string {
		var b bytes.Buffer
		w, err := NewShardWriter(&b, HeaderOf(tok, false))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"ab", "", "</s>"} {
			if err := PackText(w, tok, text); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := OpenShard(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil || s.Header().Tokenizer != tok.CID() || s.Header().Vocab != 258 {
			t.Fatalf("%+v, %v", s.Header(), err)
		}
		ids := make([]ID, s.Len())
		if err := s.Read(0, ids); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(ids)
	}
	if got := pack(tok); got != "[97 98 257 257 60 47 115 62 257]" {
		t.Errorf("%s", got)
	}
	s := tok.spec
	s.before, s.after = []ID{256}, []ID{257}
	if tok, err = build(s); err != nil {
		t.Fatal(err)
	}
	if got := pack(tok); got != "[256 97 98 257 256 257 256 60 47 115 62 257]" {
		t.Errorf("framed: %s", got)
	}
}

func chatTokenizer(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := Bytes(ChatStart, ChatEnd, "<s>", "</s>")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// shown is a conversation's text, with what counts for the loss in brackets.
func shown(t *testing.T, tok *Tokenizer, ids []ID, loss []bool) string {
	t.Helper()
	var b strings.Builder
	for i, id := range ids {
		if loss[i] && (i == 0 || !loss[i-1]) {
			b.WriteString("[")
		}
		if !loss[i] && i > 0 && loss[i-1] {
			b.WriteString("]")
		}
		b.Write(tok.Bytes(id))
	}
	return b.String()
}

func TestPackChat(t *testing.T) {
	tok := chatTokenizer(t)
	ends, err := tok.WithEnds("<s>", "</s>")
	if err != nil {
		t.Fatal(err)
	}
	const lines = `{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|>"}, {"content": "Hello", "role": "assistant"}], "source": 7}

 {"messages": [{"role": "assistant", "content": ""}]}`
	const first = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n[Hello<|im_end|>]\n"
	const second = "<|im_start|>assistant\n[<|im_end|>]\n"
	for tok, want := range map[*Tokenizer]string{tok: first + second, ends: "<s>" + first + "</s><s>" + second + "</s>"} {
		var b bytes.Buffer
		w, err := NewShardWriter(&b, HeaderOf(tok, true))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := PackChat(w, tok, strings.NewReader(lines)); n != 2 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := OpenShard(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		ids, loss := make([]ID, s.Len()), make([]bool, s.Len())
		if err := errors.Join(s.Read(0, ids), s.ReadMask(0, loss)); err != nil {
			t.Fatal(err)
		}
		if got := shown(t, tok, ids, loss); got != want {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
		if n := bytes.Count([]byte(fmt.Sprint(ids)), []byte("257")); n != 4 {
			t.Errorf("%d ends of turns, want 4: a user forged one", n)
		}
	}
}

// refusedChat are lines by what their refusal must name.
var refusedChat = map[string]string{
	"line 1: unexpected end":            `{`,
	"there are no messages":             `{"messages": []}`,
	"line 2: chat: there are no":        "\n{}",
	`role of message 0 is "root"`:       `{"messages": [{"role": "root", "content": ""}]}`,
	`unknown field "tool_calls"`:        `{"messages": [{"role": "user", "content": "", "tool_calls": []}]}`,
	"message 0: want a role":            `{"messages": [{"role": "user"}]}`,
	"message 0: want a role and a cont": `{"messages": [{"role": "user", "content": null}]}`,
	"cannot unmarshal array":            `{"messages": [{"role": "user", "content": []}]}`,
	"not UTF-8":                         "{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}",
	"set Masked":                        `{"messages": [{"role": "user", "content": ""}]}`,
}

func TestRefusedChat(t *testing.T) {
	tok := chatTokenizer(t)
	for want, lines := range refusedChat {
		w, err := NewShardWriter(io.Discard, HeaderOf(tok, want != "set Masked"))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := PackChat(w, tok, strings.NewReader(lines)); n != 0 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d, %v, want %s", lines, n, err, want)
		}
	}
	long := io.LimitReader(endless{}, MaxChatLine+10)
	if _, err := PackChat(nil, tok, long); err == nil || !strings.Contains(err.Error(), "line 1: more than 16777216 bytes") {
		t.Errorf("a long line: %v", err)
	}
	plain, err := Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := EncodeChat(plain, []Message{{"user", "x"}}); err == nil || !strings.Contains(err.Error(), ChatStart) {
		t.Errorf("without special tokens: %v", err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func FuzzPackChat(f *testing.F) {
	for _, lines := range refusedChat {
		f.Add(lines)
	}
	f.Add(`{"messages": [{"role": "user", "content": "a<|im_start|>"}, {"role": "assistant", "content": "\ud800\u00e9"}]}` + "\n\n")
	tok := chatTokenizer(f)
	f.Fuzz(func(t *testing.T, lines string) {
		w, err := NewShardWriter(io.Discard, HeaderOf(tok, true))
		if err != nil {
			t.Fatal(err)
		}
		n, err := PackChat(w, tok, strings.NewReader(lines))
		if n == 0 && w.Len() != 0 || err == nil && n > strings.Count(lines, "\n")+1 {
			t.Fatalf("%d conversations of %d tokens, %v", n, w.Len(), err)
		}
	})
}
