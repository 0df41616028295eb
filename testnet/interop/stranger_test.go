package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	bspb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
)

// asker is a stranger who speaks bitswap by the message, so that a "no" is
// seen, and need not be guessed from silence.
type asker struct {
	host.Host
	to peer.AddrInfo

	mu      sync.Mutex
	answers map[string]string // by CID: block, have or don't have
}

const bitswapID protocol.ID = "/ipfs/bitswap/1.2.0"

func newAsker(t *testing.T, n *node) *asker {
	t.Helper()
	to, err := peer.AddrInfoFromString(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	a := &asker{Host: h, to: *to, answers: map[string]string{}}
	h.SetStreamHandler(bitswapID, func(s network.Stream) {
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			m, _, err := bsmsg.FromMsgReader(r)
			if err != nil {
				return
			}
			a.mu.Lock()
			for _, b := range m.Blocks() {
				a.answers[b.Cid().String()] = "block"
			}
			for _, p := range m.BlockPresences() {
				a.answers[p.Cid.String()] = map[bspb.Message_BlockPresenceType]string{bspb.Message_Have: "have", bspb.Message_DontHave: "don't have"}[p.Type]
			}
			a.mu.Unlock()
		}
	})
	return a
}

// ask wants blocks and waits for the answer to each, by CID. Strangers are
// closed after a while: then it asks again.
func (a *asker) ask(t *testing.T, cids ...string) (out map[string]string) {
	t.Helper()
	m := bsmsg.New(true)
	for i, text := range cids {
		c, err := cid.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		m.AddEntry(c, int32(len(cids)-i), bspb.Message_Wantlist_Block, true)
	}
	a.mu.Lock()
	clear(a.answers)
	a.mu.Unlock()
	var over network.Conn
	until(t, fmt.Sprintf("an answer to %d wants", len(cids)), 30*time.Second, func() bool {
		if over == nil || over.IsClosed() {
			if over = a.send(m); over == nil {
				return false
			}
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		out = map[string]string{}
		for _, c := range cids {
			if w := a.answers[c]; w != "" {
				out[c] = w
			}
		}
		return len(out) == len(cids)
	})
	return out
}

// send gives the connection that a message went by, if it went.
func (a *asker) send(m bsmsg.BitSwapMessage) network.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if a.Connect(ctx, a.to) != nil {
		return nil
	}
	s, err := a.NewStream(ctx, a.to.ID, bitswapID)
	if err != nil {
		return nil
	}
	defer s.Close()
	if m.ToNetV1(s) != nil {
		return nil
	}
	return s.Conn()
}

// api speaks to a node's own API, for what no command does.
func (n *node) api(t *testing.T, method, path, media string, body []byte) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.args[1], "api.json"))
	if err != nil {
		t.Fatal(err)
	}
	var at struct{ Address string }
	if err := json.Unmarshal(b, &at); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+at.Address+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.run(t, "token"))
	req.Header.Set("Content-Type", media)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s, %v: %s", method, path, resp.Status, err, out)
	}
	return out
}

// TestStrangersGetNothingElse: a stranger who asks by bitswap gets what is
// public. To all else it is told that it is not here, as of what is not: a mesh
// root, a job's upload, a job's output, and what was public once.
func TestStrangersGetNothingElse(t *testing.T) {
	ours := newKith(t)
	dir := t.TempDir()
	public, again := noise(t, filepath.Join(dir, "public"), 1000), noise(t, filepath.Join(dir, "again"), 1000)
	var job struct{ CID string }
	if err := json.Unmarshal(ours.api(t, "POST", "/api/v1/data?audience=job", "application/octet-stream", []byte("a job's input")), &job); err != nil {
		t.Fatal(err)
	}
	ours.run(t, "run", "example:primes", "--tasks", "1", "--out", filepath.Join(dir, "primes"), "--", "100")
	var jobs []struct{ ID string }
	if err := json.Unmarshal([]byte(ours.run(t, "jobs", "--json")), &jobs); err != nil || len(jobs) != 1 {
		t.Fatalf("kith jobs: %v, %v", jobs, err)
	}
	var result struct{ CID string }
	if err := json.Unmarshal([]byte(ours.run(t, "results", jobs[0].ID, "--json")), &result); err != nil || result.CID == "" {
		t.Fatalf("kith results: %+v, %v", result, err)
	}
	is := map[string]string{
		ours.add(t, public, "--public"):                         "block",
		ours.add(t, again, "--public"):                          "block",
		ours.add(t, noise(t, filepath.Join(dir, "mesh"), 1000)): "don't have",
		job.CID:    "don't have",
		result.CID: "don't have",
		newKith(t).add(t, noise(t, filepath.Join(dir, "x"), 10)): "don't have",
	}
	var all []string
	for c := range is {
		all = append(all, c)
	}
	a := newAsker(t, ours)
	got := a.ask(t, all...)
	for c, want := range is {
		if got[c] != want {
			t.Errorf("%s: %s, want %s", c, got[c], want)
		}
	}
	// The filter remembers an answer for a moment.
	becomes := func(root, want string) {
		t.Helper()
		until(t, root+" becomes "+want, 15*time.Second, func() bool { return a.ask(t, root)[root] == want })
	}
	root := ours.add(t, again, "--public")
	ours.run(t, "unpin", root)
	becomes(root, "don't have")
	if ours.add(t, again) != root {
		t.Error("the same bytes have another CID")
	}
	if got := a.ask(t, root)[root]; got != "don't have" {
		t.Errorf("added again, for members: %s", got)
	}
	ours.add(t, again, "--public")
	becomes(root, "block")
	ours.run(t, "unpin", root)
	ours.run(t, "gc")
	becomes(root, "don't have")
}

// TestKuboGetsNothingElse: the same with a Kubo that wants a block for
// members all the while that it gets public ones.
func TestKuboGetsNothingElse(t *testing.T) {
	ours, theirs := newKith(t), newKubo(t)
	dir := t.TempDir()
	secret := ours.add(t, noise(t, filepath.Join(dir, "secret"), 1000))
	public := noise(t, filepath.Join(dir, "public"), 3<<20)
	theirs.run(t, "swarm", "connect", ours.addr)
	wants := make(chan error, 1)
	go func() {
		_, err := theirs.try(t, "block", "get", "--timeout=10m", secret)
		wants <- err
	}()
	until(t, "Kubo wants the secret", 20*time.Second, func() bool { return strings.Contains(theirs.run(t, "bitswap", "wantlist"), secret) })
	out := filepath.Join(dir, "out")
	root := ours.add(t, public, "--public", "--chunk", "64Ki")
	theirs.run(t, "swarm", "connect", ours.addr)
	theirs.run(t, "get", "--progress=false", "--timeout=1m", "-o", out, root)
	sameTree(t, public, out)
	if !strings.Contains(theirs.run(t, "bitswap", "wantlist"), secret) {
		t.Error("Kubo wants the secret no more")
	}
	if _, err := theirs.try(t, "block", "stat", "--offline", secret); err == nil {
		t.Error("Kubo has the secret")
	}
	select {
	case err := <-wants:
		t.Errorf("the want ended: %v", err)
	default:
	}
	theirs.run(t, "shutdown")
	<-wants
}

// TestStrangerSlots: strangers who only stay take at most the slots that there
// are, and not for long; whom something public is served is not closed for
// them, and is closed when it is done.
func TestStrangerSlots(t *testing.T) {
	ours, theirs := newKith(t), newKubo(t)
	file := noise(t, filepath.Join(t.TempDir(), "file"), 60<<20)
	root, out := ours.add(t, file, "--public", "--chunk", "64Ki"), filepath.Join(t.TempDir(), "out")
	theirs.run(t, "swarm", "connect", ours.addr)
	got := make(chan error, 1)
	go func() {
		_, err := theirs.try(t, "get", "--progress=false", "--timeout=3m", "-o", out, root)
		got <- err
	}()
	const knocks = 100
	for range knocks {
		a := newAsker(t, ours)
		// Whoever is turned away learns it now or a moment later.
		_ = a.Connect(t.Context(), a.to)
		if n := ours.metric(t, "kith_p2p_strangers"); n > 64 {
			t.Errorf("%v strangers at once", n)
		}
	}
	if n := ours.metric(t, "kith_p2p_strangers_turned_away_total"); n == 0 {
		t.Log("the machine is slow: no more than 64 were there at once")
	}
	if err := <-got; err != nil {
		t.Errorf("Kubo was being served: %v", err)
	}
	sameTree(t, file, out)
	until(t, "all strangers are closed", 90*time.Second, func() bool { return ours.metric(t, "kith_p2p_strangers") == 0 })
	if peers := theirs.run(t, "swarm", "peers"); strings.Contains(peers, ours.id) {
		t.Errorf("Kubo is still connected: %s", peers)
	}
	// And there is room again.
	if got := newAsker(t, ours).ask(t, root)[root]; got != "block" {
		t.Errorf("a stranger who came later: %s", got)
	}
}

func (n *node) metric(t *testing.T, name string) (v float64) {
	t.Helper()
	for line := range strings.Lines(string(n.api(t, "GET", "/metrics", "", nil))) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
