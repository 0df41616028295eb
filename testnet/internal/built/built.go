// Package built makes the kith binaries that tests start as processes.
package built

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

var dirs struct {
	sync.Mutex
	all []string
}

// Kith builds cmd/kith with further flags of go build and says where it is. Main
// or Clean removes it.
func Kith(flags ...string) (string, error) {
	dir, err := os.MkdirTemp("", "kith-bin-")
	if err != nil {
		return "", err
	}
	dirs.Lock()
	dirs.all = append(dirs.all, dir)
	dirs.Unlock()
	exe := filepath.Join(dir, "kith")
	if runtime.GOOS == "windows" {
		exe += ".exe"
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", exe}, flags...), "github.com/kith-mesh/kith/cmd/kith")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return exe, nil
}

// Once is Kith for tests, run at the first call alone. One that needs it skips itself
// in short mode: it starts processes.
func Once(flags ...string) func(testing.TB) string {
	once := sync.OnceValues(func() (string, error) { return Kith(flags...) })
	return func(t testing.TB) string {
		t.Helper()
		if testing.Short() {
			t.Skip("short: starts processes")
		}
		exe, err := once()
		if err != nil {
			t.Fatal(err)
		}
		return exe
	}
}

// Main runs a package's tests, removes what they built and exits.
func Main(m interface{ Run() int }) {
	code := m.Run()
	if err := Clean(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Clean removes all that was built.
func Clean() error {
	dirs.Lock()
	defer dirs.Unlock()
	var errs []error
	for _, dir := range dirs.all {
		errs = append(errs, os.RemoveAll(dir))
	}
	dirs.all = nil
	return errors.Join(errs...)
}
