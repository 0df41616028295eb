// Command grep prints the lines of its standard input that match a regular
// expression, its first argument (RE2 syntax, as Go's regexp). It exits with 0
// also when nothing matches: an empty piece is a result like any other.
package main

import (
	"bufio"
	"io"
	"os"
	"regexp"
)

func main() {
	if len(os.Args) != 2 {
		fail("want one argument: a regular expression")
	}
	re, err := regexp.Compile(os.Args[1])
	if err != nil {
		fail(err.Error())
	}
	in, out := bufio.NewReaderSize(os.Stdin, 64<<10), bufio.NewWriter(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		body := line
		if n := len(body); n > 0 && body[n-1] == '\n' {
			body = body[:n-1]
		}
		if len(line) > 0 && re.Match(body) {
			out.Write(body)
			out.WriteByte('\n')
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			fail("read: " + err.Error())
		}
	}
	if err := out.Flush(); err != nil {
		fail("write: " + err.Error())
	}
}

func fail(why string) {
	os.Stderr.WriteString("grep: " + why + "\n")
	os.Exit(2)
}
