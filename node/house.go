package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/kith-mesh/kith/node/policy"
)

const (
	houseTurn = 30 * time.Second
	roomTurn  = 5 * time.Second // looks at the room on the disk
	gcAbove   = 0.9             // of the disk that the owner allows
	gcRest    = 10 * time.Minute
	gcCrowded = time.Minute // at the least between collections for lack of room
)

// keepHouse looks whether there is room, ends pauses whose time has come, lets go
// of inputs that were fetched for tasks, and collects blocks before the store is
// full, or when it is.
func (n *Node) keepHouse(ctx context.Context) error {
	tick := time.NewTicker(houseTurn)
	defer tick.Stop()
	look := time.NewTicker(roomTurn)
	defer look.Stop()
	var collected time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			_ = n.room() // it tells who must know
		case <-n.crowded:
			if time.Since(collected) > gcCrowded {
				n.gc(ctx)
				collected = time.Now()
			}
		case <-tick.C:
			n.endPause(ctx)
			n.data.inUse.sweep(time.Now())
			if time.Since(collected) > gcRest && n.collect(ctx) {
				collected = time.Now()
			}
		}
	}
}

// endPause resumes work when a pause has lasted its time.
func (n *Node) endPause(ctx context.Context) {
	over := func(p policy.Policy) bool { return p.Paused && !p.PausedAt(n.cfg.Now()) }
	if !over(n.currentPolicy()) {
		return
	}
	err := n.changePolicy(ctx, func(p policy.Policy) (policy.Policy, error) {
		if over(p) {
			p = p.Resume()
		}
		return p, nil
	})
	if err != nil && ctx.Err() == nil {
		n.log.Error("pause could not be ended", "err", err)
	}
}

// collect collects blocks if the store is nearly full, and reports whether it
// tried.
func (n *Node) collect(ctx context.Context) bool {
	use, err := n.store.Usage(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Error("store usage not read", "err", err)
		}
		return false
	}
	if use.Max <= 0 || float64(use.Bytes) <= gcAbove*float64(use.Max) {
		return false
	}
	n.gc(ctx)
	return true
}

// gc collects blocks.
func (n *Node) gc(ctx context.Context) {
	r, err := n.store.GC(ctx)
	if err != nil && ctx.Err() == nil {
		n.log.Error("collection failed", "err", err)
	} else if err == nil {
		n.log.Info("collected", "blocks", r.Removed, "bytes", r.Freed)
	}
}

// up runs when all services are: it writes what others wait for and tells.
func (n *Node) up() error {
	s := Started{Mesh: string(n.member.mesh), Peer: n.member.id.String(), Invites: n.mayInvite()}
	for _, a := range n.host.Raw().Addrs() {
		s.Listen = append(s.Listen, a.String())
	}
	if n.api != nil {
		a, err := n.api.Listen()
		if err != nil {
			return err
		}
		s.API = a.String()
		if n.cfg.InviteOut != "" {
			if err := n.writeInvite(n.cfg.InviteOut); err != nil {
				return err
			}
		}
	}
	close(n.ready)
	if n.cfg.Notify != nil {
		n.cfg.Notify(s)
	}
	return nil
}

// serveAPI serves the local API and says where, for as long as it does.
func (n *Node) serveAPI(ctx context.Context) (err error) {
	a, err := n.api.Listen()
	if err != nil {
		return err
	}
	if err := n.cfg.Home.writeAPIAddress(a.String()); err != nil {
		return err
	}
	close(n.served)
	defer func() {
		if rm := os.Remove(n.cfg.Home.APIFile()); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove %s: %w", n.cfg.Home.APIFile(), rm))
		}
	}()
	return n.api.Run(ctx)
}
