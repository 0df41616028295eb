package api

import (
	"io"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// Identity is who a node is.
type Identity struct {
	Peer      string    `json:"peer" doc:"libp2p peer ID"`
	Mesh      string    `json:"mesh" doc:"mesh ID"`
	MeshName  string    `json:"meshName,omitempty"`
	Open      bool      `json:"open" doc:"the root marked the mesh open: members of the same LAN may join without an invite"`
	Name      string    `json:"name,omitempty" doc:"the name in this node's member token"`
	Rights    []string  `json:"rights" nullable:"false" doc:"what its member token allows"`
	Expires   time.Time `json:"expires" doc:"when its member token ends; renewed in its last third"`
	Addresses []string  `json:"addresses" nullable:"false" doc:"multiaddrs that it listens on"`
	Founder   bool      `json:"founder" doc:"holds the mesh's root key"`
}

// Status is how a node is.
type Status struct {
	Identity
	Version      string       `json:"version"`
	Started      time.Time    `json:"started"`
	Ready        bool         `json:"ready"`
	NotReady     string       `json:"notReady,omitempty" doc:"what is missing"`
	API          string       `json:"api" doc:"address that this API listens on"`
	Home         string       `json:"home"`
	Light        bool         `json:"light" doc:"runs no job service"`
	Reachability Reachability `json:"reachability"`
	Members      int          `json:"members" doc:"connected members"`
	Known        int          `json:"known" doc:"members known, connected or not"`
	Neighbours   int          `json:"neighbours" doc:"members with an agreed link"`
	Store        Store        `json:"store"`
	Work         Work         `json:"work"`
	Policy       Policy       `json:"policy"`
}

// Reachability says how others can reach the node.
type Reachability struct {
	State     string   `json:"state" enum:"public,private,relayed,loopback,unknown"`
	Addresses []string `json:"addresses" nullable:"false" doc:"addresses that others are told"`
	Relays    []string `json:"relays,omitempty" doc:"peers that relay for it"`
	NAT       string   `json:"nat,omitempty" doc:"port mapping in use"`
	Detail    string   `json:"detail,omitempty" doc:"for people"`
}

// Store is how full the block store is.
type Store struct {
	Bytes  int64 `json:"bytes"`
	Max    int64 `json:"max" doc:"0: no limit"`
	Pinned int64 `json:"pinned" doc:"roots pinned"`
}

// Work is what the node does now.
type Work struct {
	Slots   int `json:"slots" doc:"tasks that it runs at once"`
	Running int `json:"running" doc:"tasks that it runs for others and itself"`
	Queued  int `json:"queued" doc:"assignments that wait for a slot"`
	Owed    int `json:"owed" doc:"answers that it has written down and that no origin has judged yet"`
	Jobs    int `json:"jobs" doc:"jobs that it is origin of and that are not over"`
}

// Peer is another member.
type Peer struct {
	ID          string    `json:"id"`
	Name        string    `json:"name,omitempty"`
	Connected   bool      `json:"connected"`
	Path        string    `json:"path,omitempty" enum:"direct,relayed,lan,loopback," doc:"how the connection runs"`
	Address     string    `json:"address,omitempty"`
	RTTMs       float64   `json:"rttMs,omitempty" doc:"measured, median of recent round trips, milliseconds; 0: not measured"`
	PredictedMs float64   `json:"predictedMs,omitempty" doc:"from coordinates, milliseconds; 0: none"`
	Link        string    `json:"link,omitempty" enum:"near,far," doc:"agreed link in the neighbourhood"`
	Agent       string    `json:"agent,omitempty"`
	Rights      []string  `json:"rights,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
	Since       time.Time `json:"since,omitzero" doc:"connected since"`
	Capacity    Capacity  `json:"capacity"`
	Problem     string    `json:"problem,omitempty" doc:"why it is not connected, when known"`
}

// Capacity is what a member offers.
type Capacity struct {
	Cores  float64  `json:"cores"`
	Memory int64    `json:"memory"`
	Disk   int64    `json:"disk"`
	Kinds  []string `json:"kinds,omitempty"`
	Paused bool     `json:"paused"`
}

// InviteRequest asks for an invite.
type InviteRequest struct {
	Uses      int      `json:"uses,omitempty" minimum:"0" maximum:"10000" doc:"how many nodes may redeem it; 0: one"`
	ExpiresIn string   `json:"expiresIn,omitempty" example:"24h" doc:"a duration; empty: 24h"`
	Rights    []string `json:"rights,omitempty" doc:"what the new members may do; empty: submit, work, host"`
	Name      string   `json:"name,omitempty" maxLength:"64" doc:"a note for invite ls"`
	Local     bool     `json:"local,omitempty" doc:"put loopback and bridge addresses into it as well, for nodes on this machine"`
}

// Invite is an invite as its issuer sees it.
type Invite struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`
	Line    string    `json:"line,omitempty" doc:"the secret line; shown once, by create"`
	Uses    int       `json:"uses" doc:"how often it may be redeemed"`
	Used    int       `json:"used"`
	Rights  []string  `json:"rights" nullable:"false"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked"`
}

// Audience says who may fetch content.
type Audience string

// The audiences, narrowest first.
const (
	AudienceJob    Audience = "job"    // the origin and workers of jobs that name it
	AudienceMesh   Audience = "mesh"   // members
	AudiencePublic Audience = "public" // anyone who asks
)

// AddOptions say how an upload is kept.
type AddOptions struct {
	Name     string
	Audience Audience
	Chunk    int64         // bytes a leaf; 0: the store's default
	Pin      bool          // by the user, until unpinned
	Keep     time.Duration // without Pin: how long gc leaves it alone; 0: the node's default
}

// File is one entry of an uploaded folder.
type File struct {
	Path string
	Dir  bool
	Exec bool
	Size int64 // -1: not known
	Body io.Reader
}

// Root is stored content.
type Root struct {
	CID   string `json:"cid"`
	Name  string `json:"name,omitempty"`
	Size  int64  `json:"size" doc:"bytes of content"`
	Files int64  `json:"files"`
	Dir   bool   `json:"dir"`
}

// Entry is one file or folder of stored content.
type Entry struct {
	Path string `json:"path" doc:"relative to what was asked for; empty for itself"`
	CID  string `json:"cid"`
	Size int64  `json:"size"`
	Dir  bool   `json:"dir"`
	Exec bool   `json:"exec,omitempty"`
	Link string `json:"link,omitempty" doc:"target of a symbolic link"`
}

// Progress is how far a transfer is.
type Progress struct {
	Done  int64 `json:"done" doc:"bytes"`
	Total int64 `json:"total" doc:"bytes; 0: not known yet"`
}

// Pin is a root that gc leaves alone.
type Pin struct {
	CID      string    `json:"cid"`
	Owner    string    `json:"owner" doc:"user, upload, or job:ID"`
	Name     string    `json:"name,omitempty"`
	Audience Audience  `json:"audience,omitempty"`
	Size     int64     `json:"size"`
	Until    time.Time `json:"until,omitzero" doc:"absent: for ever"`
}

// GCReport is what a collection did.
type GCReport struct {
	Blocks int64 `json:"blocks" doc:"blocks removed"`
	Bytes  int64 `json:"bytes" doc:"bytes freed"`
	Kept   int64 `json:"kept" doc:"blocks left"`
}

// PublishOptions say how a job is published.
type PublishOptions struct {
	ByCID bool // never carry program and inputs inline, however small
}

// Reason is why something failed or was refused: a number that never changes
// its meaning, and its text.
type Reason struct {
	Code uint32 `json:"code"`
	Text string `json:"text"`
}

// ReasonOf is r as the API writes it; nil for OK.
func ReasonOf(r tasks.Reason) *Reason {
	if r == tasks.OK {
		return nil
	}
	return &Reason{Code: uint32(r), Text: r.String()}
}

// StatePublished is the state of a published job that nobody has adopted yet.
// The others are those of tasks.State.
const StatePublished = "published"

// StateKept is the state of a published job that another host is origin of: it is
// kept here in case that one falls silent.
const StateKept = "kept"

// Job is a job as its origin or publisher sees it.
type Job struct {
	ID        string    `json:"id"`
	Name      string    `json:"name,omitempty"`
	Kind      string    `json:"kind"`
	State     string    `json:"state" enum:"published,kept,splitting,running,assembling,done,failed,cancelled"`
	Reason    *Reason   `json:"reason,omitempty" doc:"why it failed"`
	Detail    string    `json:"detail,omitempty"`
	Origin    string    `json:"origin,omitempty" doc:"peer that holds it; absent while nobody has adopted it"`
	Submitter string    `json:"submitter"`
	Published bool      `json:"published" doc:"came or went over the jobs topic"`
	Term      uint64    `json:"term"`
	Created   time.Time `json:"created"`
	Finished  time.Time `json:"finished,omitzero"`
	Replicas  int       `json:"replicas"`
	Stage     string    `json:"stage" enum:"map,reduce,"`
	Tasks     int       `json:"tasks" doc:"of both stages, the reduce counted from the start; 0 while the inputs are being split"`
	Done      int       `json:"done" doc:"tasks decided"`
	Leased    int       `json:"leased" doc:"tasks not decided that a worker has"`
	Waiting   int       `json:"waiting" doc:"tasks not decided that have no, or too few, workers"`
	Releases  int       `json:"releases" doc:"assignments leased again after a worker died, was slow or failed"`
	Copies    int       `json:"copies" doc:"copies of the slowest tasks at the tail"`
	Failures  int       `json:"failures" doc:"runs of the program that failed"`
	Workers   []Worker  `json:"workers" nullable:"false"`
	Rounds    int       `json:"rounds" doc:"offers made"`
	RadiusMs  float64   `json:"radiusMs,omitempty" doc:"of the last offer, milliseconds of predicted RTT"`
	Output    string    `json:"output,omitempty" doc:"CID, when done"`
	Size      int64     `json:"size,omitempty" doc:"bytes of the output"`
}

// Over reports whether no event moves the job any more.
func (j Job) Over() bool {
	return j.State == "done" || j.State == "failed" || j.State == "cancelled"
}

// Worker is what one peer did for a job.
type Worker struct {
	Peer     string  `json:"peer"`
	RTTMs    float64 `json:"rttMs,omitempty" doc:"milliseconds"`
	Holds    int     `json:"holds" doc:"assignments now"`
	Accepted int     `json:"accepted"`
	Failed   int     `json:"failed"`
	Rejected int     `json:"rejected"`
}

// Task is one task and where it ran.
type Task struct {
	Stage    string    `json:"stage" enum:"map,reduce"`
	Index    uint32    `json:"index"`
	State    string    `json:"state" enum:"waiting,leased,decided"`
	Releases int       `json:"releases"`
	Output   string    `json:"output,omitempty"`
	Size     int64     `json:"size,omitempty" doc:"bytes of the output"`
	Workers  []string  `json:"workers,omitempty" doc:"peers that agreed on the output"`
	Attempts []Attempt `json:"attempts" nullable:"false" doc:"the last ones"`
}

// Attempt is one assignment of a task to one worker.
type Attempt struct {
	Worker  string    `json:"worker"`
	Lease   string    `json:"lease"`
	Replica uint32    `json:"replica"`
	State   string    `json:"state" enum:"held,late,committed,revealing,answered,accepted,rejected,failed,lost,refused,revoked"`
	RTTMs   float64   `json:"rttMs,omitempty" doc:"when it was leased, milliseconds"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Reason  *Reason   `json:"reason,omitempty"`
}

// Wait is one thing that a job, or some of its tasks, waits for.
type Wait struct {
	Tasks  int       `json:"tasks" doc:"how many wait so"`
	Reason string    `json:"reason"`
	Next   time.Time `json:"next,omitzero" doc:"when it is tried again; absent: when something happens"`
}

// Log is the end of one attempt's stderr.
type Log struct {
	Stage   string `json:"stage"`
	Index   uint32 `json:"index"`
	Replica uint32 `json:"replica"`
	Worker  string `json:"worker"`
	Text    string `json:"text"`
}

// Output is what a job came to.
type Output struct {
	Job     string       `json:"job"`
	State   string       `json:"state"`
	CID     string       `json:"cid,omitempty" doc:"the whole output"`
	Size    int64        `json:"size"`
	Dir     bool         `json:"dir" doc:"the output is a folder"`
	Results []TaskResult `json:"results" nullable:"false" doc:"the accepted output of each decided task; at most 10000"`
}

// TaskResult is the one accepted output of a task.
type TaskResult struct {
	Stage   string   `json:"stage"`
	Index   uint32   `json:"index"`
	CID     string   `json:"cid"`
	Size    int64    `json:"size"`
	Workers []string `json:"workers" nullable:"false"`
}

// Policy is what the device's owner allows.
type Policy struct {
	CPU    string    `json:"cpu" doc:"as set: a share of the machine (50%) or cores (2)"`
	Cores  float64   `json:"cores"`
	Slots  int       `json:"slots" doc:"tasks at once"`
	Memory int64     `json:"memory" doc:"bytes that tasks may take together"`
	Disk   int64     `json:"disk" doc:"bytes that the store may take"`
	Paused bool      `json:"paused"`
	Until  time.Time `json:"until,omitzero" doc:"when the pause ends; absent while paused: when resumed"`
}

// CheckState is what a doctor's step came to.
type CheckState string

// The outcomes of a doctor's step.
const (
	CheckOK      CheckState = "ok"
	CheckWarn    CheckState = "warn"
	CheckFail    CheckState = "fail"
	CheckSkipped CheckState = "skipped" // not tried; Detail says why
)

// Check is one step of doctor.
type Check struct {
	Name   string     `json:"name" example:"reachability"`
	State  CheckState `json:"state" enum:"ok,warn,fail,skipped"`
	Detail string     `json:"detail"`
	Fix    string     `json:"fix,omitempty" doc:"what to do"`
	TookMs float64    `json:"tookMs"`
}

// The kinds of events.
const (
	EventJob    = "job"    // a job changed: Job, State
	EventTask   = "task"   // a task or attempt changed: Job, Stage, Index, State, Peer
	EventPeer   = "peer"   // a member came or went: Peer, State joined|left
	EventPolicy = "policy" // paused or resumed: State
	EventLost   = "lost"   // the reader was too slow; events are missing after this one
)

// Event is something that happened. IDs rise within one run of a node.
type Event struct {
	ID     uint64    `json:"id"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind" enum:"job,task,peer,policy,lost"`
	Job    string    `json:"job,omitempty"`
	Stage  string    `json:"stage,omitempty"`
	Index  *uint32   `json:"index,omitempty"`
	State  string    `json:"state,omitempty"`
	Peer   string    `json:"peer,omitempty"`
	Detail string    `json:"detail,omitempty"`
}
