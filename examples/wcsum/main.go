// Command wcsum adds up "word count" lines of its standard input, as wordcount
// prints them: the reduce of a word count.
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
	for line := 1; in.Scan(); line++ {
		word, count, ok := bytes.Cut(in.Bytes(), []byte(" "))
		n, err := strconv.ParseInt(string(count), 10, 64)
		if !ok || err != nil {
			fail("line " + strconv.Itoa(line) + ` is not "word count": ` + strconv.Quote(in.Text()))
		}
		counts[string(word)] += n
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
	os.Stderr.WriteString("wcsum: " + why + "\n")
	os.Exit(1)
}
