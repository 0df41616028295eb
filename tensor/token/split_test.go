package token

import (
	"fmt"
	"math/rand"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// The oracle below reads a published pattern itself and matches it the slow way,
// by backtracking. It knows as much of regular expressions as those patterns use.

// matcher tries a match at i and calls then with where it ends, until then says
// true.
type matcher func(s []char, i int, then func(int) bool) bool

// char is a character of the text; a byte that is not UTF-8 is one of r -1.
type char struct {
	r    rune
	size int
}

func chars(text string) (out []char) {
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && n == 1 {
			r = -1
		}
		out = append(out, char{r, n})
		text = text[n:]
	}
	return out
}

type patternParser struct {
	s    string
	fold bool
}

func (p *patternParser) eat(prefix string) bool {
	rest, ok := strings.CutPrefix(p.s, prefix)
	p.s = rest
	return ok
}

func (p *patternParser) alternatives() matcher {
	var all []matcher
	for {
		all = append(all, p.sequence())
		if !p.eat("|") {
			break
		}
	}
	return func(s []char, i int, then func(int) bool) bool {
		for _, m := range all {
			if m(s, i, then) {
				return true
			}
		}
		return false
	}
}

func (p *patternParser) sequence() matcher {
	m := matcher(func(_ []char, i int, then func(int) bool) bool { return then(i) })
	for p.s != "" && p.s[0] != '|' && p.s[0] != ')' {
		first, second := m, p.repeated()
		m = func(s []char, i int, then func(int) bool) bool {
			return first(s, i, func(j int) bool { return second(s, j, then) })
		}
	}
	return m
}

var counts = regexp.MustCompile(`^\{(\d+),(\d+)\}`)

func (p *patternParser) repeated() matcher {
	m, lo, hi := p.atom(), 1, 1
	switch {
	case p.eat("?"):
		lo, hi = 0, 1
	case p.eat("*"):
		lo, hi = 0, 1<<30
	case p.eat("+"):
		lo, hi = 1, 1<<30
	default:
		if c := counts.FindStringSubmatch(p.s); c != nil {
			p.s = p.s[len(c[0]):]
			lo, _ = strconv.Atoi(c[1])
			hi, _ = strconv.Atoi(c[2])
		}
	}
	if lo == 1 && hi == 1 {
		return m
	}
	return func(s []char, i int, then func(int) bool) bool {
		var again func(i, n int) bool
		again = func(i, n int) bool {
			if n < hi && m(s, i, func(j int) bool { return again(j, n+1) }) {
				return true
			}
			return n >= lo && then(i)
		}
		return again(i, 0)
	}
}

func (p *patternParser) atom() matcher {
	switch {
	case p.eat("(?!"):
		not := p.alternatives()
		p.eat(")")
		return func(s []char, i int, then func(int) bool) bool {
			return !not(s, i, func(int) bool { return true }) && then(i)
		}
	case p.eat("(?i:"):
		p.fold = true
		m := p.alternatives()
		p.fold = false
		p.eat(")")
		return m
	case p.eat("[^"):
		var in []func(rune) bool
		for !p.eat("]") {
			in = append(in, p.one())
		}
		return single(func(r rune) bool {
			for _, f := range in {
				if f(r) {
					return false
				}
			}
			return true
		})
	case p.eat("["):
		var in []func(rune) bool
		for !p.eat("]") {
			in = append(in, p.one())
		}
		return single(func(r rune) bool {
			for _, f := range in {
				if f(r) {
					return true
				}
			}
			return false
		})
	}
	return single(p.one())
}

func single(f func(rune) bool) matcher {
	return func(s []char, i int, then func(int) bool) bool {
		return i < len(s) && f(s[i].r) && then(i+1)
	}
}

// one reads a character or an escape that stands for some.
func (p *patternParser) one() func(rune) bool {
	for escape, f := range map[string]func(rune) bool{
		`\p{L}`: unicode.IsLetter, `\p{N}`: unicode.IsNumber, `\s`: unicode.IsSpace,
		`\S`: func(r rune) bool { return !unicode.IsSpace(r) },
		`\r`: func(r rune) bool { return r == '\r' }, `\n`: func(r rune) bool { return r == '\n' },
	} {
		if p.eat(escape) {
			return f
		}
	}
	want, n := utf8.DecodeRuneInString(p.s)
	p.s = p.s[n:]
	if want == '\\' {
		panic("the oracle does not know the escape before " + p.s)
	}
	fold := p.fold
	return func(r rune) bool {
		for f := unicode.SimpleFold(want); fold && f != want; f = unicode.SimpleFold(f) {
			if f == r {
				return true
			}
		}
		return r == want
	}
}

var oracles = map[Splitter]matcher{}

func init() {
	for s := GPT2; int(s) < len(splitters); s++ {
		p := &patternParser{s: s.Pattern()}
		oracles[s] = p.alternatives()
		if p.s != "" {
			panic("the oracle left " + p.s)
		}
	}
}

// slowSplit is every match of a splitter's pattern, one after another.
func slowSplit(by Splitter, text string) (out []string) {
	m, s := oracles[by], chars(text)
	for i := 0; i < len(s); {
		end := i
		m(s, i, func(j int) bool { end = j; return true })
		if end == i {
			panic(fmt.Sprintf("the pattern matches nothing at character %d of %q", i, text))
		}
		n := 0
		for _, c := range s[i:end] {
			n += c.size
		}
		out = append(out, text[:n])
		text, i = text[n:], end
	}
	return out
}

func fastSplit(s Splitter, text string) (out []string) {
	for text != "" {
		n := s.Next(text)
		out = append(out, text[:n])
		text = text[n:]
	}
	return out
}

func sameSplit(t *testing.T, text string) {
	t.Helper()
	for s := GPT2; int(s) < len(splitters); s++ {
		got, want := fastSplit(s, text), slowSplit(s, text)
		if !slices.Equal(got, want) {
			t.Fatalf("%v of %q:\n got %q\nwant %q", s, text, got, want)
		}
	}
}

// bits of text in which the patterns differ or are easily got wrong.
var bits = []string{
	"a", "Zz", "é", "ß", "ſ", "Ǆ", "ʰ", "中", "한국", "א", "ا", "अ", "\u0301", "\u093e", "1", "23", "4567", "½", "٣", "Ⅷ", "²", "𝟘",
	" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\v", "\f", "\u0085", "\u00a0", "\u1680", "\u2003", "\u2028", "\u3000", "\u200b", "\u180e", "\ufeff",
	"\x1c", "\x1f", "'", "''", "'s", "'S", "'ſ", "'t", "'T", "'re", "'Re", "'rE", "'ve", "'VE", "'m", "'M", "'ll", "'lL", "'d", "'D", "'r", "'l", "'x", "’s",
	".", ",", "!?", "-", "_", "$", "€", "😀", "👍🏽", "\u200d", "\ufffd", "\xff", "\xc3", "\xe4\xb8", "\xf0\x9f", "\x00", "\U000e0001", "\U0010ffff", "@[`{",
}

func TestSplitters(t *testing.T) {
	for _, text := range []string{"", "Hello, world's 1234567 days\n\n  end  ", "\t\tif x:\r\n\t\t\treturn 'll  ", " ' s", "a\u3000\u3000b", " \n \n x"} {
		sameSplit(t, text)
	}
	for _, a := range bits {
		for _, b := range bits {
			sameSplit(t, a+b)
		}
	}
	rng := rand.New(rand.NewSource(1))
	for range 5000 {
		var text strings.Builder
		for range rng.Intn(9) {
			text.WriteString(bits[rng.Intn(len(bits))])
		}
		sameSplit(t, text.String())
	}
}

// TestSplitKnown is a few splits written out by hand from the patterns.
func TestSplitKnown(t *testing.T) {
	const text = "I'LL pay  $12345 \n\n now\t\tYou'll see"
	for s, want := range map[Splitter]string{
		NoSplit: `["I'LL pay  $12345 \n\n now\t\tYou'll see"]`,
		GPT2:    `["I" "'" "LL" " pay" " " " $" "12345" " \n\n" " now" "\t" "\t" "You" "'ll" " see"]`,
		CL100K:  `["I" "'LL" " pay" " " " $" "123" "45" " \n\n" " now" "\t" "\tYou" "'ll" " see"]`,
		Qwen2:   `["I" "'LL" " pay" " " " $" "1" "2" "3" "4" "5" " \n\n" " now" "\t" "\tYou" "'ll" " see"]`,
	} {
		if got := fmt.Sprintf("%q", fastSplit(s, text)); got != want {
			t.Errorf("%v:\n got %s\nwant %s", s, got, want)
		}
	}
}

// TestClasses: the shortcut for ASCII agrees with the tables.
func TestClasses(t *testing.T) {
	for r := rune(0); r < 0x3000; r++ {
		got, _ := classify(string(r))
		want := other
		switch {
		case r == '\r' || r == '\n':
			want = newline
		case unicode.IsSpace(r):
			want = space
		case unicode.IsLetter(r):
			want = letter
		case unicode.IsNumber(r):
			want = number
		}
		if got != want {
			t.Errorf("%U is class %d, want %d", r, got, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, b := range bits {
		f.Add(b + " " + b)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 200 {
			return // the oracle is slow
		}
		sameSplit(t, text)
	})
}
