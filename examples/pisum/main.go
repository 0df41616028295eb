// Command pisum adds up the "inside thrown" lines that pi printed, and prints
// the estimate of pi that they give: the reduce of pi.
package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

func main() {
	var inside, thrown int64
	in := bufio.NewScanner(os.Stdin)
	for line := 1; in.Scan(); line++ {
		a, b, ok := strings.Cut(in.Text(), " ")
		i, err1 := strconv.ParseInt(a, 10, 64)
		n, err2 := strconv.ParseInt(b, 10, 64)
		if !ok || err1 != nil || err2 != nil {
			fail("line " + strconv.Itoa(line) + ` is not "inside thrown": ` + strconv.Quote(in.Text()))
		}
		inside, thrown = inside+i, thrown+n
	}
	if err := in.Err(); err != nil {
		fail("read: " + err.Error())
	}
	if thrown == 0 {
		fail("no points were thrown")
	}
	pi := strconv.FormatFloat(4*float64(inside)/float64(thrown), 'f', 8, 64)
	os.Stdout.WriteString(pi + " from " + strconv.FormatInt(thrown, 10) + " points\n")
}

func fail(why string) {
	os.Stderr.WriteString("pisum: " + why + "\n")
	os.Exit(1)
}
