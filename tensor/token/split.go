package token

import (
	"unicode"
	"unicode/utf8"
)

// Splitter cuts text into the pieces that a BPE model sees alone. Go's regexp has
// no lookahead, so each published pattern is written by hand. A byte that is not
// UTF-8 is a character that is neither letter, number nor space.
type Splitter uint8

// Splitters.
const (
	NoSplit Splitter = iota // the text is one piece
	GPT2
	CL100K // of GPT-4 and Llama 3
	Qwen2  // CL100K, but with each digit alone
)

var splitters = [...]struct{ name, pattern string }{
	NoSplit: {name: "none"},
	GPT2:    {"gpt2", `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`},
	CL100K:  {"cl100k", `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`},
	Qwen2:   {"qwen2", `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`},
}

func (s Splitter) String() string {
	if int(s) < len(splitters) {
		return splitters[s].name
	}
	return "unknown"
}

// Pattern is the regular expression that the splitter stands for, "" for NoSplit.
func (s Splitter) Pattern() string {
	if int(s) < len(splitters) {
		return splitters[s].pattern
	}
	return ""
}

// Next is the length in bytes of the first piece of text, 0 if that is empty.
func (s Splitter) Next(text string) int {
	switch {
	case text == "" || s == NoSplit:
		return len(text)
	case s == GPT2:
		return nextGPT2(text)
	case s == Qwen2:
		return nextCL100K(text, 1)
	}
	return nextCL100K(text, 3)
}

// class of a character, as the patterns tell them apart.
type class uint8

const (
	other class = iota
	letter
	number
	space
	newline // \r or \n, which are spaces too
)

func (c class) white() bool { return c >= space }

// classify is the class of text's first character and its bytes.
func classify(text string) (class, int) {
	b := text[0]
	if b < utf8.RuneSelf {
		switch {
		case 'a' <= b|0x20 && b|0x20 <= 'z':
			return letter, 1
		case '0' <= b && b <= '9':
			return number, 1
		case b == '\n' || b == '\r':
			return newline, 1
		case b == ' ' || '\t' <= b && b <= '\r':
			return space, 1
		}
		return other, 1
	}
	r, n := utf8.DecodeRuneInString(text)
	switch {
	case unicode.IsLetter(r):
		return letter, n
	case unicode.IsNumber(r):
		return number, n
	case unicode.IsSpace(r):
		return space, n
	}
	return other, n
}

// run is where the characters of a class end that begin at i.
func run(text string, i int, c class) int {
	for i < len(text) {
		got, n := classify(text[i:])
		if got != c {
			break
		}
		i += n
	}
	return i
}

func nextGPT2(text string) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	i := 0
	if text[0] == ' ' && len(text) > 1 {
		i = 1
	}
	if c, _ := classify(text[i:]); !c.white() {
		return run(text, i, c)
	}
	end, last, _ := whites(text)
	return beforeLast(text, end, last)
}

// nextCL100K takes at most so many digits together.
func nextCL100K(text string, digits int) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	c, n := classify(text)
	if c == letter {
		return run(text, 0, letter)
	}
	if c == number {
		end := n
		for range digits - 1 {
			if end == len(text) {
				break
			}
			c, n := classify(text[end:])
			if c != number {
				break
			}
			end += n
		}
		return end
	}
	if c != newline && n < len(text) {
		if next, _ := classify(text[n:]); next == letter {
			return run(text, n, letter)
		}
	}
	i := 0
	if text[0] == ' ' {
		i = 1
	}
	if end := run(text, i, other); end > i {
		return run(text, end, newline)
	}
	end, last, lines := whites(text)
	if lines > 0 {
		return lines
	}
	return beforeLast(text, end, last)
}

// whites measures the spaces that text begins with: where they end, where the
// last of them begins, and where the last newline among them ends, 0 if there is
// none.
func whites(text string) (end, last, lines int) {
	for end < len(text) {
		c, n := classify(text[end:])
		if !c.white() {
			break
		}
		last, end = end, end+n
		if c == newline {
			lines = end
		}
	}
	return end, last, lines
}

// beforeLast is \s+(?!\S)|\s+: all spaces at the end of text, else all but the
// last, unless it is the only one.
func beforeLast(text string, end, last int) int {
	if end < len(text) && last > 0 {
		return last
	}
	return end
}

// contraction is the length of an English one, such as 'll, that begins text.
func contraction(text string, fold bool) int {
	if text[0] != '\'' || len(text) < 2 {
		return 0
	}
	low := func(i int) byte {
		if i >= len(text) {
			return 0
		}
		if b := text[i]; fold && 'A' <= b && b <= 'Z' {
			return b | 0x20
		}
		return text[i]
	}
	switch a, b := low(1), low(2); {
	case a == 's' || a == 't' || a == 'm' || a == 'd':
		return 2
	case a == 'r' && b == 'e', a == 'v' && b == 'e', a == 'l' && b == 'l':
		return 3
	case fold && a == 0xc5 && b == 0xbf: // U+017F, a long s, folds to s
		return 3
	}
	return 0
}
