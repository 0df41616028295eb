// Package memory is an in-memory api.Backend for tests of the API and its
// client. It keeps content in maps and its jobs do nothing by themselves.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// Node implements every ability of an api.Backend.
type Node struct {
	mu       sync.Mutex
	roots    map[tasks.CID]*root
	jobs     []api.Job
	specs    map[tasks.JobID]tasks.Spec
	pins     map[tasks.CID]api.Pin
	invites  []api.Invite
	policy   api.Policy
	events   []api.Event
	watchers map[chan api.Event]struct{}

	NotReady error // what Ready answers
	Stopped  bool  // Stop was called
	Adds     []api.AddOptions
	Log      []api.Log  // what Logs answers
	TaskList []api.Task // what Tasks answers
}

type root struct {
	name  string
	dir   bool
	files map[string]file // "" for a single file
}

type file struct {
	content []byte
	exec    bool
	dir     bool
}

// New returns an empty node.
func New() *Node {
	return &Node{roots: map[tasks.CID]*root{}, specs: map[tasks.JobID]tasks.Spec{}, pins: map[tasks.CID]api.Pin{},
		watchers: map[chan api.Event]struct{}{}, policy: api.Policy{CPU: "50%", Cores: 1, Slots: 1, Memory: 1 << 30, Disk: 1 << 30}}
}

// Backend is n under every ability.
func (n *Node) Backend() api.Backend {
	return api.Backend{Node: n, Peers: n, Invites: n, Data: n, Uploads: n, Pins: n, Archive: n, Submit: n, Jobs: n,
		Results: n, Policy: n, Doctor: n, Events: n, Stop: n}
}

// CIDOf is the raw CIDv1 of some bytes.
func CIDOf(b []byte) tasks.CID {
	sum := sha256.Sum256(b)
	h, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return tasks.CID(cid.NewCidV1(cid.Raw, h).String())
}

// ID implements api.Node.
func (n *Node) ID(context.Context) (api.Identity, error) {
	return api.Identity{Peer: "12D3KooWMemory", Mesh: "memorymesh", Rights: []string{"submit"}, Addresses: []string{}}, nil
}

// Status implements api.Node.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	id, err := n.ID(ctx)
	return api.Status{Identity: id, Version: "test", Ready: n.NotReady == nil,
		Reachability: api.Reachability{State: "loopback", Addresses: []string{}}, Policy: n.policy}, err
}

// Ready implements api.Node.
func (n *Node) Ready(context.Context) error { return n.NotReady }

// Stop implements api.Stopper.
func (n *Node) Stop(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Stopped = true
	return nil
}

// Peers implements api.Peers.
func (n *Node) Peers(context.Context) ([]api.Peer, error) {
	return []api.Peer{{ID: "12D3KooWOther", Connected: true, Path: "lan", RTTMs: 1.5}}, nil
}

// CreateInvite implements api.Invites.
func (n *Node) CreateInvite(_ context.Context, req api.InviteRequest) (api.Invite, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	inv := api.Invite{ID: "inv1", Name: req.Name, Uses: max(1, req.Uses), Rights: []string{"work"}}
	n.invites = append(n.invites, inv)
	inv.Line = "kith1secret"
	return inv, nil
}

// Invites implements api.Invites.
func (n *Node) Invites(context.Context) ([]api.Invite, error) { return n.invites, nil }

// RevokeInvite implements api.Invites.
func (n *Node) RevokeInvite(_ context.Context, id string) error {
	for i := range n.invites {
		if n.invites[i].ID == id {
			n.invites[i].Revoked = true
			return nil
		}
	}
	return api.NotFound("'kith invite ls' lists them", "no invite %q", id)
}

// AddFile implements api.Uploads.
func (n *Node) AddFile(_ context.Context, r io.Reader, opts api.AddOptions) (api.Root, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return api.Root{}, err
	}
	return n.keep(CIDOf(b), &root{name: opts.Name, files: map[string]file{"": {content: b}}}, opts), nil
}

// AddFolder implements api.Uploads.
func (n *Node) AddFolder(_ context.Context, next func() (api.File, error), opts api.AddOptions) (api.Root, error) {
	r := &root{name: opts.Name, dir: true, files: map[string]file{}}
	var all bytes.Buffer
	for {
		f, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return api.Root{}, err
		}
		var b []byte
		if !f.Dir {
			if b, err = io.ReadAll(f.Body); err != nil {
				return api.Root{}, err
			}
		}
		r.files[f.Path] = file{content: b, exec: f.Exec, dir: f.Dir}
		all.WriteString(f.Path + "\x00")
		all.Write(b)
	}
	return n.keep(CIDOf(all.Bytes()), r, opts), nil
}

func (n *Node) keep(c tasks.CID, r *root, opts api.AddOptions) api.Root {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.roots[c] = r
	n.Adds = append(n.Adds, opts)
	if opts.Pin {
		n.pins[c] = api.Pin{CID: string(c), Owner: "user", Name: opts.Name, Audience: opts.Audience}
	}
	return r.describe(c)
}

func (r *root) describe(c tasks.CID) api.Root {
	out := api.Root{CID: string(c), Name: r.name, Dir: r.dir}
	for _, f := range r.files {
		out.Size += int64(len(f.content))
		if !f.dir {
			out.Files++
		}
	}
	return out
}

func (n *Node) find(c tasks.CID) (*root, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r, ok := n.roots[c]; ok {
		return r, nil
	}
	return nil, api.NotFound("is a node that has it up?", "nobody served %s", c)
}

// Stat implements api.Data.
func (n *Node) Stat(_ context.Context, c api.Content) (api.Entry, error) {
	r, err := n.find(c.Root)
	if err != nil {
		return api.Entry{}, err
	}
	if f, ok := r.files[c.Path]; ok && !f.dir {
		return api.Entry{CID: string(c.Root), Size: int64(len(f.content)), Exec: f.exec}, nil
	}
	for name := range r.files {
		if c.Path == "" || name == c.Path || strings.HasPrefix(name, c.Path+"/") {
			return api.Entry{CID: string(c.Root), Dir: true}, nil
		}
	}
	return api.Entry{}, api.NotFound("", "no %s in %s", c.Path, c.Root)
}

// Walk implements api.Data.
func (n *Node) Walk(ctx context.Context, c api.Content, recursive bool, f func(api.Entry) error) error {
	e, err := n.Stat(ctx, c)
	if err != nil {
		return err
	}
	if err := f(e); err != nil || !e.Dir {
		return err
	}
	r, err := n.find(c.Root)
	if err != nil {
		return err
	}
	entries := map[string]api.Entry{}
	for name, fl := range r.files {
		rel := name
		if c.Path != "" {
			var ok bool
			if rel, ok = strings.CutPrefix(name, c.Path+"/"); !ok {
				continue
			}
		}
		for d := path.Dir(rel); d != "."; d = path.Dir(d) {
			entries[d] = api.Entry{Path: d, Dir: true, CID: string(c.Root)}
		}
		entries[rel] = api.Entry{Path: rel, Dir: fl.dir, Exec: fl.exec, Size: int64(len(fl.content)), CID: string(CIDOf(fl.content))}
	}
	sorted := make([]api.Entry, 0, len(entries))
	for _, e := range entries {
		if recursive || !strings.Contains(e.Path, "/") {
			sorted = append(sorted, e)
		}
	}
	slices.SortFunc(sorted, func(a, b api.Entry) int { return cmp.Compare(a.Path, b.Path) })
	for _, e := range sorted {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// Open implements api.Data.
func (n *Node) Open(_ context.Context, c api.Content, offset, length int64) (io.ReadCloser, error) {
	r, err := n.find(c.Root)
	if err != nil {
		return nil, err
	}
	b := r.files[c.Path].content
	if offset > int64(len(b)) || (length >= 0 && offset+length > int64(len(b))) {
		return nil, api.BadRange("span %d+%d", offset, length)
	}
	b = b[offset:]
	if length >= 0 {
		b = b[:length]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Fetch implements api.Data.
func (n *Node) Fetch(_ context.Context, c api.Content, progress func(api.Progress)) (api.Root, error) {
	r, err := n.find(c.Root)
	if err != nil {
		return api.Root{}, err
	}
	out := r.describe(c.Root)
	if progress != nil {
		progress(api.Progress{Done: out.Size, Total: out.Size})
	}
	return out, nil
}

// Pin implements api.Pins.
func (n *Node) Pin(_ context.Context, c tasks.CID, keep time.Duration) (api.Root, error) {
	r, err := n.find(c)
	if err != nil {
		return api.Root{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pins[c] = api.Pin{CID: string(c), Owner: "user"}
	return r.describe(c), nil
}

// Unpin implements api.Pins.
func (n *Node) Unpin(_ context.Context, c tasks.CID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.pins[c]; !ok {
		return api.NotFound("'kith pin ls' lists pins", "%s is not pinned", c)
	}
	delete(n.pins, c)
	return nil
}

// Pins implements api.Pins.
func (n *Node) Pins(context.Context) ([]api.Pin, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []api.Pin
	for _, p := range n.pins {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b api.Pin) int { return cmp.Compare(a.CID, b.CID) })
	return out, nil
}

// GC implements api.Pins.
func (n *Node) GC(context.Context) (api.GCReport, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var rep api.GCReport
	for c := range n.roots {
		if _, ok := n.pins[c]; ok {
			rep.Kept++
			continue
		}
		delete(n.roots, c)
		rep.Blocks++
	}
	return rep, nil
}

const carHead = "memory car\n"

// ExportCAR implements api.Archive: a head and the first file's bytes.
func (n *Node) ExportCAR(_ context.Context, c tasks.CID, w io.Writer) error {
	r, err := n.find(c)
	if err != nil {
		return err
	}
	_, err = w.Write(append([]byte(carHead), r.files[""].content...))
	return err
}

// ImportCAR implements api.Archive.
func (n *Node) ImportCAR(ctx context.Context, r io.Reader, opts api.AddOptions) ([]api.Root, error) {
	head := make([]byte, len(carHead))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != carHead {
		return nil, api.Invalid("", "not a CAR")
	}
	root, err := n.AddFile(ctx, r, opts)
	return []api.Root{root}, err
}

// Policy implements api.Policies.
func (n *Node) Policy(context.Context) (api.Policy, error) { return n.policy, nil }

// Pause implements api.Policies.
func (n *Node) Pause(_ context.Context, d time.Duration) (api.Policy, error) {
	n.policy.Paused, n.policy.Until = true, time.Time{}
	if d > 0 {
		n.policy.Until = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Add(d)
	}
	return n.policy, nil
}

// Resume implements api.Policies.
func (n *Node) Resume(context.Context) (api.Policy, error) {
	n.policy.Paused, n.policy.Until = false, time.Time{}
	return n.policy, nil
}

// Doctor implements api.Doctor.
func (n *Node) Doctor(context.Context) ([]api.Check, error) {
	return []api.Check{{Name: "clock", State: api.CheckOK, Detail: "fine"}, {Name: "relay", State: api.CheckSkipped, Detail: "no peers"}}, nil
}

// jobID is a whole ID made from text.
func jobID(text string) tasks.JobID {
	sum := sha256.Sum256([]byte(text))
	return tasks.JobID(strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])))
}
