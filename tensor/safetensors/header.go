package safetensors

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/kith-mesh/kith/tensor/archive"
)

// scanner reads the JSON of a header: the few forms that the format has, and
// nothing else. It allocates no more than a small multiple of what it has read.
type scanner struct {
	b  []byte
	at int
}

// fail refuses what begins at an index of the header.
func fail(at int, field, reason string, args ...any) error {
	return &archive.Error{Format: format, Field: field, Offset: lengthBytes + int64(at), Reason: fmt.Sprintf(reason, args...)}
}

// peek skips white space and gives the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// want takes one byte of punctuation.
func (s *scanner) want(c byte, field string) error {
	if got := s.peek(); got != c || s.at == len(s.b) {
		return s.unexpected(field, strconv.QuoteRune(rune(c)))
	}
	s.at++
	return nil
}

func (s *scanner) unexpected(field, want string) error {
	if s.peek(); s.at == len(s.b) {
		return fail(s.at, field, "bad JSON: the header ends, want %s", want)
	}
	return fail(s.at, field, "bad JSON: %q, want %s", s.b[s.at], want)
}

// object reads an object and hands each key to member, which reads the value.
// keyAt is where the key begins. Keys are not compared.
func (s *scanner) object(field string, member func(key string, keyAt int) error) error {
	return s.list('{', '}', field, func() error {
		if s.peek() != '"' {
			return s.unexpected(field, "a name in quotes")
		}
		at := s.at
		key, err := s.text(field)
		if err != nil {
			return err
		}
		if err := s.want(':', field); err != nil {
			return err
		}
		return member(key, at)
	})
}

// list reads what stands between two brackets, separated by commas.
func (s *scanner) list(open, end byte, field string, item func() error) error {
	if err := s.want(open, field); err != nil {
		return err
	}
	if s.peek() == end {
		s.at++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case end:
			s.at++
			return nil
		default:
			return s.unexpected(field, fmt.Sprintf("',' or %q", end))
		}
	}
}

// text reads a string.
func (s *scanner) text(field string) (string, error) {
	if s.peek() != '"' {
		return "", s.unexpected(field, "a string")
	}
	start := s.at + 1
	for i := start; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			if !utf8.Valid(s.b[start:i]) {
				return "", fail(start, field, "the text is not UTF-8")
			}
			s.at = i + 1
			return string(s.b[start:i]), nil
		case c == '\\':
			return s.escaped(start, i, field)
		case c < ' ':
			return "", fail(i, field, "bad JSON: control character %q in a string", c)
		}
	}
	return "", fail(len(s.b), field, "bad JSON: the header ends within a string")
}

// escaped reads a string from its first backslash on.
func (s *scanner) escaped(start, i int, field string) (string, error) {
	out := bytes.Clone(s.b[start:i])
	for i < len(s.b) {
		c := s.b[i]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", fail(start, field, "the text is not UTF-8")
			}
			s.at = i + 1
			return string(out), nil
		case c < ' ':
			return "", fail(i, field, "bad JSON: control character %q in a string", c)
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		if i+1 == len(s.b) {
			break
		}
		switch e := s.b[i+1]; e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := s.hex(i)
			next := i + 4
			if utf16.IsSurrogate(r) {
				low, _ := s.hex(i + 6)
				r = utf16.DecodeRune(r, low)
				ok = r != utf8.RuneError
				next += 6
			}
			if !ok {
				return "", fail(i, field, `bad JSON: \u wants four hexadecimal digits that make a character`)
			}
			out = utf8.AppendRune(out, r)
			i = next
		default:
			return "", fail(i, field, `bad JSON: unknown escape \%q`, e)
		}
		i += 2
	}
	return "", fail(len(s.b), field, "bad JSON: the header ends within a string")
}

// hex reads the escape of a UTF-16 unit, a \u and four digits, at i.
func (s *scanner) hex(i int) (rune, bool) {
	if i+6 > len(s.b) || s.b[i] != '\\' || s.b[i+1] != 'u' {
		return 0, false
	}
	r := rune(0)
	for _, c := range s.b[i+2 : i+6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// count reads a whole number that is not negative.
func (s *scanner) count(field string) (int64, error) {
	s.peek()
	start, n := s.at, int64(0)
	for ; s.at < len(s.b); s.at++ {
		c := s.b[s.at]
		if c < '0' || c > '9' {
			break
		}
		if s.at == start+1 && s.b[start] == '0' {
			return 0, fail(start, field, "bad JSON: a number begins with 0")
		}
		if n > (math.MaxInt64-int64(c-'0'))/10 {
			return 0, fail(start, field, "the number is over %d", int64(math.MaxInt64))
		}
		n = n*10 + int64(c-'0')
	}
	if s.at == start {
		return 0, s.unexpected(field, "a whole number, not negative")
	}
	if s.at < len(s.b) && bytes.IndexByte([]byte(".eE"), s.b[s.at]) >= 0 {
		return 0, fail(start, field, "the number has a fraction or an exponent, want a whole one")
	}
	return n, nil
}
