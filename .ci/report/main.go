// Command report reads what `go test -json` printed and tells what CI must
// know: which tests failed and what they printed, how many ran, or whether one
// that may skip itself really ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// event is the part of a test2json record that is used here.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: report LOG summary|failures|ran [PACKAGE TEST]")
		os.Exit(2)
	}
	events, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	switch {
	case os.Args[2] == "summary":
		summary(events)
	case os.Args[2] == "failures":
		failures(events)
		summary(events)
	case os.Args[2] == "ran" && len(os.Args) == 5:
		for _, e := range events {
			if e.Package == os.Args[3] && e.Test == os.Args[4] && e.Action == "pass" {
				fmt.Printf("%s %s ran and passed\n", e.Package, e.Test)
				return
			}
		}
		fmt.Printf("%s %s did not run, though it could have\n", os.Args[3], os.Args[4])
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "report: unknown request", os.Args[2:])
		os.Exit(2)
	}
}

func read(name string) ([]event, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []event
	s := bufio.NewScanner(f)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			e = event{Action: "output", Output: s.Text() + "\n"} // go's own words: build errors
		}
		out = append(out, e)
	}
	return out, s.Err()
}

func summary(events []event) {
	var passed, failed, skipped int
	for _, e := range events {
		if e.Test == "" {
			if e.Action == "pass" || e.Action == "fail" {
				fmt.Printf("%-4s %-50s %6.1f s\n", e.Action, e.Package, e.Elapsed)
			}
			continue
		}
		switch e.Action {
		case "pass":
			passed++
		case "fail":
			failed++
		case "skip":
			skipped++
			fmt.Printf("skip %s %s\n", e.Package, e.Test)
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
}

func failures(events []event) {
	type key struct{ pkg, test string }
	output := map[key][]string{}
	var bad []key
	for _, e := range events {
		k := key{e.Package, e.Test}
		if e.Action == "output" || e.Action == "build-output" {
			output[k] = append(output[k], e.Output)
		}
		if e.Action == "fail" && !slices.Contains(bad, k) {
			bad = append(bad, k)
		}
	}
	for _, k := range append([]key{{}}, bad...) {
		if len(output[k]) > 0 {
			fmt.Printf("--- %s %s\n%s", k.pkg, k.test, strings.Join(output[k], ""))
		}
	}
}
