package storage

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	mh "github.com/multiformats/go-multihash"
)

// moveLoad is how many bytes are moved before their old files are removed.
const moveLoad = 64 << 20

// moveIn takes over what the first layout kept: one file a block in Kubo's
// flatfs folders, named by the multihash in base 32. A block that does not hash
// to its name is left out. What was moved is removed as it goes, so that it
// needs little room and, after a crash, goes on.
func (b *packBlocks) moveIn(ctx context.Context, old string, log *slog.Logger) error {
	if _, err := os.Stat(filepath.Join(old, "SHARDING")); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look for blocks of an earlier version: %w", err)
	}
	log.Info("moving blocks into packs", "from", old)
	var moved []string
	var bytes, blocks, bad int64
	load := b.p.Batch()
	defer func() { load.Discard() }()
	commit := func() error {
		if err := load.Commit(); err != nil {
			return err
		}
		for _, path := range moved {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
		load, moved, bytes = b.p.Batch(), nil, 0
		return nil
	}
	err := filepath.WalkDir(old, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		k, ok := flatKey(d.Name())
		if !ok {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !hashes(string(k), data) {
			bad++
			return nil
		}
		if err := load.Put(string(k), data); err != nil {
			return packErr(err)
		}
		blocks++
		moved = append(moved, path)
		if bytes += int64(len(data)); bytes < moveLoad {
			return nil
		}
		return commit()
	})
	if err == nil {
		err = commit()
	}
	if err == nil {
		err = errors.Join(os.RemoveAll(old), os.RemoveAll(old+".open"))
	}
	if err != nil {
		return fmt.Errorf("move blocks from %s into packs: %w", old, asFull(err))
	}
	log.Info("moved blocks into packs", "blocks", blocks, "damaged", bad)
	return nil
}

// flatKey is the multihash that a flatfs file is named by.
func flatKey(name string) (key, bool) {
	name, ok := strings.CutSuffix(name, ".data")
	if !ok {
		return "", false
	}
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(name)
	if err != nil {
		return "", false
	}
	m, err := mh.Cast(b)
	return key(m), err == nil
}
