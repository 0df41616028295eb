package node

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newHome(t *testing.T) Home {
	t.Helper()
	h := Home(filepath.Join(t.TempDir(), "home"))
	if err := h.prepare(); err != nil {
		t.Fatal(err)
	}
	return h
}

func modeOf(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestHomeOfAnotherVersion(t *testing.T) {
	cfg := founder(t)
	if err := cfg.Home.prepare(); err != nil {
		t.Errorf("its own version: %v", err)
	}
	if err := os.WriteFile(cfg.Home.path("version"), []byte("2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), cfg)
	for _, want := range []string{`"2"`, `"1"`, string(cfg.Home), "--home"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if _, err := Found(cfg.Home, "again", false, time.Now()); err == nil {
		t.Error("a mesh was founded there")
	}
}

func TestHomeIsLockedToOthers(t *testing.T) {
	cfg := founder(t)
	other := exec.Command(os.Args[0], holdArg, string(cfg.Home))
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	if !cfg.Home.inUse() {
		t.Error("the home seems free")
	}
	if _, err := New(t.Context(), cfg); !errors.Is(err, ErrHomeInUse) {
		t.Errorf("got %v, want %v", err, ErrHomeInUse)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	if cfg.Home.inUse() {
		t.Error("the home seems taken after its holder has ended")
	}
	n, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), cfg); !errors.Is(err, ErrHomeInUse) {
		t.Errorf("in one process: got %v, want %v", err, ErrHomeInUse)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if cfg.Home.inUse() {
		t.Error("a closed node holds its home")
	}
}

// Whoever died holding the home may leave it to a child that is about to run its
// own program: the next node waits for that, and not for one that goes on.
func TestHomeIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		home := Home(t.TempDir())
		leave, err := home.tryLock()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := home.lock(t.Context()); !errors.Is(err, ErrHomeInUse) {
			t.Errorf("of one that goes on: %v, want %v", err, ErrHomeInUse)
		}
		time.AfterFunc(lockTime/2, func() {
			if err := leave(); err != nil {
				t.Error(err)
			}
		})
		release, err := home.lock(t.Context())
		if err != nil {
			t.Fatalf("of one that is about to let go: %v", err)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}

func TestSecretsAreTheOwnersAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files there have no such modes")
	}
	cfg := founder(t)
	if _, err := cfg.Home.LoadAPIToken(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cfg.Home.Key(), cfg.Home.Root(), cfg.Home.Token(), cfg.Home.APIToken()} {
		if m := modeOf(t, name); m != 0o600 {
			t.Errorf("%s has mode %v", name, m)
		}
	}
	if m := modeOf(t, string(cfg.Home)); m != 0o700 {
		t.Errorf("the home has mode %v", m)
	}
	for _, name := range []string{cfg.Home.Key(), cfg.Home.Root(), cfg.Home.APIToken()} {
		if err := os.Chmod(name, 0o640); err != nil {
			t.Fatal(err)
		}
		n, err := New(t.Context(), cfg)
		if err == nil {
			err = errors.Join(errors.New("it opened"), n.Close())
		}
		if !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s readable by others: %v", name, err)
		}
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPIToken(t *testing.T) {
	h := newHome(t)
	first, err := h.LoadAPIToken()
	if err != nil || len(first) < 32 {
		t.Fatalf("got %q, %v", first, err)
	}
	if again, err := h.LoadAPIToken(); again != first || err != nil {
		t.Errorf("then %q, %v", again, err)
	}
	if err := os.WriteFile(h.APIToken(), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if tok, err := h.LoadAPIToken(); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("empty file: %q, %v", tok, err)
	}
}

func TestAPIAddress(t *testing.T) {
	h := newHome(t)
	if _, err := h.ReadAPIAddress(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := h.writeAPIAddress("127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if a, err := h.ReadAPIAddress(); err != nil || a.Address != "127.0.0.1:1" || a.PID != os.Getpid() || a.Version != 1 {
		t.Errorf("got %+v, %v", a, err)
	}
	if err := os.WriteFile(h.APIFile(), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReadAPIAddress(); err == nil || !strings.Contains(err.Error(), h.APIFile()) {
		t.Errorf("got %v", err)
	}
}

// TestWriteFileIsWhole reads a file while it is replaced: each time it is one of
// the two whole texts.
func TestWriteFileIsWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sub", "file")
	texts := [2]string{strings.Repeat("a", 1<<16), strings.Repeat("b", 1<<15)}
	if err := writeFile(name, []byte(texts[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		var err error
		for i := range 50 {
			err = errors.Join(err, writeFile(name, []byte(texts[i%2]), 0o600))
		}
		done <- err
	}()
	for over := false; !over; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			over = true
		default:
		}
		b, err := os.ReadFile(name)
		if err != nil || string(b) != texts[0] && string(b) != texts[1] {
			t.Fatalf("read %d bytes, %v", len(b), err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(left) != 1 {
		t.Errorf("left beside it: %v, %v", left, err)
	}
	if err := writeFile(filepath.Join(name, "below"), nil, 0o600); err == nil {
		t.Error("wrote below a file")
	}
}

func TestFoundOnce(t *testing.T) {
	cfg := founder(t)
	if _, err := Found(cfg.Home, "second", false, time.Now()); !errors.Is(err, ErrHasMesh) {
		t.Errorf("got %v", err)
	}
	id, err := Identify(cfg.Home, time.Now())
	if err != nil || id.MeshName != "test" || !id.Founder || id.Name != "founder" {
		t.Errorf("got %+v, %v", id, err)
	}
	if _, err := Identify(newHome(t), time.Now()); !errors.Is(err, ErrNoMesh) {
		t.Errorf("empty home: %v", err)
	}
}

// TestFounderRenewsItself lets time pass: the founder's token is minted anew in
// its last third, and also when it has run out.
func TestFounderRenewsItself(t *testing.T) {
	for _, c := range []struct {
		name    string
		after   time.Duration
		renewed bool
	}{{"fresh", time.Hour, false}, {"last third", FounderTerm * 3 / 4, true}, {"expired", 2 * FounderTerm, true}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := founder(t)
			before, err := os.ReadFile(cfg.Home.Token())
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now().Add(c.after)
			id, err := Identify(cfg.Home, now)
			if err != nil || !id.Expires.After(now) {
				t.Errorf("identified as %+v, %v", id, err)
			}
			if b, err := os.ReadFile(cfg.Home.Token()); err != nil || string(b) != string(before) {
				t.Errorf("asking who it is changed the home: %v", err)
			}
			if _, err := loadMembership(cfg.Home, now); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(cfg.Home.Token())
			if err != nil || (string(b) != string(before)) != c.renewed {
				t.Errorf("renewed %v, %v", string(b) != string(before), err)
			}
		})
	}
}

// TestLostKeyIsNotMadeAnew: a new key would be another node's, and the token
// would not fit it.
func TestLostKeyIsNotMadeAnew(t *testing.T) {
	cfg := founder(t)
	if err := os.Remove(cfg.Home.Key()); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), cfg.Home.Key()) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(cfg.Home.Key()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was made: %v", err)
	}
}

func TestConfigTellsAllFaults(t *testing.T) {
	_, err := New(t.Context(), Config{Listen: []string{"4101"}, APIListen: "7770", Join: "a", JoinFile: "b", Init: true,
		Delays: map[string]time.Duration{"x": 1, "127.0.0.1:1": -1}})
	for _, want := range []string{"home:", "listen:", "api-listen:", "join and join-file", "init and join", `delays: "x"`, "-1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	cfg := Config{}.fill()
	if len(cfg.Listen) != 4 || cfg.APIListen != "127.0.0.1:7770" || len(Config{NoQUIC: true}.fill().Listen) != 2 {
		t.Errorf("defaults: %+v", cfg)
	}
}
