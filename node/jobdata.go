package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
	"github.com/kith-mesh/kith/tasks/wire"
)

// jobOwner pins what a job needs and made at its origin; workOwner what a
// worker made for it.
func jobOwner(job tasks.JobID) storage.Owner  { return storage.Owner("job:" + string(job)) }
func workOwner(job tasks.JobID) storage.Owner { return storage.Owner("work:" + string(job)) }

// jobData is the store as jobs need it. It implements market.Data.
type jobData struct {
	store    *storage.Store
	transfer *transfer.Service
	inUse    inUse
	workOver func(tasks.JobID) error // called when this node has no work on a job any more; may be nil
}

// fetcherKeeps is how long what was fetched for tasks is kept from the
// collector after it was last asked for.
const fetcherKeeps = 10 * time.Minute

// inUse keeps fetched inputs from the collector for a while.
type inUse struct {
	mu    sync.Mutex
	roots map[cid.Cid]*used
}

type used struct {
	release func()
	last    time.Time
}

// touch keeps root until sweep.
func (u *inUse) touch(store *storage.Store, root cid.Cid, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.roots == nil {
		u.roots = map[cid.Cid]*used{}
	}
	if r := u.roots[root]; r != nil {
		r.last = now
	} else {
		u.roots[root] = &used{release: store.Use(root), last: now}
	}
}

// sweep lets go of what was not touched for long.
func (u *inUse) sweep(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c, r := range u.roots {
		if now.Sub(r.last) > fetcherKeeps {
			r.release()
			delete(u.roots, c)
		}
	}
}

func decode(c tasks.CID) (cid.Cid, error) {
	out, err := cid.Decode(string(c))
	if err != nil {
		return out, fmt.Errorf("%q is not a CID: %w", c, err)
	}
	return out, nil
}

// jobStall is how long a job waits for somebody who gives next to nothing.
const jobStall = 2 * time.Minute

// Fetch brings a span's blocks here.
func (d *jobData) Fetch(ctx context.Context, span tasks.Span, from []peer.ID, ticket []byte) error {
	root, err := decode(span.Root)
	if err != nil {
		return err
	}
	d.inUse.touch(d.store, root, time.Now())
	want := transfer.Want{Root: root, Path: span.Path, Offset: span.Offset, Length: span.Length, From: from, Ticket: ticket, Stall: jobStall}
	return badSpan(d.transfer.Fetch(ctx, want, nil))
}

// badSpan blames the job for a span that its file does not have.
func badSpan(err error) error {
	for _, fault := range spanFaults {
		if errors.Is(err, fault) {
			return fmt.Errorf("%w: %w", market.ErrBadSpan, err)
		}
	}
	return err
}

// Cached reports whether all of root is here.
func (d *jobData) Cached(ctx context.Context, root tasks.CID) bool {
	c, err := decode(root)
	return err == nil && d.store.Complete(ctx, c)
}

// Files lists the files under root.
func (d *jobData) Files(ctx context.Context, root tasks.CID) ([]tasks.File, error) {
	c, err := decode(root)
	if err != nil {
		return nil, err
	}
	var files []tasks.File
	err = d.store.Walk(ctx, c, "", func(e storage.Entry) error {
		if e.Type == storage.File {
			files = append(files, tasks.File{Path: e.Path, Size: e.Size})
		}
		return nil
	})
	return files, err
}

// Open reads a span.
func (d *jobData) Open(ctx context.Context, span tasks.Span) (io.ReadCloser, error) {
	c, err := decode(span.Root)
	if err != nil {
		return nil, err
	}
	r, err := d.store.Open(ctx, c, span.Path, span.Offset, span.Length)
	if err != nil {
		return nil, lossOf(err)
	}
	return lossy{r}, nil
}

// nothing is the CID of no bytes.
var nothing = func() cid.Cid {
	c, err := storage.SumBytes(nil)
	if err != nil {
		panic(err) // SHA-256 is always there
	}
	return c
}()

// Hold makes an output durable here and keeps it for the job.
func (d *jobData) Hold(ctx context.Context, h market.HoldRequest) (market.Held, error) {
	root, err := decode(h.Output)
	if err != nil {
		return market.Held{}, fmt.Errorf("%w: %w", market.ErrBadOutput, err)
	}
	defer d.store.Use(root)()
	switch {
	case int64(len(h.Inline)) > h.Limit && h.Limit > 0:
		return market.Held{}, tooLarge(int64(len(h.Inline)), h.Limit)
	case h.Inline != nil, root == nothing: // no bytes are to be fetched
		if err := d.PutAll(ctx, h.Job, []wire.Blob{{CID: h.Output, Data: h.Inline}})[0]; err != nil {
			return market.Held{}, err
		}
		return market.Held{Output: h.Output, Size: int64(len(h.Inline))}, nil
	case !d.store.Complete(ctx, root):
		if h.From == "" {
			return market.Held{}, fmt.Errorf("output %s was made here and is not whole: %w", h.Output, storage.ErrIncomplete)
		}
		want := transfer.Want{Root: root, Length: -1, From: []peer.ID{h.From}, Ticket: h.Ticket, Stall: jobStall}
		if h.Limit > 0 { // with room for the blocks that only name others
			want.Limit = h.Limit + h.Limit/8 + 1<<20
		}
		if err := d.transfer.Fetch(ctx, want, nil); err != nil {
			var r *p2p.Refusal
			switch {
			case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
				return market.Held{}, err
			case errors.Is(err, transfer.ErrTooLarge):
				return market.Held{}, fmt.Errorf("%w: %w", market.ErrOutputTooLarge, err)
			case errors.Is(err, transfer.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.As(err, &r),
				errors.Is(err, storage.ErrNode), errors.Is(err, storage.ErrCorrupt):
				return market.Held{}, fmt.Errorf("%w: %w", market.ErrBadOutput, err)
			}
			return market.Held{}, err // a full disk is not its worker's fault
		}
	}
	size, _, folder, err := measure(ctx, d.store, root)
	switch {
	case h.From != "" && errors.Is(err, storage.ErrNode): // more entries than anything has
		return market.Held{}, fmt.Errorf("%w: %w", market.ErrBadOutput, err)
	case err != nil:
		return market.Held{}, err
	case size > h.Limit && h.Limit > 0:
		return market.Held{}, tooLarge(size, h.Limit)
	}
	if err := d.Keep(ctx, h.Job, h.Output); err != nil {
		return market.Held{}, err
	}
	return market.Held{Output: h.Output, Size: size, Folder: folder}, nil
}

func tooLarge(size, most int64) error {
	return fmt.Errorf("%w: %d bytes of at most %d", market.ErrOutputTooLarge, size, most)
}

// measure counts the bytes and files of what is here. The store knows them of
// what it was given, not of what was fetched.
func measure(ctx context.Context, s *storage.Store, root cid.Cid) (size, files int64, folder bool, err error) {
	e, err := s.Stat(ctx, root, "")
	if err != nil {
		return 0, 0, false, err
	}
	if e.Type != storage.Folder {
		return e.Size, 1, false, nil
	}
	if r, err := s.Root(ctx, root); err == nil && r.Files > 0 {
		return r.Size, int64(r.Files), true, nil
	}
	err = s.Walk(ctx, root, "", func(e storage.Entry) error {
		if e.Type == storage.File {
			size, files = size+e.Size, files+1
		}
		return nil
	})
	return size, files, true, err
}

// Keep pins a root for the job.
func (d *jobData) Keep(ctx context.Context, job tasks.JobID, root tasks.CID) error {
	c, err := decode(root)
	if err != nil {
		return err
	}
	if _, err := d.store.Root(ctx, c); errors.Is(err, storage.ErrNotFound) {
		if err := d.store.Share(ctx, c, storage.Job); err != nil {
			return err
		}
	}
	return d.store.Pin(ctx, c, jobOwner(job), time.Time{})
}

// PutAll stores small files that must hash to their CIDs.
func (d *jobData) PutAll(ctx context.Context, job tasks.JobID, files []wire.Blob) []error {
	errs := make([]error, len(files))
	var good [][]byte
	var at []int
	for i, f := range files {
		if errs[i] = checkSum(f); errs[i] == nil {
			good, at = append(good, f.Data), append(at, i)
		}
	}
	if len(good) == 0 {
		return errs
	}
	if _, err := d.store.AddSmall(ctx, good, storage.AddOptions{Audience: storage.Job, Owner: jobOwner(job)}); err != nil {
		for _, i := range at {
			errs[i] = err
		}
	}
	return errs
}

// checkSum blames who sent bytes that are not what their CID says.
func checkSum(f wire.Blob) error {
	want, err := decode(f.CID)
	if err != nil {
		return fmt.Errorf("%w: %w", market.ErrBadOutput, err)
	}
	got, err := storage.SumBytes(f.Data)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: %d bytes hash to %s, not %s", market.ErrBadOutput, len(f.Data), got, want)
	}
	return nil
}

// KeepWork stores small outputs of this node's own runs.
func (d *jobData) KeepWork(ctx context.Context, job tasks.JobID, files []wire.Blob) error {
	data := make([][]byte, len(files))
	for i, f := range files {
		data[i] = f.Data
	}
	_, err := d.store.AddSmall(ctx, data, storage.AddOptions{Audience: storage.Job, Owner: workOwner(job), Until: time.Now().Add(workKeeps)})
	return err
}

// Assemble makes one root of the outputs of a stage's tasks: the only one itself,
// or else a folder with one entry a task, named by its index in six digits.
func (d *jobData) Assemble(ctx context.Context, job tasks.JobID, stage tasks.Stage, outputs []tasks.CID) (market.Held, error) {
	if len(outputs) == 1 {
		return d.Hold(ctx, market.HoldRequest{Job: job, Output: outputs[0]})
	}
	members := make([]storage.Member, len(outputs))
	known := map[tasks.CID]cid.Cid{} // many tasks of a job leave the same
	for i, o := range outputs {
		c, ok := known[o]
		if !ok {
			var err error
			if c, err = decode(o); err != nil {
				return market.Held{}, err
			}
			known[o] = c
		}
		members[i] = storage.Member{Name: fmt.Sprintf("%06d", i), CID: c}
	}
	root, err := d.store.AddFolder(ctx, members, storage.AddOptions{Audience: storage.Job, Owner: jobOwner(job)})
	if err != nil {
		return market.Held{}, err
	}
	return market.Held{Output: tasks.CID(root.CID.String()), Size: root.Size, Folder: true}, nil
}

// Release ends all pins of a job.
func (d *jobData) Release(ctx context.Context, job tasks.JobID) error {
	return d.store.ReleaseOwner(ctx, jobOwner(job))
}

// ReleaseWork ends a worker's pins of outputs, or all of a job's.
func (d *jobData) ReleaseWork(ctx context.Context, job tasks.JobID, outputs ...tasks.CID) error {
	if len(outputs) == 0 {
		err := d.store.ReleaseOwner(ctx, workOwner(job))
		if d.workOver != nil {
			err = errors.Join(err, d.workOver(job))
		}
		return err
	}
	roots := make([]cid.Cid, len(outputs))
	for i, output := range outputs {
		c, err := decode(output)
		if err != nil {
			return err
		}
		roots[i] = c
	}
	return d.store.UnpinAll(ctx, roots, workOwner(job))
}

// emptyDir makes dir an empty folder.
func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
