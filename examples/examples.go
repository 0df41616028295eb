// Package examples holds programs that show what a mesh can run, built to wasm,
// and a text to run them over. Users of the kith binary need no Go for them.
//
// The programs' sources are in the folders beside this file; each begins with
// what it reads and prints.
package examples

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

//go:generate go run ./build

//go:embed wasm/*.wasm.gz
var wasm embed.FS

//go:embed tinyshakespeare.txt.gz
var text []byte

// Names lists the programs.
func Names() []string {
	entries, err := wasm.ReadDir("wasm")
	if err != nil {
		panic("examples: embedded folder: " + err.Error()) // a fault of the build
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".wasm.gz"))
	}
	slices.Sort(names)
	return names
}

// Program returns a program's module.
func Program(name string) ([]byte, error) {
	b, err := wasm.ReadFile("wasm/" + name + ".wasm.gz")
	if err != nil {
		return nil, fmt.Errorf("no example program %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return unzip(b)
}

// Text returns a collection of Shakespeare's plays, 40,000 lines and 1.1 MB of
// ASCII, which is in the public domain.
func Text() ([]byte, error) { return unzip(text) }

func unzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("examples: %w", err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("examples: %w", err)
	}
	return out, nil
}

// CountWords counts words as the program wordcount does, in this process and by
// other means, to check a mesh's result by: white space separates words, ASCII
// letters count as lower case, other ASCII characters at a word's ends do not
// count.
func CountWords(r io.Reader) (map[string]int64, error) {
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for _, word := range strings.Fields(string(all)) {
		i, j := 0, len(word)
		for i < j && word[i] < 0x80 && !alnum(word[i]) {
			i++
		}
		for j > i && word[j-1] < 0x80 && !alnum(word[j-1]) {
			j--
		}
		if i < j {
			counts[lower(word[i:j])]++
		}
	}
	return counts, nil
}

func alnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// lower leaves bytes beyond ASCII as they are, valid UTF-8 or not.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// ReadCounts reads the "word count" lines that wordcount and wcsum print. A word
// that stands twice is an error.
func ReadCounts(r io.Reader) (map[string]int64, error) {
	counts := map[string]int64{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	for line := 1; s.Scan(); line++ {
		word, count, ok := strings.Cut(s.Text(), " ")
		n, err := strconv.ParseInt(count, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("line %d is not \"word count\": %q", line, s.Text())
		}
		if _, twice := counts[word]; twice {
			return nil, fmt.Errorf("line %d: %q stands twice", line, word)
		}
		counts[word] = n
	}
	return counts, s.Err()
}
