// Command build compiles the example programs to wasm and compresses them, the
// same bytes at every run of the same toolchain. Run it in the folder examples:
// go generate does.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "build examples:", err)
		os.Exit(1)
	}
}

func build() error {
	sources, err := filepath.Glob("*/main.go")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kith-examples-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, s := range sources {
		name := filepath.Dir(s)
		if name == "build" {
			continue
		}
		out := filepath.Join(dir, name+".wasm")
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./"+name)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=", "GOWASM=")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			return err
		}
		if err := compress(filepath.Join("wasm", name+".wasm.gz"), b); err != nil {
			return err
		}
	}
	return nil
}

func compress(to string, b []byte) error {
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, z.Bytes(), 0o644)
}
