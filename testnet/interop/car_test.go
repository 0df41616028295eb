package interop

import (
	"path/filepath"
	"testing"
)

// TestCIDs: the same bytes, cut the same way, have the same CID on both sides.
func TestCIDs(t *testing.T) {
	ours, theirs := newKith(t), newKubo(t)
	file, dir := noise(t, filepath.Join(t.TempDir(), "file"), 30<<20+7), folder(t)
	for _, c := range []struct{ name, path, chunk, size string }{
		{"file", file, "1Mi", "size-1048576"},
		{"file of small chunks", file, "64Ki", "size-65536"},
		{"small file", noise(t, filepath.Join(t.TempDir(), "small"), 10), "1Mi", "size-1048576"},
		{"empty file", noise(t, filepath.Join(t.TempDir(), "empty"), 0), "1Mi", "size-1048576"},
		{"folder", dir, "256Ki", "size-262144"},
		{"sharded folder", crowd(t), "1Mi", "size-1048576"},
	} {
		a := ours.add(t, c.path, "--chunk", c.chunk)
		b := theirs.run(t, "add", "-Q", "--progress=false", "--recursive", "--hidden", "--cid-version=1", "--raw-leaves", "--chunker="+c.size, c.path)
		if a != b {
			t.Errorf("%s: kith %s, Kubo %s", c.name, a, b)
		}
	}
}

// TestCAR: what one side exports the other imports, whole and under the same
// CID; the nodes never meet.
func TestCAR(t *testing.T) {
	ours, theirs := newKith(t), newKubo(t)
	for name, path := range map[string]string{
		"file": noise(t, filepath.Join(t.TempDir(), "file"), 5<<20+1), "folder": folder(t), "sharded folder": crowd(t),
	} {
		t.Run("ours, "+name, func(t *testing.T) {
			car, out := filepath.Join(t.TempDir(), "x.car"), filepath.Join(t.TempDir(), "out")
			root := ours.add(t, path, "--chunk", "200000")
			ours.run(t, "car", "export", root, "--out", car)
			theirs.run(t, "dag", "import", car)
			theirs.run(t, "get", "--progress=false", "--offline", "-o", out, root)
			sameTree(t, path, out)
		})
		t.Run("theirs, "+name, func(t *testing.T) {
			car, out := filepath.Join(t.TempDir(), "x.car"), filepath.Join(t.TempDir(), "out")
			root := theirs.run(t, "add", "-Q", "--progress=false", "--recursive", "--hidden", "--chunker=size-200000", path)
			writeOutput(t, theirs.program, car, "dag", "export", "--progress=false", root)
			ours.run(t, "car", "import", car)
			ours.run(t, "get", root, "--out", out)
			sameTree(t, path, out)
		})
	}
}
