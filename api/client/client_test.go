package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/api/internal/memory"
	"github.com/kith-mesh/kith/tasks"
)

const token = "0123456789abcdef"

func dial(t *testing.T, address, token string) *client.Client {
	t.Helper()
	c, err := client.New(address, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1", "0.0.0.0:7770": "127.0.0.1:7770", "[::]:7770": "127.0.0.1:7770", ":7770": "127.0.0.1:7770", "node1:80": "node1:80",
	} {
		if got := dial(t, address, token).Address(); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if _, err := client.New("nowhere", token); err == nil {
		t.Error("want an error")
	}
}

// pair is a client of a real server over an in-memory node.
func pair(t *testing.T, change func(*api.Backend)) (*client.Client, *memory.Node) {
	t.Helper()
	n := memory.New()
	b := n.Backend()
	if change != nil {
		change(&b)
	}
	s, err := api.New(api.Config{Backend: b, Token: token, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	c := dial(t, srv.Listener.Addr().String(), token)
	t.Cleanup(func() {
		c.Close()
		srv.Close()
	})
	return c, n
}

func Example() {
	s, err := api.New(api.Config{Backend: memory.New().Backend(), Token: token})
	if err != nil {
		panic(err)
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()

	c, err := client.New(srv.Listener.Addr().String(), token)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx := context.Background()
	root, err := c.AddFile(ctx, strings.NewReader("near work first\n"), -1, api.AddOptions{Name: "motto.txt"})
	if err != nil {
		panic(err)
	}
	r, err := c.Cat(ctx, tasks.CID(root.CID), "", 5, 4)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	fmt.Println(root.Size, string(b), err)
	// Output: 16 work <nil>
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFolderRoundTrip(t *testing.T) {
	c, n := pair(t, nil)
	dir := t.TempDir()
	files := map[string]string{"a.txt": "alpha", "sub/b.sh": "beta", "sub/deep/c": strings.Repeat("gamma", 100_000), "empty": ""}
	write(t, filepath.Join(dir, "in"), files)
	if err := os.Symlink("a.txt", filepath.Join(dir, "in", "link")); err != nil {
		t.Fatal(err)
	}
	files["link"] = "alpha" // followed
	var done, total int64
	root, err := c.AddPath(t.Context(), filepath.Join(dir, "in"), api.AddOptions{Audience: api.AudiencePublic, Pin: true}, func(d, n int64) { done, total = d, n })
	if err != nil {
		t.Fatal(err)
	}
	want := int64(5 + 4 + 500_000 + 5)
	if done != want || total != want || root.Size != want || root.Files != 5 {
		t.Errorf("progress %d of %d, root %+v", done, total, root)
	}
	if o := n.Adds[0]; o.Name != "in" || o.Audience != api.AudiencePublic || !o.Pin {
		t.Errorf("options %+v", o)
	}
	dest := filepath.Join(dir, "out")
	if err := c.Get(t.Context(), api.Content{Root: tasks.CID(root.CID)}, dest, nil); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		b, err := os.ReadFile(filepath.Join(dest, name))
		if err != nil || string(b) != text {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if info, err := os.Stat(filepath.Join(dest, "sub/b.sh")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("executable bit: %v %v", info, err)
	}
	if err := c.Get(t.Context(), api.Content{Root: tasks.CID(root.CID)}, dest, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("get onto what exists: %v", err)
	}
	if err := c.Get(t.Context(), api.Content{Root: tasks.CID(root.CID), Path: "sub/b.sh"}, filepath.Join(dir, "one"), nil); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".kith-get-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	var names []string
	err = c.List(t.Context(), tasks.CID(root.CID), "sub", false, func(e api.Entry) error {
		names = append(names, e.Path)
		return nil
	})
	if err != nil || strings.Join(names, " ") != " b.sh deep" {
		t.Errorf("list: %q %v", names, err)
	}
}

func TestAddRefuses(t *testing.T) {
	c, _ := pair(t, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"real/x": "x"})
	if err := os.Symlink("real", filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddPath(t.Context(), dir, api.AddOptions{}, nil); err == nil || !strings.Contains(err.Error(), "linked is a link to a folder") {
		t.Errorf("link to a folder: %v", err)
	}
	dangling := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dangling, "lost")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddPath(t.Context(), dangling, api.AddOptions{}, nil); err == nil || !strings.Contains(err.Error(), "lost is a link to nothing") {
		t.Errorf("link to nothing: %v", err)
	}
	latin := t.TempDir()
	if err := os.WriteFile(filepath.Join(latin, "caf\xe9"), nil, 0o600); err == nil { // some file systems refuse it themselves
		if _, err := c.AddPath(t.Context(), latin, api.AddOptions{}, nil); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
			t.Errorf("name that is not UTF-8: %v", err)
		}
	}
	if _, err := c.AddPath(t.Context(), filepath.Join(dir, "nope"), api.AddOptions{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
}

// The node's content can't write outside the destination.
func TestGetStaysInside(t *testing.T) {
	for _, evil := range []string{"content/../../evil", "../evil", "/tmp/evil", "content/link"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(evilTar(t, evil)) }))
		c := dial(t, srv.Listener.Addr().String(), token)
		dir := t.TempDir()
		err := c.Get(t.Context(), api.Content{Root: "x"}, filepath.Join(dir, "sub"), nil)
		if err == nil || !strings.Contains(err.Error(), "not inside it") {
			t.Errorf("%s: %v", evil, err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s left %v", evil, left)
		}
		c.Close()
		srv.Close()
	}
}

func TestDataVerbs(t *testing.T) {
	c, n := pair(t, nil)
	ctx := t.Context()
	cid := n.Put([]byte("0123456789"))
	var last int64
	if root, err := c.Fetch(ctx, api.Content{Root: cid}, func(d, _ int64) { last = d }); err != nil || root.Size != 10 || last != 10 {
		t.Errorf("fetch: %+v %d %v", root, last, err)
	}
	if _, err := c.Pin(ctx, cid, time.Hour); err != nil {
		t.Error(err)
	}
	if pins, err := c.Pins(ctx); err != nil || len(pins) != 1 {
		t.Errorf("pins: %v %v", pins, err)
	}
	var car bytes.Buffer
	if _, err := c.ExportCAR(ctx, cid, &car); err != nil {
		t.Error(err)
	}
	if err := c.Unpin(ctx, cid); err != nil {
		t.Error(err)
	}
	if rep, err := c.GC(ctx); err != nil || rep.Blocks != 1 {
		t.Errorf("gc: %+v %v", rep, err)
	}
	if roots, err := c.ImportCAR(ctx, &car, -1, api.AddOptions{Pin: true}); err != nil || len(roots) != 1 || roots[0].CID != string(cid) {
		t.Errorf("import: %v %v", roots, err)
	}
	if _, err := c.Cat(ctx, cid, "", 5, 100); client.ClassOf(err) != client.Usage {
		t.Errorf("span past the end: %v", err)
	}
	if r, err := c.Cat(ctx, cid, "", 5, 0); err != nil {
		t.Error(err)
	} else if b, err := io.ReadAll(r); err != nil || len(b) != 0 {
		t.Errorf("empty span: %q %v", b, err)
	}
}

func TestNodeVerbs(t *testing.T) {
	c, n := pair(t, nil)
	ctx := t.Context()
	if id, err := c.ID(ctx); err != nil || id.Mesh != "memorymesh" {
		t.Errorf("%+v %v", id, err)
	}
	if st, err := c.Status(ctx); err != nil || !st.Ready {
		t.Errorf("%+v %v", st, err)
	}
	if peers, err := c.Peers(ctx); err != nil || len(peers) != 1 {
		t.Errorf("%+v %v", peers, err)
	}
	if checks, err := c.Doctor(ctx); err != nil || len(checks) != 2 {
		t.Errorf("%+v %v", checks, err)
	}
	if inv, err := c.CreateInvite(ctx, api.InviteRequest{Uses: 2}); err != nil || inv.Line == "" {
		t.Errorf("%+v %v", inv, err)
	}
	if list, err := c.Invites(ctx); err != nil || len(list) != 1 || list[0].Line != "" {
		t.Errorf("%+v %v", list, err)
	}
	if err := c.RevokeInvite(ctx, "inv1"); err != nil {
		t.Error(err)
	}
	if p, err := c.Pause(ctx, time.Hour); err != nil || !p.Paused {
		t.Errorf("%+v %v", p, err)
	}
	if p, err := c.Resume(ctx); err != nil || p.Paused {
		t.Errorf("%+v %v", p, err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	n.NotReady = errors.New("no address yet")
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "no address yet") {
		t.Error(err)
	}
	if err := c.Down(ctx); err != nil || !n.Stopped {
		t.Error(err)
	}
}

func TestClasses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	good, _ := pair(t, func(b *api.Backend) { b.Doctor = nil })
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		f    func() error
		want client.Class
	}{
		{"nobody there", func() error { return dial(t, nobody, token).Ready(ctx) }, client.NotReachable},
		{"wrong token", func() error { _, err := dial(t, good.Address(), "nope").Status(ctx); return err }, client.Refused},
		{"not served", func() error { _, err := good.Doctor(ctx); return err }, client.Refused},
		{"not found", func() error { _, err := good.Job(ctx, "zzzzzz"); return err }, client.Failed},
		{"bad ID", func() error { _, err := good.Job(ctx, "z"); return err }, client.Usage},
		{"anything else", func() error { return errors.New("x") }, client.Failed},
	} {
		if err := tt.f(); err == nil || client.ClassOf(err) != tt.want {
			t.Errorf("%s: class %d of %v, want %d", tt.name, client.ClassOf(err), err, tt.want)
		}
	}
}

// What is not a kith answers is told as such.
func TestStrangers(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/id" {
			fmt.Fprint(w, "<html>")
			return
		}
		http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
	}))
	defer srv.Close()
	c := dial(t, srv.Listener.Addr().String(), token)
	defer c.Close()
	if _, err := c.ID(t.Context()); err == nil || !strings.Contains(err.Error(), "same version") {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "does not redirect") {
		t.Error(err)
	}
}
