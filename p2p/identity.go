package p2p

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/libp2p/go-libp2p/core/crypto"
)

const maxKeyFile = 4 << 10

// LoadOrCreateKey reads the Ed25519 private key at path, or makes one there
// with mode 0600 when there is none. It refuses a file that others can read.
func LoadOrCreateKey(path string) (crypto.PrivKey, error) {
	key, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, _, err = crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := SaveKey(path, key); err != nil {
		if errors.Is(err, fs.ErrExist) { // another process was first
			return LoadKey(path)
		}
		return nil, err
	}
	return key, nil
}

// LoadKey reads a private key that SaveKey wrote.
func LoadKey(path string) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 { // windows has no such bits
		return nil, fmt.Errorf("read key: %s has mode %04o, so others can read it: run chmod 600 %s, and make a new key if others did", path, st.Mode().Perm(), path)
	}
	if st.Size() > maxKeyFile {
		return nil, fmt.Errorf("read key: %s has %d bytes: it is no key", path, st.Size())
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read key: %s: %w", path, err)
	}
	key, err := crypto.UnmarshalPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("read key: %s is damaged: restore it from a copy, or remove it to get a new identity: %w", path, err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("read key: %s holds a key of type %s, want Ed25519", path, key.Type())
	}
	return key, nil
}

// SaveKey writes a private key with mode 0600. It never overwrites one.
func SaveKey(path string, key crypto.PrivKey) error {
	b, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".key-*") // 0600
	if err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	defer os.Remove(tmp.Name())
	if err := writeSync(tmp, b); err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	// A link fails where the name exists; a rename would replace a key.
	if err := os.Link(tmp.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("save key: %w", err)
		}
		return saveExclusive(path, b)
	}
	return nil
}

// saveExclusive serves file systems without hard links.
func saveExclusive(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	if err := writeSync(f, b); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("save key: %w", err)
	}
	return nil
}

func writeSync(f *os.File, b []byte) error {
	_, err := f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
