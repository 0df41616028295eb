package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// DefaultChunk is the size of a file's leaves, in bytes.
const DefaultChunk = 1 << 20

// fileLinks is how many children an inner file node has, as Kubo's default.
const fileLinks = 174

// AddOptions for what is added.
type AddOptions struct {
	// Name is kept with the root, for people.
	Name string
	// ChunkSize in bytes, 1 to MaxBlock. Default DefaultChunk. Another size
	// gives another CID.
	ChunkSize int64
	// Audience of the root. Default Mesh.
	Audience Audience
	// Owner pins the root, in the same commit. Default User.
	Owner Owner
	// Until is when the pin ends. Default never.
	Until time.Time
	// Progress is called with bytes read so far and in all, -1 if not known,
	// at least once a chunk and from one goroutine; AddSmall, and AddBytes of one
	// chunk, call it not at all.
	Progress func(done, total int64)

	total int64
}

func (o AddOptions) filled() (AddOptions, error) {
	if o.ChunkSize == 0 {
		o.ChunkSize = DefaultChunk
	}
	if o.Audience == 0 {
		o.Audience = Mesh
	}
	if o.Owner == "" {
		o.Owner = User
	}
	o.total = -1
	var errs []error
	if o.ChunkSize < 1 || o.ChunkSize > MaxBlock {
		errs = append(errs, fmt.Errorf("chunk size %d: want 1 to %d bytes", o.ChunkSize, MaxBlock))
	}
	if o.Audience < Job || o.Audience > Public {
		errs = append(errs, fmt.Errorf("%v: want job, mesh or public", o.Audience))
	}
	if len(o.Name) > 4096 {
		errs = append(errs, fmt.Errorf("a name of %d bytes: at most 4096", len(o.Name)))
	}
	return o, errors.Join(errs...)
}

var v1 = merkledag.V1CidPrefix() // SHA-256

// SumBytes is the CID that data has as one raw block, as every file of one
// chunk has. It needs no store.
func SumBytes(data []byte) (cid.Cid, error) {
	h, err := mh.Sum(data, mh.SHA2_256, -1)
	if err != nil {
		return cid.Undef, fmt.Errorf("hash %d bytes: %w", len(data), err)
	}
	return cid.NewCidV1(cid.Raw, h), nil
}

// Sum is what AddReader would return as CID and size, without storing.
func Sum(ctx context.Context, r io.Reader, chunkSize int64) (Root, error) {
	o, err := AddOptions{ChunkSize: chunkSize}.filled()
	if err != nil {
		return Root{}, err
	}
	a := &adder{o: o, sink: sumSink{}}
	n, size, err := a.file(ctx, r)
	if err != nil {
		return Root{}, err
	}
	return Root{CID: n.Cid(), Size: size, Files: 1}, nil
}

// AddReader adds what r gives as one file, pinned. When it returns, the file
// survives a crash.
func (s *Store) AddReader(ctx context.Context, r io.Reader, o AddOptions) (Root, error) {
	o, err := o.filled()
	if err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	if l, ok := r.(interface{ Len() int }); ok {
		o.total = int64(l.Len())
	}
	return s.add(ctx, o, false, func(a *adder) (ipld.Node, error) {
		n, size, err := a.file(ctx, r)
		a.files, a.size = 1, size
		return n, err
	})
}

// AddBytes adds data as one file, pinned.
func (s *Store) AddBytes(ctx context.Context, data []byte, o AddOptions) (Root, error) {
	if int64(len(data)) > cmp.Or(o.ChunkSize, DefaultChunk) {
		return s.AddReader(ctx, bytes.NewReader(data), o)
	}
	roots, err := s.AddSmall(ctx, [][]byte{data}, o)
	if err != nil {
		return Root{}, err
	}
	return roots[0], nil
}

// add runs build within a session, then indexes and pins what it built. If
// again, build may run twice.
func (s *Store) add(ctx context.Context, o AddOptions, again bool, build func(*adder) (ipld.Node, error)) (root Root, err error) {
	if err := s.fits(ctx, o, again, build); err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	w := s.begin()
	a := &adder{o: o, sink: w}
	defer func() { err = s.ended(ctx, w, err) }()
	n, err := build(a)
	if err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	if err := w.Flush(ctx); err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	defer s.Use(n.Cid())()
	root = Root{CID: n.Cid(), Name: o.Name, Size: a.size, Files: a.files, Audience: o.Audience, Added: s.cfg.Now()}
	if err := s.pin(ctx, root, o.Owner, o.Until); err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	return root, nil
}

// ended closes the session of an add, which err ended. A full store is not left
// full of half of something.
func (s *Store) ended(ctx context.Context, w *Session, err error) error {
	w.Close()
	if errors.Is(err, ErrFull) {
		_, gcErr := s.GC(ctx)
		err = errors.Join(err, gcErr)
	}
	return err
}

// fits refuses an add that is known to be too large before it writes. Blocks
// that are stored already need no room, so when it is tight they are counted.
func (s *Store) fits(ctx context.Context, o AddOptions, again bool, build func(*adder) (ipld.Node, error)) error {
	if o.total <= 0 {
		return nil
	}
	err := s.Room(o.total)
	if !errors.Is(err, ErrFull) {
		return err
	}
	if _, err := s.GC(ctx); err != nil {
		return err
	}
	if err := s.Room(o.total); !errors.Is(err, ErrFull) {
		return err
	}
	if !again {
		return err
	}
	o.Progress = nil
	c := &countSink{s: s}
	if _, err := build(&adder{o: o, sink: c}); err != nil {
		return err
	}
	return s.Room(c.fresh)
}

// countSink counts the bytes that an add would write.
type countSink struct {
	s     *Store
	fresh int64
	inner map[cid.Cid][]byte
}

func (c *countSink) put(ctx context.Context, id cid.Cid, data []byte) error {
	if id.Prefix().Codec != cid.Raw {
		if c.inner == nil {
			c.inner = map[cid.Cid][]byte{}
		}
		c.inner[id] = data
	}
	ok, err := c.s.Has(ctx, id)
	if !ok {
		c.fresh += int64(len(data))
	}
	return err
}

func (c *countSink) get(ctx context.Context, id cid.Cid) ([]byte, error) {
	if d, ok := c.inner[id]; ok {
		return d, nil
	}
	return nil, notFound(id)
}

// sink is where an adder's blocks go.
type sink interface {
	put(ctx context.Context, c cid.Cid, data []byte) error
	get(ctx context.Context, c cid.Cid) ([]byte, error)
}

type sumSink struct{}

func (sumSink) put(context.Context, cid.Cid, []byte) error { return nil }
func (sumSink) get(_ context.Context, c cid.Cid) ([]byte, error) {
	return nil, notFound(c)
}

type adder struct {
	o     AddOptions
	sink  sink
	read  int64
	size  int64
	files int
}

// file stores one file's DAG.
func (a *adder) file(ctx context.Context, r io.Reader) (ipld.Node, int64, error) {
	p := helpers.DagBuilderParams{Maxlinks: fileLinks, RawLeaves: true, CidBuilder: v1, Dagserv: dag{ctx: ctx, sink: a.sink}}
	cr := &countReader{ctx: ctx, r: r, a: a}
	db, err := p.New(chunk.NewSizeSplitter(cr, a.o.ChunkSize))
	if err != nil {
		return nil, 0, err
	}
	n, err := balanced.Layout(db)
	if err != nil {
		return nil, 0, err
	}
	a.report()
	return n, cr.n, nil
}

func (a *adder) report() {
	if a.o.Progress != nil {
		a.o.Progress(a.read, max(a.o.total, -1))
	}
}

// countReader reports progress and stops when the context ends.
type countReader struct {
	ctx  context.Context
	r    io.Reader
	a    *adder
	n    int64
	told int64
}

func (c *countReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.a.read += int64(n)
	if c.n-c.told >= DefaultChunk {
		c.told = c.n
		c.a.report()
	}
	return n, err
}

// dag lets boxo's builders write into a sink.
type dag struct {
	ctx  context.Context
	sink sink
}

func (d dag) Add(ctx context.Context, n ipld.Node) error {
	return d.sink.put(d.ctx, n.Cid(), n.RawData())
}

func (d dag) AddMany(ctx context.Context, ns []ipld.Node) error {
	for _, n := range ns {
		if err := d.Add(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (d dag) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	data, err := d.sink.get(d.ctx, c)
	if err != nil {
		return nil, err
	}
	b, err := newBlock(c, data)
	if err != nil {
		return nil, err
	}
	if c.Prefix().Codec == cid.Raw {
		return merkledag.DecodeRawBlock(b)
	}
	return merkledag.DecodeProtobufBlock(b)
}

func (d dag) GetMany(ctx context.Context, cs []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cs))
	for _, c := range cs {
		n, err := d.Get(ctx, c)
		out <- &ipld.NodeOption{Node: n, Err: err}
	}
	close(out)
	return out
}

// Builders replace nodes as they grow; what is not in the end is garbage.
func (d dag) Remove(context.Context, cid.Cid) error       { return nil }
func (d dag) RemoveMany(context.Context, []cid.Cid) error { return nil }
