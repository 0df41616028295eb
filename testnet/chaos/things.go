package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// add keeps some bytes at the node.
func (c *chaosClient) add(ctx context.Context, r *rand.Rand) {
	b := noise(100+r.IntN(300<<10), r.Uint64())
	sum := sha256.Sum256(b)
	w := Want{Kind: WantAdd}
	key := c.intend(&w, Entry{Sum: hex.EncodeToString(sum[:])})
	e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
		root, err := c.api.AddFile(ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Pin: true, Name: key})
		return Entry{CID: root.CID}, err
	})
	if ok {
		c.keep(w, key, e.CID)
	}
}

// unpin lets go of something added.
func (c *chaosClient) unpin(ctx context.Context, r *rand.Rand) {
	t := c.pick(r, func(t *thing) bool { return t.want.Kind == WantAdd && !t.gone })
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return
	}
	t.gone = true // from now on it may be
	_, t.let = c.once(ctx, c.intend(&Want{Kind: WantUnpin}, Entry{CID: t.id}), func(ctx context.Context) (Entry, error) {
		return Entry{CID: t.id}, c.api.Unpin(ctx, tasks.CID(t.id))
	})
}

// invite makes an invite, or withdraws one.
func (c *chaosClient) invite(ctx context.Context, r *rand.Rand) {
	t := c.pick(r, func(t *thing) bool { return t.want.Kind == WantInvite && !t.gone })
	if t == nil || r.IntN(2) == 0 {
		w := Want{Kind: WantInvite}
		key := c.intend(&w, Entry{})
		e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
			i, err := c.api.CreateInvite(ctx, api.InviteRequest{Name: key, Local: true})
			return Entry{CID: i.ID}, err
		})
		if ok {
			c.keep(w, key, e.CID)
		}
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = true
	c.once(ctx, c.intend(&Want{Kind: WantRevoke}, Entry{CID: t.id}), func(ctx context.Context) (Entry, error) {
		return Entry{CID: t.id}, c.api.RevokeInvite(ctx, t.id)
	})
}

// pause pauses or resumes the node, or leaves it as it is, and asks.
func (c *chaosClient) pause(ctx context.Context, r *rand.Rand) {
	c.owner.Lock()
	defer c.owner.Unlock()
	switch r.IntN(3) {
	case 0:
		c.set(ctx, WantPause)
	case 1:
		c.set(ctx, WantResume)
	}
	c.policy(ctx)
}

// set has the node pause or go on.
func (c *chaosClient) set(ctx context.Context, kind Kind) {
	c.once(ctx, c.intend(&Want{Kind: kind}, Entry{}), func(ctx context.Context) (Entry, error) {
		if kind == WantResume {
			_, err := c.api.Resume(ctx)
			return Entry{}, err
		}
		_, err := c.api.Pause(ctx, time.Hour)
		return Entry{}, err
	})
}

func (c *chaosClient) policy(ctx context.Context) {
	if p, err := ask(ctx, c.api.Policy); err == nil {
		state := "running"
		if p.Paused {
			state = "paused"
		}
		c.write(Entry{Op: Setting, State: state})
	}
}

// look asks again about something acknowledged.
func (c *chaosClient) look(ctx context.Context, t *thing) {
	switch t.want.Kind {
	case WantJob:
		t.mu.Lock()
		gone, old := t.gone, t.want.Brief && time.Since(t.over) > briefRead
		t.mu.Unlock()
		switch {
		case gone:
			c.back(ctx, t)
		case !old && c.see(ctx, t, true):
			c.content(ctx, t)
		}
	case WantAdd:
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.gone {
			c.read(ctx, t, t.id, []string{""}, 1<<30)
		}
	case WantInvite:
		c.listed(ctx, t)
	}
}

func (c *chaosClient) listed(ctx context.Context, t *thing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, err := ask(ctx, c.api.Invites)
	if err != nil {
		return
	}
	i := slices.IndexFunc(list, func(i api.Invite) bool { return i.ID == t.id })
	switch {
	case i < 0:
		c.write(Entry{Op: Gone, CID: t.id})
	case list[i].Revoked:
		c.write(Entry{Op: Listed, CID: t.id, State: "revoked"})
	default:
		c.write(Entry{Op: Listed, CID: t.id, State: "open"})
	}
}

// noise is content that nothing else has.
func noise(size int, seed uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}
