package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/storage"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

var blocks = Bench{
	Name: "blocks", Short: "moving a file between two processes, beside a raw stream, a plain write and Kubo",
	Cases: []string{"reader/256MiB", "reader/1GiB", "store/1GiB", "kubo/1GiB", "three-givers"},
	Run: func(ctx context.Context, o Options, emit func(Line)) error {
		return runBlocks(ctx, o, blocksSizes{small: 256 * mib, large: gib, shaped: 128 * mib, rounds: 5, rate: 100e6 / 8}, emit)
	},
}

// blocksSizes are smaller in tests.
type blocksSizes struct {
	small, large, shaped int64
	rounds               int
	rate                 float64 // bytes a second of a shaped link
}

// side is a child process and how to talk to it.
type side struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
	Addr string
}

// sides is the mesh of a bench's children.
type sides struct {
	o    Options
	dir  string
	root crypto.PrivKey
	mesh auth.MeshID
	all  []*side
}

func newSides(o Options) (*sides, error) {
	dir, err := os.MkdirTemp(o.Dir, "kith-bench-")
	if err != nil {
		return nil, fmt.Errorf("make the bench's folder: %w", err)
	}
	s := &sides{o: o, dir: dir}
	if s.root, _, err = crypto.GenerateEd25519Key(rand.Reader); err == nil {
		s.mesh, err = auth.MeshOf(s.root.GetPublic())
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// startChild starts a child.
func (s *sides) startChild(ctx context.Context, links ...link) (*side, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	first := order{Mesh: s.mesh, Dir: filepath.Join(s.dir, fmt.Sprint(len(s.all))), Links: links}
	if first.Token, err = auth.Mint(s.root, auth.Subject{Peer: id, Rights: auth.AllRights, Issued: now.Add(-time.Minute), Expires: now.Add(24 * time.Hour)}); err != nil {
		return nil, err
	}
	if first.Key, err = crypto.MarshalPrivateKey(key); err != nil {
		return nil, err
	}
	if err := os.Mkdir(first.Dir, 0o700); err != nil {
		return nil, err
	}
	p := &side{cmd: exec.CommandContext(ctx, s.o.Exe, ChildArg)}
	p.cmd.Stderr = s.o.Log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	s.all = append(s.all, p)
	d, err := p.ask(first)
	p.Addr = d.Addr
	return p, err
}

// ask gives an order and waits until it is done.
func (p *side) ask(o order) (done, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return done{}, err
	}
	var d done
	if _, err = p.in.Write(append(b, '\n')); err == nil {
		err = p.out.Decode(&d)
	}
	if err != nil {
		return d, fmt.Errorf("ask a child of the bench: %w", err)
	}
	if d.Err != "" {
		return d, errors.New(d.Err)
	}
	return d, nil
}

// close ends the children and removes the folder.
func (s *sides) close() error {
	var errs []error
	for _, p := range s.all {
		errs = append(errs, p.in.Close(), p.cmd.Wait())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// moved is one measured passage.
type moved struct{ seconds, cpu float64 }

// move lets the taker carry out an order that the givers serve.
func move(taker *side, o order, givers ...*side) (moved, error) {
	var before float64
	all := append([]*side{taker}, givers...)
	for _, g := range givers {
		o.From = append(o.From, g.Addr)
	}
	if _, err := taker.ask(order{Do: "connect", From: o.From}); err != nil {
		return moved{}, err
	}
	for _, p := range all {
		d, err := p.ask(order{Do: "cpu"})
		if err != nil {
			return moved{}, err
		}
		before += d.CPU
	}
	d, err := taker.ask(o)
	if err != nil {
		return moved{}, err
	}
	m := moved{seconds: d.Seconds, cpu: -before}
	for _, p := range all {
		d, err := p.ask(order{Do: "cpu"})
		if err != nil {
			return moved{}, err
		}
		m.cpu += d.CPU
	}
	return m, nil
}

// fetch is move into the taker's store, from which the file is removed again.
func (s *sides) fetch(taker *side, o order, givers ...*side) (moved, error) {
	m, err := move(taker, o, givers...)
	if err == nil {
		_, err = taker.ask(order{Do: "drop"})
	}
	return m, err
}

// passage is one kind of passage: how it is made, and where its figures go.
type passage struct {
	to  *series
	run func() (moved, error)
}

// interleave makes each passage once a round, every other round in the opposite
// order, so that a machine that slows down or speeds up favours none of them.
func interleave(o Options, rounds int, all []passage) error {
	for i := range rounds {
		o.say("round %d of %d", i+1, rounds)
		for j := range all {
			p := all[j]
			if i%2 == 1 {
				p = all[len(all)-1-j]
			}
			m, err := p.run()
			if err != nil {
				return err
			}
			p.to.add(m)
		}
	}
	return nil
}

// series is the passages of one kind, all of so many bytes.
type series struct {
	size int64
	ms   []moved
}

func (s *series) add(m moved) { s.ms = append(s.ms, m) }

// speed is the median, in MiB/s.
func (s *series) speed() float64 {
	var v []float64
	for _, m := range s.ms {
		v = append(v, float64(s.size)/mib/m.seconds)
	}
	return Median(v)
}

// cost is the median of CPU seconds per GiB, of all processes together.
func (s *series) cost() float64 {
	var v []float64
	for _, m := range s.ms {
		v = append(v, m.cpu*gib/float64(s.size))
	}
	return Median(v)
}

func runBlocks(ctx context.Context, o Options, z blocksSizes, emit func(Line)) (err error) {
	skip := func(name, why string) {
		emit(Line{Bench: "blocks", Case: name, Unit: "MiB/s", Skipped: why})
	}
	for _, c := range []struct {
		name string
		need int64 // bytes of disk
		run  func(ctx context.Context, o Options, z blocksSizes, emit func(Line)) error
	}{
		{"reader/256MiB", 2 * z.small, func(ctx context.Context, o Options, z blocksSizes, emit func(Line)) error {
			return runReader(ctx, o, "reader/256MiB", z.small, z.rounds, emit)
		}},
		{"reader/1GiB", 2 * z.large, func(ctx context.Context, o Options, z blocksSizes, emit func(Line)) error {
			return runReader(ctx, o, "reader/1GiB", z.large, max(z.rounds-2, 1), emit)
		}},
		{"store/1GiB", 4 * z.large, runStore},
		{"kubo/1GiB", 8 * z.large, runKubo},
		{"three-givers", 6 * z.shaped, runThree},
	} {
		if !o.Wants(c.name) {
			continue
		}
		if c.name == "kubo/1GiB" && o.Kubo == "" {
			skip(c.name, "no Kubo: give --kubo PATH")
			continue
		}
		dir := o.Dir
		if dir == "" {
			dir = os.TempDir()
		}
		free, err := storage.DiskFree(dir)
		if err != nil {
			return fmt.Errorf("ask for free space of %s: %w", dir, err)
		}
		if need := c.need + 512*mib; free < need {
			skip(c.name, fmt.Sprintf("%s has %d MiB free, %d are needed: give another --dir", dir, free/mib, need/mib))
			continue
		}
		o.say("%s", c.name)
		if err := c.run(ctx, o, z, emit); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// cpuLine tells what a case and what it stands beside cost.
func cpuLine(name string, ours, against *series, what string) Line {
	return Line{Bench: "blocks", Case: name + "/cpu", Value: ours.cost(), Unit: "s/GiB"}.With(what, against.cost())
}

const rawName = "raw libp2p stream, TCP and TLS"

// runReader measures (a): from the giver's store to a verified reader.
func runReader(ctx context.Context, o Options, name string, size int64, rounds int, emit func(Line)) (err error) {
	s, giver, taker, root, err := couple(ctx, o, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	raw, read := &series{size: size}, &series{size: size}
	err = interleave(o, rounds, []passage{
		{to: raw, run: func() (moved, error) { return move(taker, order{Do: "raw", Size: size}, giver) }},
		{to: read, run: func() (moved, error) { return move(taker, order{Do: "read", Root: root, Size: size}, giver) }},
	})
	if err != nil {
		return err
	}
	emit(Line{Bench: "blocks", Case: name, Value: read.speed(), Unit: "MiB/s"}.With(rawName, raw.speed()).RatioAtLeast(0.6))
	emit(cpuLine(name, read, raw, rawName))
	return nil
}

// couple starts a giver that has a file, and a taker. The caller closes s, unless
// there was an error.
func couple(ctx context.Context, o Options, size int64) (s *sides, giver, taker *side, root string, err error) {
	if s, err = newSides(o); err != nil {
		return nil, nil, nil, "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if giver, err = s.startChild(ctx); err != nil {
		return s, nil, nil, "", err
	}
	if taker, err = s.startChild(ctx); err != nil {
		return s, nil, nil, "", err
	}
	d, err := giver.ask(order{Do: "add", Size: size})
	return s, giver, taker, d.Root, err
}

// runStore measures (b): from the giver's store to the taker's, durable.
func runStore(ctx context.Context, o Options, z blocksSizes, emit func(Line)) (err error) {
	size := z.large
	s, giver, taker, root, err := couple(ctx, o, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	raw, plain, store := &series{size: size}, &series{size: size}, &series{size: size}
	file := filepath.Join(s.dir, "plain")
	warm := order{Do: "warm", Size: size, Path: filepath.Join(s.dir, "warm")}
	err = interleave(o, z.rounds, []passage{
		{to: raw, run: func() (moved, error) { return move(taker, order{Do: "raw", Size: size}, giver) }},
		{to: plain, run: func() (moved, error) {
			if _, err := taker.ask(warm); err != nil {
				return moved{}, err
			}
			m, err := move(taker, order{Do: "write", Size: size, Path: file})
			return m, errors.Join(err, os.Remove(file))
		}},
		{to: store, run: func() (moved, error) {
			if _, err := taker.ask(warm); err != nil {
				return moved{}, err
			}
			return s.fetch(taker, order{Do: "fetch", Root: root}, giver)
		}},
	})
	if err != nil {
		return err
	}
	limit, what := raw, rawName
	if plain.speed() < raw.speed() {
		limit, what = plain, "plain write with fsync"
	}
	l := Line{Bench: "blocks", Case: "store/1GiB", Value: store.speed(), Unit: "MiB/s"}.With(what, limit.speed()).RatioAtLeast(0.5)
	l.Note = fmt.Sprintf("raw stream %.0f MiB/s, plain write with fsync %.0f MiB/s and %.2f CPU s/GiB", raw.speed(), plain.speed(), plain.cost())
	emit(l)
	emit(cpuLine("store/1GiB", store, raw, rawName))
	return nil
}

// runThree measures (d): three givers over three shaped links, beside one.
func runThree(ctx context.Context, o Options, z blocksSizes, emit func(Line)) (err error) {
	s, err := newSides(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var givers []*side
	var links []link
	var root string
	for range 3 {
		g, err := s.startChild(ctx)
		if err != nil {
			return err
		}
		d, err := g.ask(order{Do: "add", Size: z.shaped})
		if err != nil {
			return err
		}
		root, givers = d.Root, append(givers, g)
		host, err := hostPort(g.Addr)
		if err != nil {
			return err
		}
		links = append(links, link{Addr: host, Rate: z.rate, Delay: 10 * time.Millisecond})
	}
	taker, err := s.startChild(ctx, links...)
	if err != nil {
		return err
	}
	one, three := &series{size: z.shaped}, &series{size: z.shaped}
	turn := 0
	err = interleave(o, max(z.rounds-2, 1), []passage{
		{to: one, run: func() (moved, error) {
			turn++
			return s.fetch(taker, order{Do: "fetch", Root: root}, givers[turn%3])
		}},
		{to: three, run: func() (moved, error) { return s.fetch(taker, order{Do: "fetch", Root: root}, givers...) }},
	})
	if err != nil {
		return err
	}
	l := Line{Bench: "blocks", Case: "three-givers", Value: three.speed(), Unit: "MiB/s"}.With("one of the givers", one.speed()).RatioAtLeast(2.5)
	l.Note = fmt.Sprintf("links of %.0f Mbit/s and 10 ms each way, limited where they are received; %d MiB, durable", z.rate*8/1e6, z.shaped/mib)
	emit(l)
	return nil
}

// hostPort reads /ip4/HOST/tcp/PORT/....
func hostPort(addr string) (string, error) {
	parts := strings.Split(addr, "/")
	if len(parts) < 5 {
		return "", fmt.Errorf("address %q: want /ip4/HOST/tcp/PORT", addr)
	}
	return parts[2] + ":" + parts[4], nil
}
