package gossip

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-mesh/kith/p2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	meshNodes = 60
	meshWarm  = 2 * time.Minute
	// An offer to a continent's dozen nearest may cost so many copies: a flood of
	// the same graph costs more than twice that.
	meshCopies = 300
)

func TestOffersReachTheNear(t *testing.T) {
	large(t)
	inMesh(t, meshNodes, Config{}, meshWarm, func(m *testMesh) {
		recall, degree := m.links()
		e := m.predictionError()
		r := m.reach(10)
		t.Logf("links: recall %.2f, degree %.1f; median error of predictions %.2f; offers reach %.2f of those inside, %.2f of the true 12 nearest, %.0f copies each; %d connections",
			recall, degree, e, r.inside, r.nearest, r.copies, m.net.Connections())
		if recall < 0.85 {
			t.Errorf("%.2f of the six nearest are linked, want at least 0.85", recall)
		}
		if e > 0.3 {
			t.Errorf("predictions are off by %.2f in the median, want at most 0.3", e)
		}
		if r.inside < 0.95 || r.nearest < 0.85 {
			t.Errorf("offers reach %.2f of those inside and %.2f of the true 12 nearest, want at least 0.95 and 0.85", r.inside, r.nearest)
		}
		if r.copies > meshCopies {
			t.Errorf("%.0f copies an offer, want at most %d", r.copies, meshCopies)
		}
		m.jobReachesAll()
	})
}

// What the radius is worth: without it the same mesh floods.
func TestWithoutRadiusOffersFlood(t *testing.T) {
	large(t)
	inMesh(t, meshNodes, Config{IgnoreRadius: true}, meshWarm, func(m *testMesh) {
		r := m.reach(10)
		t.Logf("%.0f copies each", r.copies)
		if r.copies <= meshCopies {
			t.Errorf("%.0f copies an offer without the radius: the bound of %d shows nothing", r.copies, meshCopies)
		}
	})
}

// What the overlay is worth: over random links the radius strangles offers.
func TestOverRandomLinksOffersMissTheNear(t *testing.T) {
	large(t)
	inMesh(t, meshNodes, Config{RandomOverlay: true}, meshWarm, func(m *testMesh) {
		r := m.reach(10)
		t.Logf("reach %.2f of those inside, %.2f of the true 12 nearest", r.inside, r.nearest)
		if r.nearest >= 0.85 {
			t.Errorf("offers reach %.2f of the true 12 nearest over random links: the bound of 0.85 shows nothing", r.nearest)
		}
	})
}

func (m *testMesh) jobReachesAll() {
	m.t.Helper()
	const from = 5
	big := make([]byte, MaxJob)
	copy(big, "a job")
	if err := m.svcs[from].PublishJob(m.t.Context(), big); err != nil {
		m.t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	synctest.Wait()
	for i := range m.jobs {
		if _, got := m.jobs[i].Load(string(big)); got == (i == from) {
			m.t.Errorf("node %d: job delivered is %v", i, got)
		}
	}
}

func TestForgedOffersAreRejected(t *testing.T) {
	inMesh(t, 4, Config{}, 30*time.Second, func(m *testMesh) {
		liar := m.svcs[0]
		e := envelope{payload: []byte("forged"), place: m.hosts[0].Coordinate(), radius: time.Second, ttl: time.Second, stamp: time.Now()}
		b, err := e.seal(m.hosts[0].Seal)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		if err := liar.offers.Publish(m.t.Context(), b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for i, s := range m.svcs[1:] {
			if _, got := m.got[i+1].Load("forged"); got {
				t.Errorf("node %d took a forged offer", i+1)
			}
			if s.Stats().Forged == 0 {
				t.Errorf("node %d did not see it was forged", i+1)
			}
		}
		for i := 1; i < 4; i++ {
			if _, err := m.svcs[i].serveDirect(m.t.Context(), m.hosts[0].ID(), b); p2p.RefusalCode(err) != p2p.CodeMalformed {
				t.Errorf("node %d answered a forged direct offer with %v", i, err)
			}
		}
	})
}

func TestOriginsAreLimited(t *testing.T) {
	inMesh(t, 3, Config{OfferBurst: 5, OfferRate: 1}, 30*time.Second, func(m *testMesh) {
		for i := range 50 {
			if err := m.svcs[0].PublishOffer(m.t.Context(), fmt.Append(nil, i), time.Second, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, s := range m.svcs[1:] {
			if n := s.Stats().Delivered; n < 5 || n > 8 {
				t.Errorf("node %d took %d of 50 offers at once, want about 5", i+1, n)
			}
		}
	})
}

// One member that makes up origins, each with a rate of its own, must not flood
// the others.
func TestMadeUpOriginsAreLimited(t *testing.T) {
	inMesh(t, 3, Config{OfferBurst: 1, OfferRate: 0.1}, 30*time.Second, func(m *testMesh) {
		const offers = 4 * bringOffers
		for i := range offers {
			key, _ := testKey(t, 100+i)
			e := envelope{payload: fmt.Append(nil, i), place: m.hosts[0].Coordinate(), radius: time.Second, ttl: time.Second, stamp: time.Now()}
			b, err := e.seal(signer(key))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.svcs[0].offers.Publish(m.t.Context(), b, pubsub.WithValidatorData(&validated{envelope: e})); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, s := range m.svcs[1:] {
			if n := s.Stats().Delivered; n < bringOffers/2 || n > 3*bringOffers {
				t.Errorf("node %d took %d of %d offers from one neighbour", i+1, n, offers)
			}
		}
	})
}

// Pubsub leaves out members behind a relay; offers reach them all the same, and
// travel on from there, once.
func TestOffersCrossRelays(t *testing.T) {
	inMesh(t, 3, Config{}, 30*time.Second, func(m *testMesh) {
		id := func(i int) peer.ID { return m.hosts[i].ID() }
		// 0 - relay - 1 - 2
		m.svcs[0].links.set([]p2p.Neighbour{{ID: id(1), Relayed: true}})
		m.svcs[0].links.now.Store(&linkSet{all: map[peer.ID]bool{}, relayed: []peer.ID{id(1)}})
		m.svcs[1].links.now.Store(&linkSet{all: map[peer.ID]bool{id(0): true, id(2): true}, relayed: []peer.ID{id(0)}})
		m.svcs[2].links.set([]p2p.Neighbour{{ID: id(1)}})
		time.Sleep(5 * time.Second)
		for from := range 3 {
			name := fmt.Sprint("offer from ", from)
			if from != 0 { // 0 answers calls of its neighbour
				m.svcs[0].links.now.Store(&linkSet{all: map[peer.ID]bool{id(1): true}, relayed: []peer.ID{id(1)}})
			}
			if err := m.svcs[from].PublishOffer(m.t.Context(), []byte(name), time.Second, time.Minute); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			for i := range 3 {
				if _, got := m.got[i].Load(name); got == (i == from) {
					t.Errorf("node %d: %s delivered is %v", i, name, got)
				}
			}
		}
		for i, s := range m.svcs {
			if n := s.Stats().Delivered; n != 2 {
				t.Errorf("node %d took %d offers, want 2", i, n)
			}
		}
		if _, err := m.svcs[2].serveDirect(m.t.Context(), id(0), []byte("x")); p2p.RefusalCode(err) != p2p.CodeRights {
			t.Errorf("a direct offer without a link: %v", err)
		}
	})
}

func TestPublishRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMesh(t, 2, Config{})
		time.Sleep(time.Second)
		s, ctx := m.svcs[0], t.Context()
		for name, err := range map[string]error{
			"large offer": s.PublishOffer(ctx, make([]byte, MaxOffer+1), time.Second, time.Second),
			"no radius":   s.PublishOffer(ctx, nil, 0, time.Second),
			"no ttl":      s.PublishOffer(ctx, nil, time.Second, 0),
			"large job":   s.PublishJob(ctx, make([]byte, MaxJob+1)),
			"empty job":   s.PublishJob(ctx, nil),
		} {
			if err == nil {
				t.Errorf("%s: taken", name)
			}
		}
		m.close()
		if err := s.PublishOffer(ctx, []byte("late"), time.Second, time.Second); err == nil {
			t.Error("an offer was taken after the end")
		}
	})
	if _, err := New(nil, Config{OfferRate: -1, JobBurst: -1}); err == nil {
		t.Error("a bad config was taken")
	}
}

// Links that end stop carrying offers, and new ones start, on both sides.
func TestOverlayFollowsTheLinks(t *testing.T) {
	inMesh(t, 12, Config{}, time.Minute, func(m *testMesh) {
		dead := m.nearest(3)[0]
		m.net.Crash(netIP(dead))
		time.Sleep(30 * time.Second)
		for i, s := range m.svcs {
			if i == dead {
				continue
			}
			var mesh []peer.ID
			for _, p := range s.offers.ListPeers() {
				if s.links.has(p) {
					mesh = append(mesh, p)
				}
			}
			ns := m.hosts[i].Neighbours()
			if slices.ContainsFunc(ns, func(n p2p.Neighbour) bool { return m.at[n.ID] == dead }) {
				t.Errorf("node %d keeps a link with the dead", i)
			}
			if len(mesh) != len(ns) {
				t.Errorf("node %d: %d links in pubsub, %d in the neighbourhood", i, len(mesh), len(ns))
			}
		}
		if err := m.svcs[3].PublishOffer(m.t.Context(), []byte("after"), time.Second, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for i := range m.svcs {
			if _, got := m.got[i].Load("after"); got == (i == 3 || i == dead) {
				t.Errorf("node %d: delivered is %v", i, got)
			}
		}
	})
}

// large leaves a mesh of 60 nodes out of a short run: the race detector gives up
// on so many goroutines.
func large(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: 60 whole nodes; go test ./... runs it")
	}
}
