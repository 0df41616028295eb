// Command grep prints the lines of its standard input that match a regular
// expression, its last argument (RE2 syntax, as Go's regexp). After -c it prints
// "lines N" and "matches N" instead, which wcsum adds up. It exits with 0 also
// when nothing matches: an empty piece is a result like any other.
package main

import (
	"bufio"
	"io"
	"os"
	"regexp"
	"strconv"
)

func main() {
	args := os.Args[1:]
	count := len(args) == 2 && args[0] == "-c"
	if count {
		args = args[1:]
	}
	if len(args) != 1 {
		fail("want a regular expression, after -c to count only")
	}
	re, err := regexp.Compile(args[0])
	if err != nil {
		fail(err.Error())
	}
	in, out := bufio.NewReaderSize(os.Stdin, 64<<10), bufio.NewWriter(os.Stdout)
	lines, matches := 0, 0
	for {
		line, err := in.ReadBytes('\n')
		body := line
		if n := len(body); n > 0 && body[n-1] == '\n' {
			body = body[:n-1]
		}
		if len(line) > 0 {
			lines++
			if re.Match(body) {
				matches++
				if !count {
					out.Write(body)
					out.WriteByte('\n')
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			fail("read: " + err.Error())
		}
	}
	if count {
		out.WriteString("lines " + strconv.Itoa(lines) + "\nmatches " + strconv.Itoa(matches) + "\n")
	}
	if err := out.Flush(); err != nil {
		fail("write: " + err.Error())
	}
}

func fail(why string) {
	os.Stderr.WriteString("grep: " + why + "\n")
	os.Exit(2)
}
