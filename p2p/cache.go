package p2p

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	cacheFile    = "peers.json"
	cacheVersion = 1
	maxCached    = 256
	maxCacheFile = maxCached * (2*maxRecord + 1024)
)

// cached is the peer cache as it lies on disk.
type cached struct {
	Version int          `json:"version"`
	Mesh    string       `json:"mesh"`
	Peers   []cachedPeer `json:"peers"`
}

type cachedPeer struct {
	ID     peer.ID   `json:"id"`
	Record []byte    `json:"record,omitempty"`
	Met    time.Time `json:"met"`
	Last   string    `json:"last,omitempty"`
}

// decodeCache reads and checks a cache file's bytes.
func decodeCache(b []byte) (cached, error) {
	var c cached
	if err := json.Unmarshal(b, &c); err != nil {
		return cached{}, fmt.Errorf("peer cache: %w", err)
	}
	if c.Version != cacheVersion {
		return cached{}, fmt.Errorf("peer cache: version %d, this program reads %d", c.Version, cacheVersion)
	}
	if len(c.Peers) > maxCached {
		c.Peers = c.Peers[:maxCached]
	}
	for i, p := range c.Peers {
		if err := p.ID.Validate(); err != nil {
			return cached{}, fmt.Errorf("peer cache: entry %d: %w", i, err)
		}
		if len(p.Record) > maxRecord {
			return cached{}, fmt.Errorf("peer cache: entry %d: record of %d bytes", i, len(p.Record))
		}
		if p.Last != "" {
			if _, err := ma.NewMultiaddr(p.Last); err != nil {
				return cached{}, fmt.Errorf("peer cache: entry %d: %w", i, err)
			}
		}
	}
	return c, nil
}

// loadCache brings back the members that were met before; a record that no
// longer verifies is left out.
func (h *Host) loadCache() error {
	if h.cfg.Home == "" {
		return nil
	}
	f, err := os.Open(filepath.Join(h.cfg.Home, cacheFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("peer cache: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCacheFile+1))
	if err != nil {
		return fmt.Errorf("peer cache: %w", err)
	}
	if len(b) > maxCacheFile {
		return fmt.Errorf("peer cache: %s is larger than %d bytes", f.Name(), maxCacheFile)
	}
	c, err := decodeCache(b)
	if err != nil {
		return err
	}
	if c.Mesh != string(h.cfg.Mesh) {
		return nil // this home was moved to another mesh
	}
	for _, p := range c.Peers {
		h.recall(p)
	}
	return nil
}

func (h *Host) recall(p cachedPeer) {
	if p.ID == h.id {
		return
	}
	if len(p.Record) > 0 {
		if id, err := h.Learn(p.Record); err != nil || id != p.ID {
			h.log.Debug("cached record not taken", "peer", p.ID, "err", err)
			p.Record = nil
		}
	}
	h.book.mu.Lock()
	known := h.book.peers[p.ID]
	if known == nil {
		known = &page{}
		h.book.peers[p.ID] = known
	}
	known.met = p.Met
	if p.Last != "" {
		known.last, _ = ma.NewMultiaddr(p.Last) // checked by decodeCache
	}
	h.book.mu.Unlock()
	if len(p.Record) > 0 {
		h.near.know(p.ID, p.Record)
	}
}

// saveCache writes the members that were met, the latest first.
func (h *Host) saveCache() {
	if h.cfg.Home == "" {
		return
	}
	c := cached{Version: cacheVersion, Mesh: string(h.cfg.Mesh)}
	for _, id := range h.memberIDs() { // they are being met now
		h.book.met(id)
	}
	h.book.mu.Lock()
	for id, p := range h.book.peers {
		if p.met.IsZero() || p.record == nil && p.last == nil {
			continue
		}
		e := cachedPeer{ID: id, Record: p.record, Met: p.met}
		if p.last != nil {
			e.Last = p.last.String()
		}
		c.Peers = append(c.Peers, e)
	}
	h.book.mu.Unlock()
	slices.SortFunc(c.Peers, func(a, b cachedPeer) int {
		if d := b.Met.Compare(a.Met); d != 0 {
			return d
		}
		return compareIDs(a.ID, b.ID)
	})
	c.Peers = c.Peers[:min(len(c.Peers), maxCached)]
	if err := writeCache(filepath.Join(h.cfg.Home, cacheFile), c); err != nil {
		h.log.Warn("peer cache not saved", "err", err)
	}
}

// Remember writes who was met by joining into the home's peer cache. Done before
// the token is kept, it makes a node that is killed right after joining find the
// mesh again.
func (j Joined) Remember(home string, now time.Time) error {
	c := cached{Version: cacheVersion, Mesh: string(j.Mesh)}
	records := map[peer.ID][]byte{}
	for _, b := range j.Records {
		rec, err := openRecord(b)
		if err != nil {
			return fmt.Errorf("peer cache: %w", err)
		}
		records[rec.PeerID] = b
	}
	for _, p := range j.Peers {
		e := cachedPeer{ID: p.ID, Record: records[p.ID], Met: now}
		if len(p.Addrs) > 0 {
			e.Last = p.Addrs[0].String()
		}
		c.Peers = append(c.Peers, e)
	}
	if err := writeCache(filepath.Join(home, cacheFile), c); err != nil {
		return fmt.Errorf("peer cache: %w", err)
	}
	return nil
}

// writeCache replaces the file whole, so that a crash leaves the old or the new
// one.
func writeCache(path string, c cached) error {
	b, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+cacheFile+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := writeSync(tmp, b); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
