package chaos

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

const (
	sweepMost = 48      // of what was let go of is tried; each try waits for the mesh's word
	roomLeast = 8 << 20 // bytes let go of, to see their room come back; a quarter of the store when that is more
)

// swept collects garbage and tries to read what was let go of.
func (c *chaosClient) swept(ctx context.Context) {
	if _, err := ask(ctx, c.api.GC); err != nil {
		return
	}
	var let []*thing
	for _, t := range c.things {
		if t.let {
			let = append(let, t)
		}
	}
	r := rand.New(rand.NewPCG(c.cfg.Seed, 0))
	r.Shuffle(len(let), func(i, j int) { let[i], let[j] = let[j], let[i] })
	many(let[:min(sweepMost, len(let))], func(t *thing) {
		if ctx.Err() != nil {
			return
		}
		switch b, err := c.cat(ctx, t.id, []string{""}); {
		case err == nil:
			c.write(Entry{Op: Swept, CID: t.id, State: "here", Size: int64(len(b))})
		case notFound(err):
			c.write(Entry{Op: Swept, CID: t.id})
		}
	})
}

// room adds much, lets go of it, and looks at what the disk then holds: also
// while others write to the store, so it collects until the room is there, for
// as long as content may take.
func (c *chaosClient) room(ctx context.Context) {
	used := func() (int64, bool) {
		if _, err := ask(ctx, c.api.GC); err != nil {
			return 0, false
		}
		st, err := ask(ctx, c.api.Status)
		return st.Store.Bytes, err == nil
	}
	e := Entry{Op: Room}
	var ok bool
	if e.Was, ok = used(); !ok {
		return
	}
	e.Added = max(roomLeast, e.Was/4)
	b := noise(int(e.Added), c.cfg.Seed)
	root, err := ask(ctx, func(ctx context.Context) (api.Root, error) {
		return c.api.AddFile(ctx, bytes.NewReader(b), e.Added, api.AddOptions{Pin: true})
	})
	if err == nil {
		err = c.api.Unpin(ctx, tasks.CID(root.CID))
	}
	if err != nil {
		c.fail(fmt.Errorf("add %d bytes and let go of them: %w", e.Added, err))
		return
	}
	patience, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for {
		if e.Size, ok = used(); !ok {
			return
		}
		if e.Size < e.Was+e.Added/2 || patience.Err() != nil {
			break
		}
		wait(patience, 4*again)
	}
	c.write(e)
}
