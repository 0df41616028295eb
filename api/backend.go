package api

import (
	"context"
	"io"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// Backend is what a node lends to its API, one small ability a field. Node is
// required. The routes of an ability that is nil answer 501 and say so: a light
// node has no Jobs to show, a test needs no Data.
//
// Errors that a Backend returns should be an *Error (see NotFound, Invalid,
// Refused, Busy); any other becomes a 500 whose text the user sees.
type Backend struct {
	Node    Node
	Peers   Peers
	Invites Invites
	Data    Data
	Uploads Uploads
	Pins    Pins
	Archive Archive
	Submit  Submitter
	Jobs    Jobs
	Results Results
	Policy  Policies
	Doctor  Doctor
	Events  Events
	Stop    Stopper
}

// Node says who and how the node is.
type Node interface {
	ID(ctx context.Context) (Identity, error)
	Status(ctx context.Context) (Status, error)
	Ready(ctx context.Context) error // nil once listening and serving; the error says what is missing
}

// Peers lists the members that the node knows, connected ones first.
type Peers interface {
	Peers(ctx context.Context) ([]Peer, error)
}

// Invites makes and ends invites that this node redeems.
type Invites interface {
	CreateInvite(ctx context.Context, req InviteRequest) (Invite, error) // the only answer that holds Line
	Invites(ctx context.Context) ([]Invite, error)
	RevokeInvite(ctx context.Context, id string) error
}

// Content is what a request reads, and whom to ask for it first.
type Content struct {
	Root tasks.CID
	Path string // inside the root; "": itself
	// From are multiaddrs, ending in /p2p/ID, of peers to ask first: members or not.
	From []string
}

func (c Content) String() string {
	if c.Path == "" {
		return string(c.Root)
	}
	return string(c.Root) + "/" + c.Path
}

// Data reads content by CID. Each method fetches from the mesh what is not
// here, until ctx ends.
type Data interface {
	Stat(ctx context.Context, c Content) (Entry, error)
	// Walk calls f for the content and then, when recursive, all below it or else
	// its direct entries, parents before children, paths relative to it.
	Walk(ctx context.Context, c Content, recursive bool, f func(Entry) error) error
	// Open reads length bytes (-1: to the end) of one file from offset, as they
	// come. A span that the file does not have is an error, as is a folder.
	Open(ctx context.Context, c Content, offset, length int64) (io.ReadCloser, error)
	// Fetch makes the content whole on this node. progress may be nil and is never
	// called at once from two goroutines.
	Fetch(ctx context.Context, c Content, progress func(Progress)) (Root, error)
}

// Uploads stores what a client sends.
type Uploads interface {
	// AddFile stores one stream as one file.
	AddFile(ctx context.Context, r io.Reader, opts AddOptions) (Root, error)
	// AddFolder stores a stream of files as one folder. next returns io.EOF at
	// the end; a File's Body is valid until the next call. Paths are clean,
	// relative, slash-separated and never leave the folder; no path comes twice.
	AddFolder(ctx context.Context, next func() (File, error), opts AddOptions) (Root, error)
}

// Pins keeps content from garbage collection.
type Pins interface {
	Pin(ctx context.Context, root tasks.CID, keep time.Duration) (Root, error) // fetches it whole; keep 0: for ever
	Unpin(ctx context.Context, root tasks.CID) error
	Pins(ctx context.Context) ([]Pin, error)
	GC(ctx context.Context) (GCReport, error)
}

// Archive moves content as CARv1 streams.
type Archive interface {
	ExportCAR(ctx context.Context, root tasks.CID, w io.Writer) error
	ImportCAR(ctx context.Context, r io.Reader, opts AddOptions) ([]Root, error)
}

// Submitter takes jobs. Both are durable before they return.
type Submitter interface {
	// Submit makes this node the job's origin. The spec's program, reduce and
	// inputs are CIDs.
	Submit(ctx context.Context, spec tasks.Spec) (tasks.JobID, error)
	// Publish signs the job and sends it to the mesh's jobs topic until it is
	// adopted and answered.
	Publish(ctx context.Context, spec tasks.Spec, opts PublishOptions) (tasks.JobID, error)
}

// Jobs shows and steers the jobs that this node holds or has published. IDs are
// whole: the API resolves abbreviated ones through List.
type Jobs interface {
	List(ctx context.Context) ([]Job, error) // newest first
	Job(ctx context.Context, id tasks.JobID) (Job, error)
	Cancel(ctx context.Context, id tasks.JobID) error
	Why(ctx context.Context, id tasks.JobID) ([]Wait, error) // what it waits for; none when it is over
}

// Results shows what became of a job's tasks.
type Results interface {
	// Tasks returns at most limit tasks from the offset-th on, in stage and
	// index order, and how many there are in all.
	Tasks(ctx context.Context, id tasks.JobID, offset, limit int) ([]Task, int, error)
	Logs(ctx context.Context, id tasks.JobID, ref tasks.Ref) ([]Log, error) // one for each attempt that left one
	Results(ctx context.Context, id tasks.JobID) (Output, error)
}

// Policies shows and sets what the device's owner allows.
type Policies interface {
	Policy(ctx context.Context) (Policy, error)
	Pause(ctx context.Context, d time.Duration) (Policy, error) // 0: until Resume
	Resume(ctx context.Context) (Policy, error)
}

// Doctor tries each step that a working node needs and names the fix.
type Doctor interface {
	Doctor(ctx context.Context) ([]Check, error)
}

// Events tells what happens.
type Events interface {
	// Subscribe returns events with an ID above after, as far as the node still
	// has them, and then those that come. The channel is bounded; the backend
	// closes it when ctx ends or when the reader is too slow, after an event of
	// kind EventLost.
	Subscribe(ctx context.Context, after uint64) (<-chan Event, error)
}

// Stopper ends the node.
type Stopper interface {
	// Stop asks the node to shut down and returns at once; the API answers
	// before it stops serving.
	Stop(ctx context.Context) error
}
