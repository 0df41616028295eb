package p2p

import (
	"strings"
	"unicode"
)

// cleanText makes a peer's text safe for a terminal and a log line.
func cleanText(s string) string {
	s = strings.ToValidUTF8(s, "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
