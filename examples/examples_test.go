package examples_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/examples"
)

// pinned is the toolchain that go.mod names, by which the embedded programs
// were built.
func pinned(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "go "); ok {
			return "go" + v
		}
	}
	t.Fatal("go.mod names no Go version")
	return ""
}

// The embedded programs are what their sources compile to.
func TestProgramsAreFresh(t *testing.T) {
	if want := pinned(t); runtime.Version() != want {
		t.Skipf("the programs were built with %s, and another toolchain, here %s, makes other bytes; .ci/run fails unless it has the pinned one", want, runtime.Version())
	}
	dir := t.TempDir()
	for _, name := range examples.Names() {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(dir, name)
			cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./"+name)
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=", "GOWASM=")
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			got, err := examples.Program(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("embedded %s differs from what ./%s compiles to: run go generate ./examples", name, name)
			}
		})
	}
}

// Every source has its embedded program, and no other is embedded.
func TestEveryProgramIsEmbedded(t *testing.T) {
	sources, err := filepath.Glob("*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, s := range sources {
		if name := filepath.Dir(s); name != "build" {
			want = append(want, name)
		}
	}
	if got := examples.Names(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("embedded: %v; sources: %v", got, want)
	}
	if _, err := examples.Program("absent"); err == nil || !strings.Contains(err.Error(), "wordcount") {
		t.Errorf("an unknown program's error does not name those that exist: %v", err)
	}
}

// run builds an example for this machine and runs it.
func run(t *testing.T, name, stdin string, env []string, args ...string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), name)
	if runtime.GOOS == "windows" {
		exe += ".exe"
	}
	if b, err := exec.Command("go", "build", "-o", exe, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, b)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}

// The program counts what the independent count does, cut into pieces too.
func TestWordCount(t *testing.T) {
	text, err := examples.Text()
	if err != nil {
		t.Fatal(err)
	}
	want, err := examples.CountWords(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(text) != 1115394 || want["the"] == 0 {
		t.Fatalf("text of %d bytes, %d times \"the\"", len(text), want["the"])
	}
	half := bytes.LastIndexByte(text[:len(text)/2], '\n') + 1
	got, err := examples.ReadCounts(strings.NewReader(run(t, "wcsum",
		run(t, "wordcount", string(text[:half]), nil)+run(t, "wordcount", string(text[half:]), nil), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the program counts %d words, the plain count %d", len(got), len(want))
	}
}

// Every task sieves its own share: together they count the primes below 10^6.
func TestPrimes(t *testing.T) {
	total := 0
	for task := range 3 {
		var from, to, n int
		out := run(t, "primes", "", []string{fmt.Sprintf("KITH_TASK=%d", task), "KITH_TASKS=3"}, "1000000")
		if _, err := fmt.Sscan(out, &from, &to, &n); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		total += n
	}
	if total != 78498 {
		t.Errorf("%d primes below 1000000, want 78498", total)
	}
	if got := run(t, "primes", "", nil, "20", "list"); got != "2\n3\n5\n7\n11\n13\n17\n19\n" {
		t.Errorf("primes below 20: %q", got)
	}
}

func TestPi(t *testing.T) {
	out := run(t, "pisum", run(t, "pi", "", nil, "400000")+run(t, "pi", "", nil, "400000"), nil)
	var pi float64
	if _, err := fmt.Sscan(out, &pi); err != nil || pi < 3.12 || pi > 3.16 {
		t.Errorf("pi of 800000 points: %q", out)
	}
}

func TestGrep(t *testing.T) {
	if got := run(t, "grep", "one\ntwo\nthree", nil, "^t"); got != "two\nthree\n" {
		t.Errorf("grep: %q", got)
	}
	if got := run(t, "grep", "one\ntwo\nthree", nil, "-c", "^t"); got != "lines 3\nmatches 2\n" {
		t.Errorf("grep -c: %q", got)
	}
}

// Counting is by bytes: what is no UTF-8 stays as it is on both sides.
func TestWordsBeyondASCII(t *testing.T) {
	const text = "The cat's  \"the\" Na\xc3\xafve\xff 2nd -- CAT'S"
	want := map[string]int64{"the": 2, "cat's": 2, "na\xc3\xafve\xff": 1, "2nd": 1}
	got, err := examples.CountWords(strings.NewReader(text))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("plain: %v, %v", got, err)
	}
	if got, err = examples.ReadCounts(strings.NewReader(run(t, "wordcount", text, nil))); err != nil || !maps.Equal(got, want) {
		t.Errorf("program: %v, %v", got, err)
	}
}

func FuzzReadCounts(f *testing.F) {
	f.Add("a 1\nb 2\n")
	f.Add(" -1\n")
	f.Add("a 1\na 1\n")
	f.Fuzz(func(t *testing.T, s string) {
		counts, err := examples.ReadCounts(strings.NewReader(s))
		if err == nil && len(counts) > strings.Count(s, "\n")+1 {
			t.Errorf("%d counts in %q", len(counts), s)
		}
	})
}

func Example() {
	counts, err := examples.CountWords(strings.NewReader("To be, or not to be"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(counts["to"], counts["be"], counts["or"])
	// Output: 2 2 1
}
