package client

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Whatever a node sends, nothing is written outside the destination.
func FuzzUnpack(f *testing.F) {
	for _, h := range []tar.Header{
		{Name: "content/a", Mode: 0o644}, {Name: "../evil"}, {Name: "content/", Typeflag: tar.TypeDir},
		{Name: "content/l", Typeflag: tar.TypeSymlink, Linkname: "../../evil"}, {Name: "content/h", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "dest")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = unpack(dir, bytes.NewReader(stream), nil) // most streams are refused; what counts is what they leave
		left, err := os.ReadDir(outer)
		if err != nil || len(left) != 1 {
			t.Fatalf("left %v, %v", left, err)
		}
	})
}
