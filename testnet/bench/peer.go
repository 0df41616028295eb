package bench

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed peers/blas.c
var blasSource []byte

// blasKind is another's library of matrix products, set up so that it is at its
// best here.
type blasKind struct {
	name    string
	api     string // how it is called: cblas or dnnl
	library string
	pack    string   // Debian's package
	env     []string // besides the number of threads
	avx512  bool     // only where there is AVX-512
}

// OpenBLAS and BLIS of Debian 12 take newer CPUs for ones without AVX-512, so where
// there is AVX-512 both ways are measured.
var blasKinds = []blasKind{
	{name: "openblas", api: "cblas", library: "libopenblas.so.0", pack: "libopenblas0-pthread"},
	{name: "openblas(skylakex)", api: "cblas", library: "libopenblas.so.0", pack: "libopenblas0-pthread", env: []string{"OPENBLAS_CORETYPE=SKYLAKEX"}, avx512: true},
	{name: "blis", api: "cblas", library: "libblis.so.4", pack: "libblis4-pthread"},
	{name: "blis(skx)", api: "cblas", library: "libblis.so.4", pack: "libblis4-pthread", env: []string{"BLIS_ARCH_TYPE=0"}, avx512: true},
	{name: "onednn", api: "dnnl", library: "libdnnl.so.2", pack: "libdnnl2"},
}

// compileBLAS makes the program that calls such libraries.
func compileBLAS(ctx context.Context, dir string) (exe string, err error) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", errors.New("there is no gcc to compile a peer with: apt install gcc")
	}
	source := filepath.Join(dir, "blas.c")
	if err := os.WriteFile(source, blasSource, 0o600); err != nil {
		return "", fmt.Errorf("write a peer's source: %w", err)
	}
	exe = filepath.Join(dir, "blas")
	if out, err := exec.CommandContext(ctx, gcc, "-O2", "-o", exe, source, "-ldl").CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile a peer: %w\n%s", err, out)
	}
	return exe, nil
}

// blasPeer is a process that multiplies when asked.
type blasPeer struct {
	blasKind
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	err bytes.Buffer // whole once it has ended

	stopped bool
}

// startBLAS starts a peer. Its error says what is missing.
func startBLAS(ctx context.Context, exe string, kind blasKind, threads int) (*blasPeer, error) {
	p := &blasPeer{blasKind: kind, cmd: exec.CommandContext(ctx, exe, kind.api, kind.library)}
	n := strconv.Itoa(threads)
	p.cmd.Env = append(os.Environ(), "OPENBLAS_NUM_THREADS="+n, "BLIS_NUM_THREADS="+n, "OMP_NUM_THREADS="+n, "OMP_WAIT_POLICY=passive")
	p.cmd.Env = append(p.cmd.Env, kind.env...)
	p.cmd.Stderr = &p.err
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", kind.name, err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", kind.name, err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", kind.name, err)
	}
	if !p.out.Scan() || p.out.Text() != "ready" {
		err := p.stop()
		return nil, fmt.Errorf("%s did not load (%s; %v): apt install %s", kind.library, strings.TrimSpace(p.err.String()), err, kind.pack)
	}
	return p, nil
}

// seconds is how long so many products took.
func (p *blasPeer) seconds(m, n, k, times int) (float64, error) {
	if _, err := fmt.Fprintf(p.in, "%d %d %d %d\n", m, n, k, times); err != nil {
		return 0, fmt.Errorf("ask %s: %w", p.name, err)
	}
	if !p.out.Scan() {
		err := p.stop() // what it said is whole then
		return 0, fmt.Errorf("%s ended (%v): %s", p.name, err, p.err.String())
	}
	return strconv.ParseFloat(p.out.Text(), 64)
}

// stop ends the peer; once more does nothing.
func (p *blasPeer) stop() error {
	if p.stopped {
		return nil
	}
	p.stopped = true
	err := p.in.Close()
	return errors.Join(err, p.cmd.Wait())
}
