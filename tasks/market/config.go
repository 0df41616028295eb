package market

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// Store keeps what must survive kill -9. A write returns when it is durable.
// Writes of many jobs at once should share a transaction.
type Store interface {
	JobStore
	WorkStore
	AnswerStore
}

// JobStore keeps the jobs that this node is, was or may become the origin of.
type JobStore interface {
	AddJob(ctx context.Context, r wire.JobRecord) (added bool, err error)
	// Job fails with ErrNoJob when none of that ID is kept.
	Job(ctx context.Context, id tasks.JobID) (wire.JobRecord, error)
	Jobs(ctx context.Context) ([]wire.JobRecord, error)
	Apply(ctx context.Context, c wire.Change) error
	Records(ctx context.Context, id tasks.JobID, term uint64) (tasks.Records, error)
	VerdictOn(ctx context.Context, k wire.ReceiptKey) (v tasks.Verdict, found bool, err error)
	Logs(ctx context.Context, id tasks.JobID, ref tasks.Ref) ([]wire.LogRecord, error)
	Tallies(ctx context.Context) (map[tasks.PeerID]wire.Tally, error)
	TrimTallies(ctx context.Context, before time.Time, most int) (gone []tasks.PeerID, err error)
	RemoveJob(ctx context.Context, id tasks.JobID) error
}

// WorkStore keeps a worker's receipts until they have a verdict, and for a while
// the verdicts as their origins signed them.
type WorkStore interface {
	// KeepReceipts keeps receipts and forgets those that are settled, but not what was said of them, in one commit.
	KeepReceipts(ctx context.Context, rs []wire.OwedReceipt, settled wire.Settled) error
	OwedReceipts(ctx context.Context) ([]wire.OwedReceipt, error)
	TrimSaid(ctx context.Context, before time.Time, most int64) error
}

// AnswerStore keeps what this node published, and the one answer to each.
type AnswerStore interface {
	AddPublished(ctx context.Context, r wire.PublishedRecord) error
	AcceptAnswer(ctx context.Context, a tasks.JobAnswer, at time.Time) (first bool, err error)
	Published(ctx context.Context) ([]wire.PublishedRecord, error)
	RemovePublished(ctx context.Context, id tasks.JobID) error
}

// Runner runs one task whose program and inputs are in the local store. An output
// of one block of at most 64 KiB comes as Inline, and need not be stored: KeepWork
// does that for many. Any other it leaves in the store, kept for the work on its
// job (until ReleaseWork; an expiry of a day or more besides keeps a crash from
// leaving it for ever). A program that fails is an Outcome; an error is the
// runner's own trouble. It returns soon after ctx ends.
type Runner interface {
	Run(ctx context.Context, x tasks.Execution) (tasks.Outcome, error)
}

// Data is the node's content-addressed store as jobs need it.
type Data interface {
	Inputs
	Outputs
}

// Inputs are what tasks read.
type Inputs interface {
	// Fetch brings the bytes of a span here: from the peers given, who are shown
	// the ticket, and from whoever else provides them. What is here already is
	// not fetched again. It fails when next to nothing comes for some minutes.
	Fetch(ctx context.Context, span tasks.Span, from []peer.ID, ticket []byte) error
	// Cached reports whether all of root is here.
	Cached(ctx context.Context, root tasks.CID) bool
	// Files lists the files of a root that is here: one of path "" when it is a file.
	Files(ctx context.Context, root tasks.CID) ([]tasks.File, error)
	// Open reads a span that is here. ErrLost, there or in a Read, says that bytes
	// which were are gone or damaged: Fetch brings them again.
	Open(ctx context.Context, span tasks.Span) (io.ReadCloser, error)
}

// ErrLost says that bytes which were here can't be read any more.
var ErrLost = errors.New("bytes that were here are lost")

// Damages is what a Data may tell besides.
type Damages interface {
	// Damaged says which blocks of the roots are damaged on this node's disk, and
	// what helps; "" when none is known to be.
	Damaged(ctx context.Context, roots []tasks.CID) string
}

// Outputs are what jobs leave. What is kept for a job stays until Release; what
// a worker made stays until ReleaseWork.
type Outputs interface {
	// Hold makes an output durable here and keeps it for the job: from Inline
	// when that is not nil, else from the peer given. ErrBadOutput and ErrOutputTooLarge
	// blame the peer; any other error is this node's own trouble. It is ErrBadOutput
	// when next to nothing comes for some minutes.
	Hold(ctx context.Context, h HoldRequest) (Held, error)
	// Keep keeps a root that is here for the job.
	Keep(ctx context.Context, job tasks.JobID, root tasks.CID) error
	// PutAll stores small files and keeps them for the job, in one commit. It gives
	// an error for each: nil for what is durable, ErrBadOutput for bytes that do not
	// hash to their CID, else this node's own trouble.
	PutAll(ctx context.Context, job tasks.JobID, files []wire.Blob) []error
	// Assemble makes one root of the results, in order, and keeps it for the job.
	Assemble(ctx context.Context, job tasks.JobID, stage tasks.Stage, outputs []tasks.CID) (Held, error)
	// Release lets go of all that was kept for a job.
	Release(ctx context.Context, job tasks.JobID) error
	// KeepWork stores small outputs that the Runner made, in one commit, until
	// ReleaseWork or the expiry that Runner's have.
	KeepWork(ctx context.Context, job tasks.JobID, files []wire.Blob) error
	// ReleaseWork lets go of outputs that the Runner made; with none named, of all
	// of a job's.
	ReleaseWork(ctx context.Context, job tasks.JobID, outputs ...tasks.CID) error
}

// HoldRequest asks for an output.
type HoldRequest struct {
	Job    tasks.JobID
	Output tasks.CID
	Inline []byte
	From   peer.ID // "": the bytes were made here
	Ticket []byte  // shown to From
	Limit  int64   // bytes that the output may have
}

// ErrOutputTooLarge is wrapped by Outputs.Hold when there are more bytes than Limit.
var ErrOutputTooLarge = errors.New("market: output larger than the job allows")

// Held is a root that is durable here.
type Held struct {
	Output tasks.CID
	Size   int64
	Folder bool // a folder with stdout in it, not a plain file
}

// ErrBadOutput is wrapped by Outputs.Hold when the bytes never came from their
// worker or do not hash to the CID.
var ErrBadOutput = errors.New("market: output missing or not what its CID says")

// Publisher sends to many. Both return when the message is on its way.
type Publisher interface {
	PublishOffer(ctx context.Context, payload []byte, radius, ttl time.Duration) error
	PublishJob(ctx context.Context, payload []byte) error
}

// Config is what a Service is made from. Zero fields take the default named
// beside them, but for those said to be required.
type Config struct {
	Host      *p2p.Host // required
	Store     Store     // required
	Data      Data      // required
	Runner    Runner    // required unless NoWork
	Publisher Publisher // required

	NoWork bool // run nothing for anyone
	NoHost bool // adopt no published jobs
	Light  bool // hold no jobs at all: only publish and follow. Implies NoWork and NoHost

	Limits  tasks.SetLimits                // what the device gives at first; 1 slot
	Kinds   []tasks.Kind                   // that the Runner runs; wasm
	Allow   func(tasks.Offer) tasks.Reason // the owner's own filter: OK or why not; nil allows all
	Version string                         // of the runner, for receipts; at most 128 bytes

	// Full says of an error that a write failed for lack of room, and nothing was
	// written. Such a write is tried until it works. Nil: of none.
	Full func(error) bool
	// Room says why no more work can be taken for lack of room, or nil. It is asked
	// for each offer. Nil: there is always room.
	Room func() error

	MaxJobs      int           // jobs in hand as origin at once, above which Submit refuses; 256
	MaxAdoptions int           // published jobs followed at once; 1024
	Holds        int           // outputs of one job fetched at once; 16
	Events       int           // kept for each slow subscriber; 1024
	Sweep        time.Duration // between looks for jobs past their retention; 1 min

	Origin     tasks.OriginConfig     // Self, Judge and Rand are filled here
	Worker     tasks.WorkerConfig     // Self, Rand and Limits are filled here
	Adoption   tasks.AdoptionConfig   // Self, Rand and Hosts are filled here
	Submission tasks.SubmissionConfig // Self and Rand are filled here

	Seed       uint64           // of all randomness but nonces; 0: from the peer ID
	Now        func() time.Time // wall clock, for stamps and retention; time.Now
	Log        *slog.Logger     // none
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Light {
		c.NoWork, c.NoHost = true, true
	}
	if c.Limits.Slots == 0 && !c.NoWork {
		c.Limits.Slots = 1
	}
	if len(c.Kinds) == 0 {
		c.Kinds = []tasks.Kind{tasks.KindWasm}
	}
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.MaxJobs, 256)
	def(&c.MaxAdoptions, 1024)
	def(&c.Holds, 16)
	def(&c.Events, 1024)
	if c.Sweep == 0 {
		c.Sweep = time.Minute
	}
	if c.Full == nil {
		c.Full = func(error) bool { return false }
	}
	if c.Room == nil {
		c.Room = func() error { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is required", what))
		}
	}
	need(c.Host != nil, "Host")
	need(c.Store != nil, "Store")
	need(c.Data != nil, "Data")
	need(c.Publisher != nil, "Publisher")
	need(c.Runner != nil || c.NoWork, "Runner, or NoWork,")
	if c.MaxJobs < 0 || c.MaxAdoptions < 0 || c.Holds < 0 || c.Events < 0 || c.Sweep < 0 {
		errs = append(errs, errors.New("a bound is below zero"))
	}
	if len(c.Version) > 128 {
		errs = append(errs, fmt.Errorf("Version of %d bytes: at most 128", len(c.Version)))
	}
	if len(errs) > 0 {
		return fmt.Errorf("market config: %w", errors.Join(errs...))
	}
	return nil
}

// ErrBadSpan is wrapped by Inputs when a file does not have the span asked for.
var ErrBadSpan = errors.New("market: the file does not have that span")
