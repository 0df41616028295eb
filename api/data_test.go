package api_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/internal/memory"
)

func rootOf(t *testing.T, w *httptest.ResponseRecorder) api.Root {
	t.Helper()
	var r api.Root
	if w.Code != 201 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func tarOf(t *testing.T, headers []tar.Header, bodies map[string]string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Size = int64(len(bodies[h.Name]))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, bodies[h.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestAddAndCat(t *testing.T) {
	s, n := newServer(t, nil)
	h := s.Handler()
	r := rootOf(t, ask(t, h, "POST", "/api/v1/data?name=x.txt&audience=public&pin=false&keep=1h", strings.NewReader("0123456789"), "Content-Type: application/octet-stream"))
	if r.Size != 10 || r.Name != "x.txt" {
		t.Errorf("root %+v", r)
	}
	if o := n.Adds[0]; o.Audience != "public" || o.Pin || o.Keep.Hours() != 1 {
		t.Errorf("options %+v", o)
	}
	for _, tt := range []struct {
		rng, want, content string
		status             int
	}{
		{"", "0123456789", "", 200},
		{"bytes=2-4", "234", "bytes 2-4/10", 206},
		{"bytes=7-", "789", "bytes 7-9/10", 206},
		{"bytes=-3", "789", "bytes 7-9/10", 206},
		{"bytes=-30", "0123456789", "bytes 0-9/10", 206},
		{"bytes=5-500", "56789", "bytes 5-9/10", 206},
		{"bytes=0-0", "0", "bytes 0-0/10", 206},
		{"bytes=1-2,4-5", "0123456789", "", 200},
		{"lines=1-2", "0123456789", "", 200},
		{"bytes=10-", "", "", 416},
		{"bytes=4-2", "", "", 416},
		{"bytes=-0", "", "", 416},
		{"bytes=x-y", "", "", 416},
		{"bytes=--1", "", "", 416},
		{"bytes=99999999999999999999-", "", "", 416},
	} {
		w := ask(t, h, "GET", "/api/v1/data/"+r.CID, nil, "Range: "+tt.rng)
		if w.Code != tt.status || w.Header().Get("Content-Range") != tt.content {
			t.Errorf("%q: status %d, content range %q", tt.rng, w.Code, w.Header().Get("Content-Range"))
		}
		if tt.status == 416 {
			problemOf(t, w)
		} else if w.Body.String() != tt.want || w.Header().Get("ETag") == "" {
			t.Errorf("%q: body %q, want %q", tt.rng, w.Body, tt.want)
		}
	}
	if w := ask(t, h, "HEAD", "/api/v1/data/"+r.CID, nil); w.Code != 200 || w.Header().Get("Content-Length") != "10" || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
}

func TestAddFolder(t *testing.T) {
	s, _ := newServer(t, nil)
	h := s.Handler()
	r := rootOf(t, ask(t, h, "POST", "/api/v1/data", tarOf(t, []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "./a/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./a/b.txt", Mode: 0o644}, {Name: "run.sh", Mode: 0o755},
	}, map[string]string{"./a/b.txt": "hello", "run.sh": "#!"}), "Content-Type: application/x-tar"))
	if !r.Dir || r.Files != 2 || r.Size != 7 {
		t.Errorf("root %+v", r)
	}
	if w := ask(t, h, "GET", "/api/v1/data/"+r.CID+"?path=a/b.txt", nil); w.Body.String() != "hello" {
		t.Errorf("cat: %d %s", w.Code, w.Body)
	}
	if e := problemOf(t, ask(t, h, "GET", "/api/v1/data/"+r.CID, nil)); e.Reason != "conflict" || !strings.Contains(e.Hint, "kith ls") {
		t.Errorf("cat of a folder: %+v", e)
	}
	if e := problemOf(t, ask(t, h, "GET", "/api/v1/data/"+r.CID+"?path=nope", nil)); e.Reason != "not-found" {
		t.Errorf("cat of what is not there: %+v", e)
	}
	lines := strings.Split(strings.TrimSpace(ask(t, h, "GET", "/api/v1/data/"+r.CID+"/ls?recursive=true", nil).Body.String()), "\n")
	if len(lines) != 4 || !strings.Contains(lines[2], `"path":"a/b.txt"`) {
		t.Errorf("ls: %q", lines)
	}
	got := map[string]string{}
	tr := tar.NewReader(ask(t, h, "GET", "/api/v1/data/"+r.CID+"/tar", nil).Body)
	for {
		hd, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		got[hd.Name] = string(b)
		if hd.Name == "content/run.sh" && hd.Mode != 0o755 {
			t.Errorf("mode %o", hd.Mode)
		}
	}
	if len(got) != 4 || got["content/a/b.txt"] != "hello" || got["content/run.sh"] != "#!" {
		t.Errorf("tar: %q", got)
	}
}

func TestBadData(t *testing.T) {
	s, _ := newServer(t, nil)
	tarHeader := "Content-Type: application/x-tar"
	for _, tt := range []struct {
		name, method, path, header string
		body                       io.Reader
		reason                     string
	}{
		{name: "no type", method: "POST", path: "/api/v1/data", body: strings.NewReader("x"), reason: "bad-mediatype"},
		{name: "audience", method: "POST", path: "/api/v1/data?audience=all", header: tarHeader, reason: "invalid"},
		{name: "chunk", method: "POST", path: "/api/v1/data?chunk=7", header: tarHeader, reason: "invalid"},
		{name: "keep", method: "POST", path: "/api/v1/data?keep=-1h", header: tarHeader, reason: "invalid"},
		{name: "pin", method: "POST", path: "/api/v1/data?pin=maybe", header: tarHeader, reason: "invalid"},
		{name: "not a tar", method: "POST", path: "/api/v1/data", header: tarHeader, body: strings.NewReader(strings.Repeat("x", 1000)), reason: "invalid"},
		{name: "tar leaves", method: "POST", path: "/api/v1/data", header: tarHeader, body: tarOf(t, []tar.Header{{Name: "../x"}}, nil), reason: "invalid"},
		{name: "tar absolute", method: "POST", path: "/api/v1/data", header: tarHeader, body: tarOf(t, []tar.Header{{Name: "/etc/x"}}, nil), reason: "invalid"},
		{name: "tar twice", method: "POST", path: "/api/v1/data", header: tarHeader, body: tarOf(t, []tar.Header{{Name: "x"}, {Name: "./x"}}, nil), reason: "invalid"},
		{name: "tar link", method: "POST", path: "/api/v1/data", header: tarHeader, body: tarOf(t, []tar.Header{{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/"}}, nil), reason: "invalid"},
		{name: "not a CID", method: "GET", path: "/api/v1/data/hello", reason: "invalid"},
		{name: "long CID", method: "GET", path: "/api/v1/data/" + strings.Repeat("b", 1000), reason: "invalid"},
		{name: "path leaves", method: "GET", path: "/api/v1/data/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy?path=a/../../b", reason: "invalid"},
		{name: "nobody has it", method: "GET", path: "/api/v1/data/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", reason: "not-found"},
		{name: "nobody has it, tar", method: "GET", path: "/api/v1/data/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/tar", reason: "not-found"},
		{name: "nobody has it, car", method: "GET", path: "/api/v1/data/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/car", reason: "not-found"},
		{name: "nobody has it, fetch", method: "POST", path: "/api/v1/data/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/fetch", reason: "not-found"},
		{name: "unpin", method: "DELETE", path: "/api/v1/data/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/pin", reason: "not-found"},
		{name: "not a CAR", method: "POST", path: "/api/v1/data/car", header: "Content-Type: application/vnd.ipld.car", body: strings.NewReader("x"), reason: "invalid"},
		{name: "pause", method: "POST", path: "/api/v1/policy/pause", header: "Content-Type: application/json", body: strings.NewReader(`{"for":"soon"}`), reason: "invalid"},
		{name: "after", method: "GET", path: "/api/v1/events?after=x", reason: "invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h []string
			if tt.header != "" {
				h = []string{tt.header}
			}
			if e := problemOf(t, ask(t, s.Handler(), tt.method, tt.path, tt.body, h...)); e.Reason != tt.reason {
				t.Errorf("%+v, want reason %q", e, tt.reason)
			}
		})
	}
}

// A stream that fails half-way is cut, so that nobody takes half for the whole.
func TestCutStream(t *testing.T) {
	n := memory.New()
	root := n.Put(bytes.Repeat([]byte("x"), 1<<20))
	s, _ := newServer(t, func(c *api.Config) { c.Backend.Data = breaking{c.Backend.Data, n} })
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	for _, path := range []string{"", "/tar"} {
		resp, err := srv.Client().Do(authorized(t, srv.URL+"/api/v1/data/"+string(root)+path))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q: read to the end", path)
		}
		resp.Body.Close()
	}
}
