package interop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The two programs, built by TestMain.
var kithExe, kuboExe string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kith-interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	kithExe, kuboExe = filepath.Join(dir, "kith"), filepath.Join(dir, "ipfs")
	for _, args := range [][]string{
		{"build", "-C", filepath.Join("..", ".."), "-o", kithExe, "./cmd/kith"},
		{"build", "-o", kuboExe, "github.com/ipfs/kubo/cmd/ipfs"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %s: %v\n%s", strings.Join(args, " "), err, out)
			return 1
		}
	}
	return m.Run()
}

// program runs commands of one of the two; env and args come before those of
// each call.
type program struct {
	exe  string
	env  []string
	args []string
}

// try runs a command and gives what it printed to standard output.
func (p program) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.exe, append(slices.Clone(p.args), args...)...)
	cmd.Env = p.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(p.exe), strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (p program) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.try(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cleanEnv is the environment without what would configure a node.
func cleanEnv(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return slices.ContainsFunc([]string{"KITH_", "XDG_", "IPFS_", "LIBP2P_", "GOLOG_"}, func(p string) bool { return strings.HasPrefix(e, p) })
	})
	return append(env, more...)
}

// until asks again and again whether what must come has come.
func until(t *testing.T, what string, limit time.Duration, f func() bool) {
	t.Helper()
	by := time.Now().Add(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(by) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
}

// noise writes random bytes to a new file.
func noise(t *testing.T, path string, size int) string {
	t.Helper()
	b := make([]byte, size)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

// A folder with what people have: depth, names that need care, nothing in a
// file, nothing in a folder, more than one block.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a folder")
	for name, size := range map[string]int{
		"plain.txt": 100, "empty": 0, "with space and %20 #?&=+;.bin": 5000, "ünïcödé 日本語": 10,
		"'quotes\"": 1, "-dash": 3, "deep/er/and/deeper/leaf": 77, "deep/big.bin": 3<<20 + 1,
		strings.Repeat("n", 200): 4,
	} {
		noise(t, filepath.Join(dir, filepath.FromSlash(name)), size)
	}
	if err := os.MkdirAll(filepath.Join(dir, "hollow"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sameTree compares names, kinds, contents and links of two files or folders.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	a, b := tree(t, want), tree(t, got)
	for name, w := range a {
		if g, ok := b[name]; !ok {
			t.Errorf("%s lacks %q", got, name)
		} else if g != w {
			t.Errorf("%q is another: %d bytes, want %d", name, len(g), len(w))
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			t.Errorf("%s has %q, which was not added", got, name)
		}
	}
}

func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			out[name] = "a folder"
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			out[name] = "a link to " + to
			return err
		default:
			b, err := os.ReadFile(p)
			out[name] = "a file: " + string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// writeOutput keeps what a command prints, byte for byte, in a file.
func writeOutput(t *testing.T, p program, file string, args ...string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), p.exe, append(slices.Clone(p.args), args...)...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, f, &stderr
	if err := errors.Join(cmd.Run(), f.Close()); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
}
