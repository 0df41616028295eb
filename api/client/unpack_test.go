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

// A link must stay inside the destination whatever other links do.
func TestUnpackLinks(t *testing.T) {
	for _, c := range []struct {
		name string
		ok   bool
		tree []tar.Header
	}{
		{"to a neighbour", true, []tar.Header{{Name: "content/a/", Typeflag: tar.TypeDir}, {Name: "content/a/l", Typeflag: tar.TypeSymlink, Linkname: "../b/./c"}}},
		{"beside the destination", false, []tar.Header{{Name: "content/l", Typeflag: tar.TypeSymlink, Linkname: "../x"}}},
		{"instead of the destination", false, []tar.Header{{Name: "content", Typeflag: tar.TypeSymlink, Linkname: "x"}}},
		{"upwards through a link", false, []tar.Header{{Name: "content/k", Typeflag: tar.TypeSymlink, Linkname: "."},
			{Name: "content/l", Typeflag: tar.TypeSymlink, Linkname: "k/k/../../x"}}},
		{"below a link", false, []tar.Header{{Name: "content/k", Typeflag: tar.TypeSymlink, Linkname: "."},
			{Name: "content/k/k/l", Typeflag: tar.TypeSymlink, Linkname: "../../../x"}}},
	} {
		dir := t.TempDir()
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := os.Mkdir(filepath.Join(dir, "content"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, h := range c.tree {
			h.Mode = 0o755
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := unpack(dir, &b, nil); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
