package storage

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

const crashEnv = "KITH_STORAGE_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crashChild(dir)
	}
	os.Exit(m.Run())
}

// crashFile is what the child's n-th add holds: some small, some of many blocks.
func crashFile(n int) []byte { return noise(1+n*n*37_000%3_000_000, uint64(n)) }

// crashChild adds until it is killed, telling each acknowledged CID.
func crashChild(dir string) {
	die := func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	}
	t := &testing.T{}
	cfg := Config{Dir: dir, DB: openDB(t, dir), MinFree: 1}
	s, err := Open(cfg)
	if err != nil {
		die(err)
	}
	for n := 0; ; n++ {
		r, err := s.AddBytes(context.Background(), crashFile(n), AddOptions{ChunkSize: 100_000})
		if err != nil {
			die(err)
		}
		fmt.Println("added", n, r.CID)
	}
}

// TestKill kills a process that adds files, by SIGKILL, several times in
// different places, and looks at what it left: all that it acknowledged is
// there and hashes right, and no garbage is out of the collector's reach.
func TestKill(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	acked := map[int]cid.Cid{}
	for round := range 4 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for left := 3 + 4*round; sc.Scan(); {
			var n int
			var c string
			if _, err := fmt.Sscanf(sc.Text(), "added %d %s", &n, &c); err != nil {
				t.Fatalf("child says %q", sc.Text())
			}
			if acked[n], err = cid.Decode(c); err != nil {
				t.Fatal(err)
			}
			if left--; left == 0 { // while the next add runs
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "kill") {
			t.Fatalf("child ended by itself: %v", err)
		}
	}
	s, err := Open(Config{Dir: dir, DB: openDB(t, dir), MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	check := func() {
		t.Helper()
		for n, c := range acked {
			if got := readAll(t, s, c, "", 0, -1); !bytes.Equal(got, crashFile(n)) {
				t.Errorf("file %d, acknowledged as %s: another content", n, c)
			}
		}
	}
	check()
	r := gc(t, s)
	if r.Damaged != 0 {
		t.Errorf("damaged after a kill: %+v", r)
	}
	check()
	u, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var onDisk, whole int64
	err = filepath.WalkDir(filepath.Join(dir, "packs"), func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			fi, err := d.Info()
			onDisk += fi.Size()
			return err
		}
		return err
	})
	for n := range acked {
		whole += int64(len(crashFile(n)))
	}
	// No more than an eighth is garbage after a collection.
	if err != nil || u.Bytes != onDisk || onDisk < whole || onDisk > whole*8/7+1<<20 {
		t.Errorf("usage is %d, files have %d, what was acknowledged has %d, %v", u.Bytes, onDisk, whole, err)
	}
}
