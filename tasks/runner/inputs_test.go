package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestManyInputs: a reduce sees the output of every task of the map, which are
// more files and folders than a child may have open.
func TestManyInputs(t *testing.T) {
	t.Parallel()
	const files, folders = 2000, 100
	dir := t.TempDir()
	named := map[string]string{}
	for i := range files + folders {
		name := fmt.Sprintf("%06d", i)
		path := filepath.Join(dir, name)
		named[name] = path
		if i >= files {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			path = filepath.Join(path, "stdout")
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	task := ofJob("many", func(t *Task) { t.Inputs = named })
	r := start(t, func(*Config) {})
	for _, path := range []string{"000000", "001999", "002000/stdout", "002099/stdout"} {
		if _, got := run(t, r, tryOpen(dirIn, path, 0, rightRead), task); got != "a" {
			t.Errorf("open /in/%s: errno %d", path, got[0]-'a')
		}
	}
	in, err := openInputs(named)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for name := range named {
			if _, errno := in.Stat(name); errno != 0 {
				t.Fatalf("stat %s: %v", name, errno)
			}
			if len(in.roots) > maxRoots {
				t.Fatalf("%d folders open", len(in.roots))
			}
		}
	}
	for _, r := range in.roots {
		if err := r.root.Close(); err != nil {
			t.Error(err)
		}
	}
}
