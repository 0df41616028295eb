package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
)

func sum(t testing.TB, text string) tasks.CID {
	t.Helper()
	c, err := storage.SumBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return tasks.CID(c.String())
}

func unpin(t testing.TB, s *storage.Store, c tasks.CID, owner storage.Owner) {
	t.Helper()
	root, err := decode(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unpin(t.Context(), root, owner); err != nil {
		t.Fatal(err)
	}
}

func TestHoldInline(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	d := &jobData{store: s}
	for _, text := range []string{"small", ""} {
		req := market.HoldRequest{Job: "j", Output: sum(t, text), Inline: []byte(text), From: "other"}
		if text == "" {
			req.Inline = nil // as it comes off the wire
		}
		held, err := d.Hold(t.Context(), req)
		if err != nil || held.Size != int64(len(text)) || held.Folder || held.Output != req.Output {
			t.Errorf("%q: %+v, %v", text, held, err)
		}
		collect(t, s)
		if got := read(t, s, req.Output, ""); got != text {
			t.Errorf("%q reads %q", text, got)
		}
	}
	for _, c := range []market.HoldRequest{
		{Job: "j", Output: sum(t, "one"), Inline: []byte("another")},
		{Job: "j", Output: "nonsense", Inline: []byte("x")},
	} {
		if held, err := d.Hold(t.Context(), c); !errors.Is(err, market.ErrBadOutput) {
			t.Errorf("%s with %q: %+v, %v", c.Output, c.Inline, held, err)
		}
	}
	if held, err := d.Hold(t.Context(), market.HoldRequest{Job: "j", Output: sum(t, "large"), Inline: []byte("large"), Limit: 4}); !errors.Is(err, market.ErrOutputTooLarge) {
		t.Errorf("5 bytes with a limit of 4: %+v, %v", held, err)
	}
	if err := d.Release(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	if d.Cached(t.Context(), sum(t, "small")) {
		t.Error("a released output is still here")
	}
}

func TestAssemble(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	d := &jobData{store: s}
	outputs := []tasks.CID{add(t, s, "first"), addTree(t, s, map[string]string{"stdout": "second", "more": "!"}), add(t, s, "")}
	one, err := d.Assemble(t.Context(), "j", tasks.StageMap, outputs[:1])
	if err != nil || one.Output != outputs[0] || one.Folder || one.Size != 5 {
		t.Errorf("one result: %+v, %v", one, err)
	}
	all, err := d.Assemble(t.Context(), "j", tasks.StageMap, outputs)
	if err != nil || !all.Folder || all.Size != int64(len("first"+"second"+"!")) {
		t.Fatalf("all: %+v, %v", all, err)
	}
	for _, o := range outputs {
		unpin(t, s, o, storage.User)
	}
	collect(t, s)
	if got := names(t, s, all.Output); !slices.Equal(got, []string{"000000", "000001", "000002"}) {
		t.Errorf("it holds %v", got)
	}
	for path, want := range map[string]string{"000000": "first", "000001/stdout": "second", "000001/more": "!", "000002": ""} {
		if got := read(t, s, all.Output, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	files, err := d.Files(t.Context(), all.Output)
	if err != nil || len(files) != 4 {
		t.Errorf("files %v, %v", files, err)
	}
	if files, err = d.Files(t.Context(), outputs[0]); err != nil || len(files) != 1 || files[0] != (tasks.File{Size: 5}) {
		t.Errorf("of one file: %v, %v", files, err)
	}
	if _, err := d.Assemble(t.Context(), "j", tasks.StageMap, append(outputs, sum(t, "not here"))); !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrIncomplete) {
		t.Errorf("with one that is not here: %v", err)
	}
}

// TestCollectorSparesWhatIsUsed has one store in which each thing has one reason
// to stay. When the reason is gone, so is the thing.
func TestCollectorSparesWhatIsUsed(t *testing.T) {
	t.Parallel()
	db := newStore(t)
	d := &jobData{store: db}
	held := func(what string, c tasks.CID, want bool) {
		t.Helper()
		collect(t, db)
		if got := d.Cached(t.Context(), c); got != want {
			t.Errorf("%s is here: %v", what, got)
		}
	}
	input := add(t, db, alphabet)
	if err := d.Keep(t.Context(), "j", input); err != nil {
		t.Fatal(err)
	}
	unpin(t, db, input, storage.User)
	held("a job's input", input, true)

	e := &executor{store: db, runner: leaves("made"), scratch: t.TempDir()}
	x := execution(t, db, func(x *tasks.Execution) { x.Job = "k" })
	work := execute(t, e, x).Output
	held("what was made for another's job", work, true)

	fetched := add(t, db, "fetched for a task")
	root, err := decode(fetched)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	d.inUse.touch(db, root, begin)
	unpin(t, db, fetched, storage.User)
	held("what was fetched lately", fetched, true)
	other, err := decode(input)
	if err != nil {
		t.Fatal(err)
	}
	d.inUse.touch(db, other, begin.Add(fetcherKeeps))
	d.inUse.sweep(begin.Add(fetcherKeeps))
	held("what was fetched a while ago", fetched, true)
	d.inUse.sweep(begin.Add(fetcherKeeps + time.Second))
	held("what was fetched long ago", fetched, false)

	if err := errors.Join(d.Release(t.Context(), "j"), d.ReleaseWork(t.Context(), "k", work)); err != nil {
		t.Fatal(err)
	}
	held("what was made, released", work, false)
	held("the job's input, still in use by a task", input, true)
	if err := d.ReleaseWork(t.Context(), "k", work); err != nil {
		t.Errorf("released twice: %v", err)
	}
	if err := d.ReleaseWork(t.Context(), "k"); err != nil {
		t.Errorf("all of it released: %v", err)
	}
}

// TestCollectorSparesUploads collects while an upload comes in, and after it:
// it stays its time.
func TestCollectorSparesUploads(t *testing.T) {
	t.Parallel()
	n := start(t, founder(t))
	data := &dataBackend{store: n.store, transfer: n.transfer, scratch: t.TempDir(), now: time.Now}
	text := strings.Repeat("0123456789", 1000)
	pieces := 0
	slow := readerFunc(func(b []byte) (int, error) {
		collect(t, n.store)
		if pieces == len(text)/1000 {
			return 0, io.EOF
		}
		pieces++
		return copy(b, text[(pieces-1)*1000:pieces*1000]), nil
	})
	root, err := data.AddFile(t.Context(), slow, api.AddOptions{Chunk: 1000, Name: "slow"})
	if err != nil {
		t.Fatal(err)
	}
	collect(t, n.store)
	if got := read(t, n.store, tasks.CID(root.CID), ""); got != text {
		t.Errorf("%d bytes are left of %d", len(got), len(text))
	}
	pins, err := data.Pins(t.Context())
	if err != nil || len(pins) != 1 || pins[0].Owner != string(ownerUpload) || time.Until(pins[0].Until) < uploadKeeps-time.Minute {
		t.Errorf("pins %+v, %v", pins, err)
	}
	broken := errors.New("the client went away")
	if _, err := data.AddFile(t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), api.AddOptions{}); !errors.Is(err, broken) {
		t.Errorf("a broken upload: %v", err)
	}
	if err := data.Unpin(t.Context(), tasks.CID(root.CID)); err != nil {
		t.Fatal(err)
	}
	if r, err := data.GC(t.Context()); err != nil || r.Kept != 0 {
		t.Errorf("collected %+v, %v", r, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestFetchForATask brings a span from another node, by ticket or audience, and
// collects in between.
func TestFetchForATask(t *testing.T) {
	t.Parallel()
	nodes := mesh(t, 2, nil)
	from, to := nodes[0], nodes[1]
	var b strings.Builder
	for i := 0; b.Len() < 1<<20; i++ { // no two blocks alike
		fmt.Fprintf(&b, "line %9d\n", i)
	}
	text := b.String()[:1<<20]
	root, err := from.store.AddReader(t.Context(), strings.NewReader(text), storage.AddOptions{ChunkSize: 64 << 10, Audience: storage.Mesh})
	if err != nil {
		t.Fatal(err)
	}
	d := &jobData{store: to.store, transfer: to.transfer}
	span := tasks.Span{Root: tasks.CID(root.CID.String()), Offset: 100_000, Length: 300_000}
	peers := []peer.ID{from.host.ID()}
	stop := make(chan struct{})
	swept := make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				swept <- nil
				return
			default:
			}
			if _, err := to.store.GC(context.WithoutCancel(t.Context())); err != nil {
				swept <- err
				return
			}
		}
	}()
	err = d.Fetch(t.Context(), span, peers, nil)
	close(stop)
	if err := errors.Join(err, <-swept); err != nil {
		t.Fatal(err)
	}
	collect(t, to.store)
	r, err := d.Open(t.Context(), span)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(got) != text[100_000:400_000] {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if use, err := to.store.Usage(t.Context()); err != nil || use.Bytes > 600_000 {
		t.Errorf("fetched %d bytes for a span of 300,000; %v", use.Bytes, err)
	}
	if d.Cached(t.Context(), span.Root) {
		t.Error("all of it was fetched for a span")
	}
	for _, bad := range []tasks.Span{{Root: span.Root, Offset: 1 << 20, Length: 1}, {Root: span.Root, Path: "x", Length: -1}} {
		if err := d.Fetch(t.Context(), bad, peers, nil); !errors.Is(err, market.ErrBadSpan) {
			t.Errorf("%+v: %v, want %v", bad, err, market.ErrBadSpan)
		}
	}

	// A job's root is for who shows a ticket.
	secret, err := from.store.AddReader(t.Context(), bytes.NewReader([]byte("a job's")), storage.AddOptions{Audience: storage.Job})
	if err != nil {
		t.Fatal(err)
	}
	for _, ticket := range [][]byte{nil, []byte("forged")} {
		if err := d.Fetch(t.Context(), whole(secret.CID), peers, ticket); err == nil {
			t.Errorf("fetched with ticket %q", ticket)
		}
	}
	held, err := d.Hold(t.Context(), market.HoldRequest{Job: "j", Output: tasks.CID(secret.CID.String()), From: peers[0], Ticket: []byte("forged")})
	if !errors.Is(err, market.ErrBadOutput) {
		t.Errorf("held %+v, %v", held, err)
	}
	big, err := from.store.AddReader(t.Context(), strings.NewReader(strings.Repeat(text, 5)[1:]), storage.AddOptions{ChunkSize: 64 << 10, Audience: storage.Mesh})
	if err != nil {
		t.Fatal(err)
	}
	near, err := from.store.AddReader(t.Context(), strings.NewReader(text[1:]+"!"), storage.AddOptions{ChunkSize: 64 << 10, Audience: storage.Mesh})
	if err != nil {
		t.Fatal(err)
	}
	before, err := to.store.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, large := range []tasks.CID{tasks.CID(big.CID.String()), tasks.CID(near.CID.String())} { // beside the room for structure, and within it
		held, err = d.Hold(t.Context(), market.HoldRequest{Job: "j", Output: large, From: peers[0], Limit: 1<<20 - 1})
		if !errors.Is(err, market.ErrOutputTooLarge) {
			t.Errorf("too large: held %+v, %v", held, err)
		}
	}
	if after, err := to.store.Usage(t.Context()); err != nil || after.Bytes > before.Bytes+3<<20 {
		t.Errorf("a store of %d bytes has %d, %v", before.Bytes, after.Bytes, err)
	}
	collect(t, to.store)
	if d.Cached(t.Context(), tasks.CID(near.CID.String())) {
		t.Error("an output that is too large is kept")
	}
	held, err = d.Hold(t.Context(), market.HoldRequest{Job: "j", Output: span.Root, From: peers[0], Limit: 1 << 20})
	if err != nil || held.Size != 1<<20 {
		t.Errorf("held %+v, %v", held, err)
	}
	collect(t, to.store)
	if !d.Cached(t.Context(), span.Root) {
		t.Error("an output that is held was collected")
	}
}

func whole(c cid.Cid) tasks.Span { return tasks.Span{Root: tasks.CID(c.String()), Length: -1} }

func TestKeepNeedsAllOfIt(t *testing.T) {
	t.Parallel()
	d := &jobData{store: newStore(t)}
	for _, c := range []tasks.CID{sum(t, "absent"), "nonsense"} {
		if err := d.Keep(t.Context(), "j", c); err == nil || !strings.Contains(err.Error(), fmt.Sprint(c)) {
			t.Errorf("%s: %v", c, err)
		}
	}
}
