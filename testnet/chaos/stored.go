package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet"
)

const (
	leaf  = 1 << 10 // bytes of a block in these scenes
	large = 4200    // such blocks of one root: more than are indexed in one transaction
)

// add adds content at a node, or has the node fetch and pin it, and writes down
// what it is.
func (s *stage) add(ctx context.Context, p *testnet.Process, b []byte, call func(context.Context) (string, error)) (*thing, error) {
	c, sum := s.clients[p], sha256.Sum256(b)
	w := Want{Kind: WantAdd}
	key := c.intend(&w, Entry{Sum: hex.EncodeToString(sum[:])})
	e, ok := c.once(ctx, key, func(ctx context.Context) (Entry, error) {
		id, err := call(ctx)
		return Entry{CID: id}, err
	})
	if !ok {
		return nil, errors.New("add or pin: " + e.Text)
	}
	return c.keep(w, key, e.CID), nil
}

func (s *stage) addFile(ctx context.Context, p *testnet.Process, b []byte, audience api.Audience) (*thing, error) {
	return s.add(ctx, p, b, func(ctx context.Context) (string, error) {
		root, err := s.clients[p].api.AddFile(ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Pin: true, Chunk: leaf, Audience: audience})
		return root.CID, err
	})
}

// passedOn: what one node added and another pinned a third one reads from the
// second, after both have died and the first stays away.
func (s *stage) passedOn(ctx context.Context) error {
	first, second, third := s.nodes[0], s.nodes[1], s.nodes[2]
	b := noise(large*leaf, s.Seed)
	added, err := s.addFile(ctx, first, b, api.AudienceMesh)
	if err != nil {
		return err
	}
	if err := s.restart(ctx, first, ""); err != nil {
		return err
	}
	if _, err := s.add(ctx, second, b, func(ctx context.Context) (string, error) {
		root, err := s.clients[second].api.Pin(ctx, tasks.CID(added.id), 0)
		return root.CID, err
	}); err != nil {
		return err
	}
	if err := errors.Join(s.down(first), s.down(second), s.up(second, "")); err != nil {
		return err
	}
	if err := s.met(ctx, second, third); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, sceneTime)
	defer cancel()
	s.clients[third].read(patience, added, added.id, []string{""}, 1<<30)
	return s.start(ctx, "", first)
}

// letGo: of two files that share a block, the one that the mesh may read is let go
// of and collected. What is left is a job's, and no member gets the block any more.
func (s *stage) letGo(ctx context.Context) error {
	at, other := s.nodes[0], s.nodes[2]
	c := s.clients[at]
	block := noise(leaf, s.Seed+1)
	both := slices.Concat(block, noise(leaf, s.Seed+2))
	kept, err := s.addFile(ctx, at, slices.Concat(block, noise(leaf, s.Seed+3)), api.AudienceJob)
	if err != nil {
		return err
	}
	let, err := s.addFile(ctx, at, both, api.AudienceMesh)
	if err != nil {
		return err
	}
	if _, ok := c.once(ctx, c.intend(&Want{Kind: WantUnpin}, Entry{CID: let.id}), func(ctx context.Context) (Entry, error) {
		return Entry{CID: let.id}, c.api.Unpin(ctx, tasks.CID(let.id))
	}); !ok {
		return errors.New("not unpinned")
	}
	if _, err := c.api.GC(ctx); err != nil {
		return err
	}
	if err := s.restart(ctx, at, ""); err != nil {
		return err
	}
	c.look(ctx, kept)
	e := Entry{Op: Given, CID: rawCID(block)}
	if err := s.until(ctx, "an answer to who asks for the block", func(ctx context.Context) (bool, error) {
		_, err := s.clients[other].cat(ctx, e.CID, []string{""})
		if err == nil {
			e.State = "yes"
		}
		return err == nil || notFound(err), err
	}); err != nil {
		return err
	}
	return s.log.Append(e)
}

// rawCID is the CID of a block of bytes: version 1, raw, SHA-256.
func rawCID(b []byte) string {
	sum := sha256.Sum256(b)
	return "b" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(append([]byte{1, 0x55, 0x12, 0x20}, sum[:]...)))
}
