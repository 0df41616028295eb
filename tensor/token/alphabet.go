package token

import "strings"

// GPT-2's vocabulary files write each byte as a printable character: itself where
// it is one in Latin-1, else one of those from U+0100 on, in the bytes' order.
var byteChars, charBytes = byteAlphabet()

const maxByteChar = 0x143

// byteAlphabet gives the character of each byte and the byte of each character,
// -1 where it stands for none.
func byteAlphabet() (chars [256]rune, bytes [maxByteChar + 1]int16) {
	for i := range bytes {
		bytes[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if b <= ' ' || b >= 0x7f && b <= 0xa0 || b == 0xad {
			r = next
			next++
		}
		chars[b], bytes[r] = r, int16(b)
	}
	return chars, bytes
}

// spell writes bytes as a vocabulary file does.
func spell(raw string) string {
	var b strings.Builder
	for i := range len(raw) {
		b.WriteRune(byteChars[raw[i]])
	}
	return b.String()
}

// unspell reads what spell wrote; false if a character stands for no byte.
func unspell(text string) (string, bool) {
	raw := make([]byte, 0, len(text))
	for _, r := range text {
		if r > maxByteChar || charBytes[r] < 0 {
			return "", false
		}
		raw = append(raw, byte(charBytes[r]))
	}
	return string(raw), true
}
