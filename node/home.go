package node

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Home is a node's folder. Its layout, version 1:
//
//	version       "1"
//	lock          held while a node runs on this home
//	key           the node's Ed25519 identity, 0600
//	mesh/root     the mesh's root key, at the founder alone, 0600
//	mesh/token    this node's member token
//	mesh/charter  the mesh's root-signed charter
//	kith.db       jobs, leases, receipts, results, invites, pins (SQLite)
//	blocks/       content-addressed blocks (packs)
//	peers.json    members seen, to find the mesh again
//	api.token     bearer token of the local API, 0600
//	api.json      where the running node's API listens
//	cache/        compiled programs; may be deleted
//	scratch/      tasks in work; emptied at start
type Home string

const homeVersion = "1"

// The files of a home.
func (h Home) path(elem ...string) string {
	return filepath.Join(append([]string{string(h)}, elem...)...)
}

// Key is the path of the node's identity.
func (h Home) Key() string { return h.path("key") }

// Root is the path of the mesh's root key; only the founder has the file.
func (h Home) Root() string { return h.path("mesh", "root") }

// Token is the path of the node's member token.
func (h Home) Token() string { return h.path("mesh", "token") }

// Charter is the path of the mesh's charter.
func (h Home) Charter() string { return h.path("mesh", "charter") }

// Database is the path of the one SQLite database.
func (h Home) Database() string { return h.path("kith.db") }

// Blocks is the folder of the block store.
func (h Home) Blocks() string { return h.path("blocks") }

// APIToken is the path of the local API's bearer token.
func (h Home) APIToken() string { return h.path("api.token") }

// APIFile is the path of the file that says where the running node's API listens.
func (h Home) APIFile() string { return h.path("api.json") }

// Cache is the folder of compiled programs.
func (h Home) Cache() string { return h.path("cache") }

// Scratch is the folder that tasks in work use.
func (h Home) Scratch() string { return h.path("scratch") }

// ErrNoMesh says that a home belongs to no mesh yet.
var ErrNoMesh = errors.New("this home belongs to no mesh: make one with 'kith init', or join one with 'kith up --join LINE'")

// ErrHomeInUse says that another node runs on a home.
var ErrHomeInUse = errors.New("another kith runs on this home: stop it with 'kith down', or give this one its own with --home")

// prepare makes the folder and checks its version.
func (h Home) prepare() error {
	if h == "" {
		return errors.New("node: no home folder given: set --home or KITH_HOME")
	}
	if err := os.MkdirAll(string(h), 0o700); err != nil {
		return fmt.Errorf("node: make home: %w", err)
	}
	err := h.checkVersion()
	if errors.Is(err, fs.ErrNotExist) {
		return writeFile(h.path("version"), []byte(homeVersion+"\n"), 0o644)
	}
	return err
}

// checkVersion is fs.ErrNotExist for a folder that no kith has used yet.
func (h Home) checkVersion() error {
	b, err := os.ReadFile(h.path("version"))
	if err != nil {
		return fmt.Errorf("node: read home's version: %w", err)
	}
	if v := strings.TrimSpace(string(b)); v != homeVersion {
		return fmt.Errorf("node: home %s has version %q and this kith knows %q: use the kith that made it, or another --home", h, v, homeVersion)
	}
	return nil
}

// A node that was killed while it started a child leaves the lock to it for the
// moment until the child runs its own program.
const (
	lockTime  = 2 * time.Second
	lockEvery = 50 * time.Millisecond
)

// lock takes the home for this process until the returned function is called.
func (h Home) lock(ctx context.Context) (release func() error, err error) {
	for begin := time.Now(); ; {
		if release, err = h.tryLock(); !errors.Is(err, ErrHomeInUse) || time.Since(begin) >= lockTime {
			return release, err
		}
		select {
		case <-time.After(lockEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h Home) tryLock() (release func() error, err error) {
	l := flock.New(h.path("lock"))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("node: lock home %s: %w", h, err)
	}
	if !ok {
		return nil, fmt.Errorf("home %s: %w", h, ErrHomeInUse)
	}
	return l.Unlock, nil
}

// inUse reports whether a node holds the home. It makes no lock file.
func (h Home) inUse() bool {
	if _, err := os.Stat(h.path("lock")); err != nil {
		return false
	}
	release, err := h.tryLock()
	if err == nil {
		err = release()
	}
	return errors.Is(err, ErrHomeInUse)
}

// HasMesh reports whether the home holds a member token.
func (h Home) HasMesh() bool {
	_, err := os.Stat(h.Token())
	return err == nil
}

// LoadAPIToken reads the local API's token, making it at the first call.
func (h Home) LoadAPIToken() (string, error) {
	b, err := os.ReadFile(h.APIToken())
	if err == nil {
		if info, err := os.Stat(h.APIToken()); err == nil && tooOpen(info.Mode()) {
			return "", fmt.Errorf("node: %s can be read by others (mode %v): run chmod 600 on it", h.APIToken(), info.Mode().Perm())
		}
		if t := strings.TrimSpace(string(b)); t != "" {
			return t, nil
		}
		return "", fmt.Errorf("node: %s is empty: delete it and start again", h.APIToken())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("node: read API token: %w", err)
	}
	if err := h.prepare(); err != nil {
		return "", err
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("node: make API token: %w", err)
	}
	t := base64.RawURLEncoding.EncodeToString(raw)
	if err := writeFile(h.APIToken(), []byte(t+"\n"), 0o600); err != nil {
		return "", err
	}
	return t, nil
}

// APIAddress is what APIFile holds.
type APIAddress struct {
	Version int    `json:"version"`
	Address string `json:"address"` // host:port
	PID     int    `json:"pid"`
}

// ReadAPIAddress tells where the node of this home serves its API. The error is
// fs.ErrNotExist when none runs.
func (h Home) ReadAPIAddress() (APIAddress, error) {
	var a APIAddress
	b, err := os.ReadFile(h.APIFile())
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("node: %s: %w", h.APIFile(), err)
	}
	return a, nil
}

func (h Home) writeAPIAddress(addr string) error {
	b, err := json.Marshal(APIAddress{Version: 1, Address: addr, PID: os.Getpid()})
	if err != nil {
		return err
	}
	return writeFile(h.APIFile(), append(b, '\n'), 0o644)
}

// writeFile replaces a file in one step: a crash leaves the old one or the new.
func writeFile(name string, b []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("node: write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return syncDir(filepath.Dir(name))
}
