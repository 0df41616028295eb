package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKuboFetches: a stock Kubo gets a public file of several levels and a
// public folder of ours, by nothing but a connection and bitswap.
func TestKuboFetches(t *testing.T) {
	ours, theirs := newKith(t), newKubo(t)
	file := noise(t, filepath.Join(t.TempDir(), "file"), 30<<20+7)
	for name, c := range map[string]struct {
		path string
		args []string
	}{
		"file":            {file, nil},
		"file, 3 levels":  {file, []string{"--chunk", "64Ki"}},
		"folder":          {folder(t), nil},
		"empty file":      {noise(t, filepath.Join(t.TempDir(), "empty"), 0), nil},
		"folder, sharded": {crowd(t), nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := ours.add(t, c.path, append(c.args, "--public")...)
			theirs.run(t, "swarm", "connect", ours.addr)
			out := filepath.Join(t.TempDir(), "out")
			theirs.run(t, "get", "--progress=false", "--timeout=2m", "-o", out, root)
			sameTree(t, c.path, out)
		})
	}
}

// crowd is a folder of so many long names that its own node is sharded. Its
// files are few: Kubo asks for one block after another.
func crowd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 1200 {
		name := fmt.Sprintf("%04d %s", i, strings.Repeat("x", 240))
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Append(nil, i%3), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestKithFetches: we get what Kubo has, in each of the forms that it makes,
// from a peer that is named by its address.
func TestKithFetches(t *testing.T) {
	ours, theirs := newKith(t), newKubo(t)
	file := noise(t, filepath.Join(t.TempDir(), "file"), 30<<20+7)
	dir := folder(t)
	if err := os.Symlink("deep/er", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path string
		args []string
	}{
		"file, as Kubo adds by itself": {file, nil},
		"file, raw leaves":             {file, []string{"--cid-version=1", "--raw-leaves", "--chunker=size-1048576"}},
		"file, trickle":                {file, []string{"--trickle"}},
		"file, cut by content":         {file, []string{"--chunker=rabin"}},
		"file, BLAKE3":                 {file, []string{"--cid-version=1", "--hash=blake3"}},
		"file in its node":             {noise(t, filepath.Join(t.TempDir(), "f"), 100), []string{"--inline"}},
		"empty file":                   {noise(t, filepath.Join(t.TempDir(), "empty"), 0), nil},
		"folder":                       {dir, nil},
		"folder, CID version 1":        {dir, []string{"--cid-version=1"}},
		"folder, sharded":              {crowd(t), nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := theirs.run(t, append([]string{"add", "-Q", "--progress=false", "--recursive", "--hidden", c.path}, c.args...)...)
			out := filepath.Join(t.TempDir(), "out")
			ours.run(t, "get", root, "--from", theirs.addr, "--out", out)
			sameTree(t, c.path, out)
		})
	}
	t.Run("part of a folder, pinned", func(t *testing.T) {
		root := theirs.run(t, "add", "-Q", "--recursive", "--hidden", "--cid-version=1", "--chunker=size-100000", dir)
		out := filepath.Join(t.TempDir(), "out")
		ours.run(t, "get", root+"/deep", "--from", theirs.addr, "--out", out)
		sameTree(t, filepath.Join(dir, "deep"), out)
		ours.run(t, "pin", root, "--from", theirs.addr)
		if ls := ours.run(t, "ls"); !strings.Contains(ls, root) {
			t.Errorf("%s is not pinned:\n%s", root, ls)
		}
	})
	t.Run("what it does not have", func(t *testing.T) {
		root := newKith(t).add(t, noise(t, filepath.Join(t.TempDir(), "else"), 1000))
		_, err := ours.try(t, "get", root, "--from", theirs.addr)
		if err == nil || !strings.Contains(err.Error(), "no reachable peer has it") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a peer that is not there", func(t *testing.T) {
		root := theirs.run(t, "add", "-Q", noise(t, filepath.Join(t.TempDir(), "f"), 10))
		// One that knows no better address of it.
		_, err := newKith(t).try(t, "get", root, "--from", "/ip4/127.0.0.1/tcp/1/p2p/"+theirs.id)
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
	})
}

// TestMeshesShareWhatIsPublic: to a node of another mesh we are what Kubo is.
func TestMeshesShareWhatIsPublic(t *testing.T) {
	one, other := newKith(t), newKith(t)
	dir := folder(t)
	root, out := one.add(t, dir, "--public"), filepath.Join(t.TempDir(), "out")
	other.run(t, "get", root, "--from", one.addr, "--out", out)
	sameTree(t, dir, out)
}
