// Command report reads what `go test -json` printed and tells what CI must
// know: which tests failed and what they printed, how many ran, and whether each
// that skipped itself had to.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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
		fmt.Fprintln(os.Stderr, "usage: report LOG summary|failures|skips [EXCUSES]")
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
	case os.Args[2] == "skips" && len(os.Args) == 4:
		excuses, err := readExcuses(os.Args[3])
		if err != nil {
			fmt.Fprintln(os.Stderr, "report:", err)
			os.Exit(2)
		}
		if !skips(events, excuses) {
			os.Exit(1)
		}
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

// excuse is a condition under which a test may skip itself.
type excuse struct{ pkg, test, condition string }

// readExcuses reads lines of three fields with tabs between them: package after
// the module's name, test, condition.
func readExcuses(name string) (out []excuse, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, "\t", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("%s:%d: %q has %d of package, test and condition: put tabs between them", name, i+1, line, len(f))
		}
		out = append(out, excuse{f[0], f[1], f[2]})
	}
	return out, nil
}

const module = "github.com/kith-mesh/kith/"

// skips says of every test that skipped itself whether its condition holds.
func skips(events []event, excuses []excuse) (ok bool) {
	ok = true
	for _, e := range events {
		if e.Action != "skip" || e.Test == "" {
			continue
		}
		i := slices.IndexFunc(excuses, func(x excuse) bool { return module+x.pkg == e.Package && x.test == e.Test })
		switch {
		case i < 0:
			fmt.Printf("%s %s skipped itself, and nothing excuses it\n", e.Package, e.Test)
			ok = false
		case exec.Command("bash", "-c", excuses[i].condition).Run() != nil:
			fmt.Printf("%s %s skipped itself, though it could run: not %s\n", e.Package, e.Test, excuses[i].condition)
			ok = false
		}
	}
	return ok
}
