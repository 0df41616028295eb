// Command wordcount counts the words of its standard input: runs of bytes that
// are not white space, lower-cased in ASCII, without punctuation at their ends.
// It prints "word count" lines in the order of the words' bytes.
package main

import (
	"bufio"
	"bytes"
	"os"
	"slices"
	"strconv"
)

func main() {
	counts := map[string]int64{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 64<<10), 16<<20)
	in.Split(bufio.ScanWords)
	for in.Scan() {
		word := bytes.TrimFunc(in.Bytes(), func(r rune) bool {
			return r < 0x80 && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
		})
		if len(word) == 0 {
			continue
		}
		for i, c := range word {
			if 'A' <= c && c <= 'Z' {
				word[i] = c + 'a' - 'A'
			}
		}
		counts[string(word)]++
	}
	if err := in.Err(); err != nil {
		fail("read: " + err.Error())
	}
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	slices.Sort(words)
	out := bufio.NewWriter(os.Stdout)
	for _, w := range words {
		out.WriteString(w)
		out.WriteByte(' ')
		out.WriteString(strconv.FormatInt(counts[w], 10))
		out.WriteByte('\n')
	}
	if err := out.Flush(); err != nil {
		fail("write: " + err.Error())
	}
}

func fail(why string) {
	os.Stderr.WriteString("wordcount: " + why + "\n")
	os.Exit(1)
}
