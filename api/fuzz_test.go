package api

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"
)

// Whatever a client asks for, what is answered lies in the file.
func FuzzByteRange(f *testing.F) {
	for _, s := range []string{"", "bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=18446744073709551615-", "bytes=1-2,3-4", "bytes=+1-2"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		offset, length, partial, err := byteRange(header, size)
		if err != nil {
			return
		}
		if offset < 0 || length < 0 || length > size-offset || (!partial && length != size) || (partial && length == 0) {
			t.Errorf("%q of %d: %d+%d, partial %v", header, size, offset, length, partial)
		}
	})
}

// Whatever a client sends, every path stays inside and comes once.
func FuzzTarFiles(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a/", "a/b", "./c"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("not a tar"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		next, seen := tarFiles(bytes.NewReader(stream)), map[string]bool{}
		for {
			file, err := next()
			if err != nil {
				return
			}
			if seen[file.Path] || !filepath.IsLocal(file.Path) || filepath.Clean(file.Path) != file.Path {
				t.Fatalf("path %q", file.Path)
			}
			seen[file.Path] = true
			if !file.Dir {
				if _, err := io.Copy(io.Discard, file.Body); err != nil {
					return
				}
			}
		}
	})
}

// A job's spec is a spec or a fault of the request that says so.
func FuzzParseSpec(f *testing.F) {
	for _, text := range []string{"{}", `{"name":"x","program":"bafy"}`, "name: x", `{"retention":"24h","resources":{"memory":"256Mi"}}`,
		`{"resources":{"memory":-1}}`, `{"inputs":[{"source":"b","split":{"by":"lines","size":1}}]}`, "[", `{"unknown":1}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := ParseSpec(text)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Status < 400 || e.Status >= 500) {
			t.Errorf("%v", err)
		}
	})
}
