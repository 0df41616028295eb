package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever stands in a config file, a command takes it or says that it is wrong:
// exit code 2, and the file's name.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{"", "cpu: 50%\nlisten: [/ip4/127.0.0.1/tcp/0]\n", "logLevel: debug\nnoQUIC: true", "nonsense: 1", "cpu: {a: 1}",
		"listen: 7", "a: &a [*a]", "? [x]\n: y", "- 1", "\x00", "apiListen: 127.0.0.1:7770\napiListen: x", "memory: 1e999"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, "config.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var errs strings.Builder
		// The home is empty otherwise: the command goes no further.
		code := run(context.Background(), []string{"id"}, streams{in: strings.NewReader(""), out: io.Discard, err: &errs, env: []string{"KITH_HOME=" + home}})
		if code == exitUsage && !strings.Contains(errs.String(), "config file "+home) && !strings.Contains(errs.String(), "belongs to no mesh") {
			t.Errorf("refused and not told which file: %s", errs.String())
		}
	})
}
