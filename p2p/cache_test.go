package p2p

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestRestartRejoinsByTheCache(t *testing.T) {
	m := newTestMesh(t)
	b := m.host(m.config(), nil)
	cfg := m.config()
	cfg.Home = t.TempDir()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := m.run(a)
	m.connect(a, b)
	until(t, "the record of b came by the exchange", func() bool { return a.RecordOf(b.ID()) != nil })
	stop()
	until(t, "b sees a go", func() bool { return !b.connectedTo(a.ID()) })
	st, err := os.Stat(filepath.Join(cfg.Home, cacheFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("cache: %v, %v", st, err)
	}
	again := m.host(cfg, nil)
	until(t, "a is back with no invite and no bootstrap", func() bool { return b.IsMember(again.ID()) && again.IsMember(b.ID()) })
	left, err := os.ReadDir(cfg.Home)
	if err != nil || len(left) != 1 {
		t.Errorf("files left in home: %v, %v", left, err)
	}
}

func TestDamagedCacheIsNoObstacle(t *testing.T) {
	m := newTestMesh(t)
	for name, text := range map[string]string{
		"damaged": "{", "future": `{"version":99}`, "other mesh": `{"version":1,"mesh":"x"}`,
		"lies": `{"version":1,"mesh":"` + string(m.id) + `","peers":[{"id":"12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2","record":"AAAA","met":"2026-01-01T00:00:00Z"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := m.config()
			cfg.Home = t.TempDir()
			path := filepath.Join(cfg.Home, cacheFile)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			m.run(h)()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := decodeCache(b); err != nil || c.Mesh != string(m.id) {
				t.Errorf("afterwards: %+v, %v", c, err)
			}
		})
	}
}

func TestBookIsBounded(t *testing.T) {
	m := newTestMesh(t)
	h := m.host(m.config(), nil)
	met, metID := m.config(), peer.ID("")
	metID, err := peer.IDFromPrivateKey(met.Key)
	if err != nil {
		t.Fatal(err)
	}
	h.book.met(metID)
	for i := range maxBook + 100 {
		r := &peer.PeerRecord{PeerID: peer.ID(strings.Repeat("x", 30) + string(rune(i+1))), Seq: 1}
		h.book.put(r, []byte("r"))
	}
	if n := h.book.size(); n > maxBook {
		t.Errorf("%d pages, the most is %d", n, maxBook)
	}
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	if h.book.peers[metID] == nil {
		t.Error("one that was met went before those that were not")
	}
}

func TestLearn(t *testing.T) {
	m := newTestMesh(t)
	a, b := m.host(m.config(), nil), m.host(m.config(), nil)
	rec, err := b.Record()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Record(); err != nil || string(again) != string(rec) {
		t.Error("a record changes with no cause")
	}
	id, err := a.Learn(rec)
	if err != nil || id != b.ID() {
		t.Fatalf("%s, %v", id, err)
	}
	if _, err := a.Call(t.Context(), b.ID(), Renew, nil); err != nil {
		t.Errorf("not dialled by its record: %v", err)
	}
	if got := a.RecordOf(b.ID()); string(got) != string(rec) {
		t.Error("another record is kept")
	}
	for name, bad := range map[string][]byte{
		"none": nil, "large": make([]byte, maxRecord+1), "cut": rec[:len(rec)-1],
		"changed": append(append([]byte{}, rec[:len(rec)-1]...), rec[len(rec)-1]^1),
	} {
		if _, err := a.Learn(bad); err == nil {
			t.Errorf("%s: learnt", name)
		}
	}
	ahead, err := New(func() Config {
		c := m.config()
		c.Now = func() time.Time { return time.Now().Add(23 * time.Hour) }
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	defer ahead.Close()
	if rec, err = ahead.Record(); err != nil {
		t.Fatal(err)
	}
	ahead.cfg.Now = time.Now
	if _, err := a.Learn(rec); err != nil {
		t.Errorf("a day's skew: %v", err)
	}
}

// TestNewMemberIsSavedSoon: a node that is killed seconds after it joined still
// finds its mesh again.
func TestNewMemberIsSavedSoon(t *testing.T) {
	m := newTestMesh(t)
	b := m.host(m.config(), nil)
	cfg := m.config()
	cfg.Home = t.TempDir()
	a := m.host(cfg, nil)
	m.connect(a, b)
	until(t, "b is in the cache while a runs", func() bool {
		text, err := os.ReadFile(filepath.Join(cfg.Home, cacheFile))
		return err == nil && strings.Contains(string(text), b.ID().String())
	})
}
