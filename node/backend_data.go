package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
)

// uploadKeeps is how long an upload that nobody pinned stays, unless asked
// otherwise: time enough to submit the job that it is for.
const uploadKeeps = time.Hour

const ownerUpload storage.Owner = "upload"

// dataBackend serves content. It implements api.Data, api.Uploads, api.Pins and
// api.Archive.
type dataBackend struct {
	store    *storage.Store
	transfer *transfer.Service
	scratch  string // for folders on their way into the store
	now      func() time.Time
	settling func() bool // members that are known are still being dialled; nil: never
	connect  func(context.Context, peer.AddrInfo) error
}

// parseCID reads a CID that a user gave.
func parseCID(c tasks.CID) (cid.Cid, error) {
	out, err := cid.Decode(string(c))
	if err != nil {
		return out, api.Invalid("a CID looks like bafybei…; kith add prints it", "%q is not a CID: %v", c, err)
	}
	if err := storage.CheckCID(out); err != nil {
		return out, api.Invalid("", "%v", err)
	}
	return out, nil
}

// dataError gives the store's errors their place in the API.
func dataError(err error) error {
	var known *api.Error
	var hurt *damagedError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &hurt):
		return api.NotFound(mendFix, "%v", err)
	case errors.Is(err, storage.ErrSpan):
		return api.BadRange("%v", err)
	case errors.Is(err, storage.ErrIsDir):
		return api.Invalid("name a file inside it, or use kith get", "%v", err)
	case errors.Is(err, storage.ErrNotDir):
		return api.NotFound("", "%v", err)
	case isFull(err):
		return api.Full(tasks.OK, "%v", err)
	case errors.Is(err, storage.ErrNoPath):
		return api.NotFound("kith ls shows what the folder holds", "%v", err)
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrIncomplete), errors.Is(err, transfer.ErrUnavailable):
		return api.NotFound("no connected peer has it; kith peers shows who is there", "%v", err)
	case errors.Is(err, storage.ErrNode), errors.Is(err, storage.ErrEscape):
		return api.Invalid("", "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return api.Unavailable("no peer served it in time; kith peers shows who is there", "%v", err)
	}
	return err
}

// bring fetches what the span needs and is not here.
func (d *dataBackend) bring(ctx context.Context, span storage.Span, from []string, progress func(api.Progress)) error {
	var tell func(done, total int64)
	if progress != nil {
		tell = func(done, total int64) { progress(api.Progress{Done: done, Total: max(total, 0)}) }
	}
	_, err := d.ask(ctx, span, from, func(want transfer.Want) error { return d.transfer.Fetch(ctx, want, tell) })
	return err
}

// ask calls f with whom to ask for a span, unless it is here. While members that
// are known are still being dialled, it calls it again when nobody has the span.
func (d *dataBackend) ask(ctx context.Context, span storage.Span, from []string, f func(transfer.Want) error) (here bool, err error) {
	hints, err := parsePeers(from)
	if err != nil {
		return false, err
	}
	if here, err := d.store.CompleteSpan(ctx, span); here || err != nil && !lost(err) || errors.Is(err, storage.ErrNoPath) {
		return here, err
	}
	want := transfer.Want{Root: span.Root, Path: span.Path, Offset: span.Offset, Length: span.Length}
	if want.From, err = d.reach(ctx, hints); err != nil {
		return false, err
	}
	defer func() { err = d.hurt(ctx, span.Root, err) }()
	err = f(want)
	if d.settling == nil || !errors.Is(err, transfer.ErrUnavailable) {
		return false, err
	}
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for last := false; errors.Is(err, transfer.ErrUnavailable) && !last; {
		last = !d.settling()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, errors.Join(err, ctx.Err())
		}
		err = f(want)
	}
	return false, err
}

// parsePeers reads the peers that a user named.
func parsePeers(from []string) ([]peer.AddrInfo, error) {
	addrs := make([]ma.Multiaddr, 0, len(from))
	for _, text := range from {
		a, err := ma.NewMultiaddr(text)
		if err == nil {
			_, err = peer.AddrInfoFromP2pAddr(a)
		}
		if err != nil {
			return nil, api.Invalid("write it as /ip4/192.0.2.1/tcp/4001/p2p/ID; 'ipfs id' and 'kith id' print such lines", "from: %q names no peer: %v", text, err)
		}
		addrs = append(addrs, a)
	}
	return peer.AddrInfosFromP2pAddrs(addrs...)
}

// reach connects to peers that a user named, members or not. One that answers
// is enough.
func (d *dataBackend) reach(ctx context.Context, peers []peer.AddrInfo) (ids []peer.ID, err error) {
	var failed []error
	for _, p := range peers {
		if err := d.connect(ctx, p); err != nil && !errors.Is(err, p2p.ErrStranger) {
			failed = append(failed, err)
			continue
		}
		ids = append(ids, p.ID)
	}
	if len(ids) == 0 && len(failed) > 0 {
		return nil, api.Unavailable("look at the address, and whether that node runs", "%v", errors.Join(failed...))
	}
	return ids, nil
}

// Just after its start a node is not yet connected to all whom it knows, and one
// of them may have what is asked for.
const (
	settleTime  = 10 * time.Second
	settleEvery = 250 * time.Millisecond
)

// settling reports whether this node has just started and knows members that it
// has not reached yet.
func (n *Node) settling() bool {
	if time.Since(n.began) > settleTime {
		return false
	}
	for _, id := range n.host.Raw().Peerstore().PeersWithAddrs() {
		if id != n.host.ID() && !n.host.IsMember(id) {
			return true
		}
	}
	return false
}

func (d *dataBackend) Stat(ctx context.Context, c api.Content) (api.Entry, error) {
	e, err := d.stat(ctx, c)
	return entryOf(e, c.Path), dataError(err)
}

func (d *dataBackend) stat(ctx context.Context, c api.Content) (storage.Entry, error) {
	root, err := parseCID(c.Root)
	if err != nil {
		return storage.Entry{}, err
	}
	defer d.store.Use(root)()
	e, err := d.store.Stat(ctx, root, c.Path)
	if lost(err) {
		if err = d.bring(ctx, storage.Span{Root: root, Path: c.Path, Length: 0}, c.From, nil); err == nil {
			e, err = d.store.Stat(ctx, root, c.Path)
		}
	}
	return e, err
}

func entryOf(e storage.Entry, path string) api.Entry {
	return api.Entry{Path: e.Path, CID: e.CID.String(), Size: e.Size, Dir: e.Type == storage.Folder, Link: e.Target}
}

func (d *dataBackend) Walk(ctx context.Context, c api.Content, recursive bool, f func(api.Entry) error) error {
	root, err := parseCID(c.Root)
	if err != nil {
		return err
	}
	defer d.store.Use(root)()
	if recursive {
		if err := d.bring(ctx, storage.Span{Root: root, Path: c.Path, Length: -1}, c.From, nil); err != nil {
			return dataError(err)
		}
		return dataError(d.store.Walk(ctx, root, c.Path, func(e storage.Entry) error { return f(entryOf(e, c.Path)) }))
	}
	self, err := d.stat(ctx, c)
	if err != nil {
		return dataError(err)
	}
	self.Path = ""
	if err := f(entryOf(self, c.Path)); err != nil || self.Type != storage.Folder {
		return err
	}
	entries, err := d.store.Ls(ctx, root, c.Path)
	if err != nil {
		// A folder whose own nodes are many may be here in part only.
		if err = d.bring(ctx, storage.Span{Root: root, Path: c.Path, Length: 0}, c.From, nil); err == nil {
			entries, err = d.store.Ls(ctx, root, c.Path)
		}
	}
	if err != nil {
		return dataError(err)
	}
	for _, e := range entries {
		if err := f(entryOf(e, c.Path)); err != nil {
			return err
		}
	}
	return nil
}

// Open reads what is here from the store. What is not is read and stored as it
// comes; but when blocks are known to be damaged, whether anybody has them is told
// before the first byte.
func (d *dataBackend) Open(ctx context.Context, c api.Content, offset, length int64) (io.ReadCloser, error) {
	root, err := parseCID(c.Root)
	if err != nil {
		return nil, err
	}
	defer d.store.Use(root)()
	span := storage.Span{Root: root, Path: c.Path, Offset: offset, Length: length}
	if damageUnder(ctx, d.store, map[cid.Cid]bool{root: true}) != "" {
		if err := d.bring(ctx, span, c.From, nil); err != nil {
			return nil, dataError(err)
		}
	}
	var r io.ReadCloser
	here, err := d.ask(ctx, span, c.From, func(want transfer.Want) error {
		got, err := d.transfer.OpenFetch(ctx, want)
		if err == nil {
			r = &arriving{got, ctx, d, root}
		}
		return err
	})
	if here {
		r, err = d.openMended(ctx, span)
	}
	return r, dataError(err)
}

// arriving says of what it could not read which blocks are damaged here.
type arriving struct {
	io.ReadCloser
	ctx  context.Context
	d    *dataBackend
	root cid.Cid
}

func (a *arriving) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	return n, a.d.hurt(a.ctx, a.root, err)
}

// WriteTo spares io.Copy a buffer and a copy.
func (a *arriving) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, a.ReadCloser)
	return n, a.d.hurt(a.ctx, a.root, err)
}

func (d *dataBackend) Fetch(ctx context.Context, c api.Content, progress func(api.Progress)) (api.Root, error) {
	root, err := parseCID(c.Root)
	if err != nil {
		return api.Root{}, err
	}
	if err := d.bring(ctx, storage.Span{Root: root, Path: c.Path, Length: -1}, c.From, progress); err != nil {
		return api.Root{}, dataError(err)
	}
	e, err := d.store.Stat(ctx, root, c.Path)
	if err != nil {
		return api.Root{}, dataError(err)
	}
	out := api.Root{CID: e.CID.String()}
	if out.Size, out.Files, out.Dir, err = measure(ctx, d.store, e.CID); err != nil {
		return api.Root{}, dataError(err)
	}
	if r, err := d.store.Root(ctx, e.CID); err == nil {
		out.Name = r.Name
	}
	return out, nil
}

// addOptions says how the store keeps an upload.
func (d *dataBackend) addOptions(o api.AddOptions) (storage.AddOptions, error) {
	out := storage.AddOptions{Name: o.Name, ChunkSize: o.Chunk, Owner: storage.User}
	if o.Audience == "" {
		o.Audience = api.AudienceMesh
	}
	var err error
	if out.Audience, err = storage.ParseAudience(string(o.Audience)); err != nil {
		return out, api.Invalid("", "audience: %v", err)
	}
	if !o.Pin {
		keep := o.Keep
		if keep <= 0 {
			keep = uploadKeeps
		}
		out.Owner, out.Until = ownerUpload, d.now().Add(keep)
	}
	return out, nil
}

func (d *dataBackend) added(ctx context.Context, r storage.Root) (api.Root, error) {
	e, err := d.store.Stat(ctx, r.CID, "")
	if err != nil {
		return api.Root{}, dataError(err)
	}
	d.transfer.ProvideSoon()
	return api.Root{CID: r.CID.String(), Name: r.Name, Size: r.Size, Files: int64(r.Files), Dir: e.Type == storage.Folder}, nil
}

func (d *dataBackend) AddFile(ctx context.Context, r io.Reader, opts api.AddOptions) (api.Root, error) {
	o, err := d.addOptions(opts)
	if err != nil {
		return api.Root{}, err
	}
	root, err := d.store.AddReader(ctx, r, o)
	if err != nil {
		return api.Root{}, dataError(err)
	}
	return d.added(ctx, root)
}

// AddFolder writes the files to a scratch folder first: a folder's order and
// links are known only at its end.
func (d *dataBackend) AddFolder(ctx context.Context, next func() (api.File, error), opts api.AddOptions) (_ api.Root, err error) {
	o, err := d.addOptions(opts)
	if err != nil {
		return api.Root{}, err
	}
	dir, err := os.MkdirTemp(d.scratch, "upload-")
	if err != nil {
		return api.Root{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	top, err := os.OpenRoot(dir)
	if err != nil {
		return api.Root{}, err
	}
	defer top.Close()
	usage, err := d.store.Usage(ctx)
	if err != nil {
		return api.Root{}, err
	}
	left := usage.Max // what could never be stored is not taken in
	for {
		f, err := next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return api.Root{}, err
		}
		if usage.Max > 0 && !f.Dir {
			f.Body = &bounded{r: f.Body, left: &left, limit: usage.Max}
		}
		if err := writeUpload(top, f); err != nil {
			return api.Root{}, dataError(fmt.Errorf("%s: %w", f.Path, err))
		}
	}
	root, err := d.store.AddPath(ctx, dir, o)
	if err != nil {
		return api.Root{}, dataError(err)
	}
	return d.added(ctx, root)
}

// bounded reads up to what is left for a whole folder.
type bounded struct {
	r     io.Reader
	left  *int64
	limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if *b.left -= int64(n); *b.left < 0 {
		return n, fmt.Errorf("the folder is larger than the limit of %d bytes: %w", b.limit, storage.ErrFull)
	}
	return n, err
}

func writeUpload(top *os.Root, f api.File) error {
	name := filepath.FromSlash(f.Path)
	if f.Dir {
		return top.MkdirAll(name, 0o700)
	}
	if err := top.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if f.Exec {
		mode = 0o700
	}
	out, err := top.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, f.Body)
	return errors.Join(err, out.Close())
}

func (d *dataBackend) Pin(ctx context.Context, root tasks.CID, keep time.Duration) (api.Root, error) {
	r, err := d.Fetch(ctx, api.Content{Root: root}, nil)
	if err != nil {
		return r, err
	}
	c, err := parseCID(root)
	if err != nil {
		return r, err
	}
	var until time.Time
	if keep > 0 {
		until = d.now().Add(keep)
	}
	if err := d.store.Pin(ctx, c, storage.User, until); err != nil {
		return r, dataError(err)
	}
	d.transfer.ProvideSoon()
	return r, nil
}

func (d *dataBackend) Unpin(ctx context.Context, root tasks.CID) error {
	c, err := parseCID(root)
	if err != nil {
		return err
	}
	var gone error
	for _, owner := range []storage.Owner{storage.User, ownerUpload} {
		err := d.store.Unpin(ctx, c, owner)
		if err == nil {
			return nil
		}
		gone = err
	}
	if errors.Is(gone, storage.ErrNotFound) {
		return api.NotFound("kith ls lists what is pinned; what a job keeps goes with the job", "%s is not pinned by you", root)
	}
	return gone
}

func (d *dataBackend) Pins(ctx context.Context) ([]api.Pin, error) {
	pins, err := d.store.Pins(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Pin, 0, len(pins))
	for _, p := range pins {
		pin := api.Pin{CID: p.Root.String(), Owner: string(p.Owner), Until: p.Until}
		if r, err := d.store.Root(ctx, p.Root); err == nil {
			pin.Name, pin.Size, pin.Audience = r.Name, r.Size, api.Audience(r.Audience.String())
		}
		if pin.Size == 0 { // not known of what was fetched
			if e, err := d.store.Stat(ctx, p.Root, ""); err == nil && e.Type == storage.File {
				pin.Size = e.Size
			}
		}
		out = append(out, pin)
	}
	slices.SortFunc(out, func(a, b api.Pin) int {
		return slices.Compare([]string{a.Owner, a.Name, a.CID}, []string{b.Owner, b.Name, b.CID})
	})
	return out, nil
}

func (d *dataBackend) GC(ctx context.Context) (api.GCReport, error) {
	r, err := d.store.GC(ctx)
	return api.GCReport{Blocks: int64(r.Removed), Bytes: r.Freed, Kept: int64(r.Kept)}, err
}

func (d *dataBackend) ExportCAR(ctx context.Context, root tasks.CID, w io.Writer) error {
	c, err := parseCID(root)
	if err != nil {
		return err
	}
	defer d.store.Use(c)()
	if err := d.bring(ctx, storage.Whole(c), nil, nil); err != nil {
		return dataError(err)
	}
	return dataError(d.store.ExportCAR(ctx, c, w))
}

func (d *dataBackend) ImportCAR(ctx context.Context, r io.Reader, opts api.AddOptions) ([]api.Root, error) {
	o, err := d.addOptions(opts)
	if err != nil {
		return nil, err
	}
	roots, err := d.store.ImportCAR(ctx, r, storage.ImportOptions{Name: o.Name, Audience: o.Audience, Owner: o.Owner, Until: o.Until})
	if err != nil {
		return nil, dataError(err)
	}
	out := make([]api.Root, 0, len(roots))
	for _, r := range roots {
		root, err := d.added(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, root)
	}
	return out, nil
}
