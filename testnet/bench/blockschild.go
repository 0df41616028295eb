package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/shape"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
)

// ChildArg, as the first argument of our binary, makes it one side of the blocks
// bench: main then returns ChildMain.
const ChildArg = "__bench-blocks"

// order is what a child is asked to do, one JSON object a line. The first one
// holds Key, Mesh, Token and Dir, and perhaps Links.
type order struct {
	Key   []byte
	Mesh  auth.MeshID
	Token auth.Token
	Dir   string
	Links []link // how it is linked to others; to all else without a limit

	Do   string // add, connect, raw, read, fetch, drop, warm, write, cpu
	Size int64
	Root string
	From []string // addresses with peer IDs
	Path string   // of a file to be written
}

// link is shaped at the side that dials and receives.
type link struct {
	Addr  string        // host:port of the other side
	Rate  float64       // bytes a second towards us
	Delay time.Duration // one way
}

// done is a child's answer.
type done struct {
	Addr    string // with its peer ID
	Root    string
	Seconds float64
	CPU     float64 // seconds that the process used since it began
	Err     string
}

// child is one side of the bench: a host, a store and what moves blocks between
// them, without the rest of a node.
type child struct {
	h   *p2p.Host
	st  *storage.Store
	tr  *transfer.Service
	dir string
}

// ChildMain serves orders until its input ends.
func ChildMain() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	var first order
	err := in.Decode(&first)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s is how kith bench starts its own children: %v\n", ChildArg, err)
		return 2
	}
	c, stop, err := newChild(ctx, first)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	answer := done{Addr: c.h.Raw().Network().ListenAddresses()[0].String() + "/p2p/" + c.h.ID().String()}
	for err == nil {
		if err = out.Encode(answer); err != nil {
			break
		}
		var o order
		if err = in.Decode(&o); err != nil {
			break
		}
		answer = done{}
		begun := time.Now()
		var failed error
		if answer.Root, failed = c.do(ctx, o); failed != nil {
			answer.Err = fmt.Sprintf("%s: %v", o.Do, failed)
		}
		answer.Seconds = time.Since(begun).Seconds()
		answer.CPU = cpuSeconds()
	}
	cancel()
	if err = errors.Join(ignoreEOF(err), stop()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func newChild(ctx context.Context, o order) (_ *child, stop func() error, err error) {
	key, err := crypto.UnmarshalPrivateKey(o.Key)
	if err != nil {
		return nil, nil, err
	}
	db, err := state.Open(filepath.Join(o.Dir, "kith.db"))
	if err != nil {
		return nil, nil, err
	}
	st, err := storage.Open(storage.Config{Dir: filepath.Join(o.Dir, "blocks"), DB: db.DB(), Commit: db.Join})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	fail := func(err error) (*child, func() error, error) {
		return nil, nil, errors.Join(err, st.Close(), db.Close())
	}
	cfg := p2p.Config{Key: key, Mesh: o.Mesh, Token: o.Token, Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		NoQUIC: true, NoMDNS: true, NoPortMap: true, NoRelay: true}
	if len(o.Links) > 0 {
		cfg.Dialer = dialer(o.Links)
	}
	h, err := p2p.New(cfg)
	if err != nil {
		return fail(err)
	}
	tr, err := transfer.New(h, st, transfer.Config{})
	if err != nil {
		return fail(err)
	}
	c := &child{h: h, st: st, tr: tr, dir: o.Dir}
	h.Gated().SetStreamHandler(rawProtocol, giveRaw)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	var errs [2]error
	for i, f := range []func(context.Context) error{h.Run, tr.Run} {
		running.Go(func() { errs[i] = f(ctx); cancel() })
	}
	stop = func() error {
		cancel()
		running.Wait()
		return errors.Join(errs[0], errs[1], st.Close(), db.Close())
	}
	select {
	case <-h.Ready():
	case <-ctx.Done():
		return nil, nil, stop()
	}
	return c, stop, nil
}

func (c *child) do(ctx context.Context, o order) (root string, err error) {
	var from []peer.ID
	for _, text := range o.From {
		info, err := peer.AddrInfoFromString(text)
		if err != nil {
			return "", err
		}
		if err := c.h.Connect(ctx, *info); err != nil {
			return "", err
		}
		from = append(from, info.ID)
	}
	var id cid.Cid
	if o.Root != "" {
		if id, err = cid.Decode(o.Root); err != nil {
			return "", err
		}
	}
	switch o.Do {
	case "add":
		r, err := c.st.AddReader(ctx, io.LimitReader(noise(), o.Size), storage.AddOptions{})
		return r.CID.String(), err
	case "connect", "cpu":
		return "", nil
	case "raw":
		return "", c.takeRaw(ctx, from[0], o.Size)
	case "read":
		r, err := c.tr.Open(ctx, transfer.All(id, from...))
		if err != nil {
			return "", err
		}
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != o.Size {
			err = fmt.Errorf("read %d bytes, want %d", n, o.Size)
		}
		return "", errors.Join(err, r.Close())
	case "fetch":
		return "", c.tr.Fetch(ctx, transfer.All(id, from...), nil)
	case "drop":
		r, err := c.st.GC(ctx)
		if err == nil && r.Removed == 0 {
			err = errors.New("nothing was there: the next fetch would be none")
		}
		return "", err
	case "warm":
		return "", warmCache(o.Path, o.Size)
	case "write":
		return "", writeSynced(o.Path, o.Size)
	}
	return "", fmt.Errorf("unknown order %q", o.Do)
}

// noise is the same random bytes each time.
func noise() io.Reader { return mathrand.NewChaCha8([32]byte{7}) }

// The raw stream, which blocks are measured beside: bytes from memory over a
// stream of the same kind of connection.
const (
	rawProtocol = "/kith-bench/raw/1.0.0"
	rawChunk    = 1 << 20
)

// giveRaw sends until the other side has enough.
func giveRaw(s network.Stream) {
	b := make([]byte, rawChunk)
	_, _ = rand.Read(b) // never fails
	for {
		if _, err := s.Write(b); err != nil {
			_ = s.Reset()
			return
		}
	}
}

func (c *child) takeRaw(ctx context.Context, from peer.ID, size int64) error {
	s, err := c.h.Gated().NewStream(ctx, from, rawProtocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	b := make([]byte, rawChunk)
	for size > 0 {
		n, err := s.Read(b)
		if size -= int64(n); err != nil {
			return err
		}
	}
	return nil
}

// writeSynced is the plain write, which the store is measured beside.
func writeSynced(path string, size int64) error {
	return writeFile(path, size, (*os.File).Sync)
}

// warmCache lets the machine have size bytes of memory at hand for its page cache,
// before something is measured that writes so much. Under a hypervisor that takes
// free memory back, the first touch of each page costs more than all the rest of a
// write: without this, whoever writes after a pause looks several times slower.
func warmCache(path string, size int64) error {
	return errors.Join(writeFile(path, size, func(*os.File) error { return nil }), os.Remove(path))
}

func writeFile(path string, size int64, end func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	b := make([]byte, rawChunk)
	_, _ = rand.Read(b) // never fails
	for ; size > 0 && err == nil; size -= int64(len(b)) {
		_, err = f.Write(b[:min(size, int64(len(b)))])
	}
	if err == nil {
		err = end(f)
	}
	return errors.Join(err, f.Close())
}

// dialer shapes links: each has a queue that delays, behind a limit on how fast
// it is read.
func dialer(links []link) tcp.DialerForAddr {
	return func(raddr ma.Multiaddr) (tcp.ContextDialer, error) {
		_, addr, err := manet.DialArgs(raddr)
		if err != nil {
			return nil, err
		}
		for i := range links {
			if links[i].Addr == addr {
				return &links[i], nil
			}
		}
		return &net.Dialer{}, nil
	}
}

// DialContext dials over the link.
func (l *link) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return shape.Delay(shape.NewRate(l.Rate, 0).Conn(conn), l.Delay), nil
}
