package api

import (
	"strconv"

	"github.com/kith-mesh/kith/tasks"
)

// StateName is how the API writes a job's state.
func StateName(s tasks.State) string {
	names := [...]string{tasks.Splitting: "splitting", tasks.Running: "running", tasks.Assembling: "assembling",
		tasks.Done: "done", tasks.Failed: "failed", tasks.Cancelled: "cancelled"}
	return name(names[:], int(s), "state")
}

// StatePublished is the state of a published job that nobody has adopted yet.
const StatePublished = "published"

// StageName is how the API writes a stage.
func StageName(s tasks.Stage) string {
	return name([]string{tasks.StageMap: "map", tasks.StageReduce: "reduce"}, int(s), "stage")
}

// TaskStateName is how the API writes a task's state.
func TaskStateName(s tasks.TaskState) string {
	names := [...]string{tasks.TaskWaiting: "waiting", tasks.TaskLeased: "leased", tasks.TaskDecided: "decided"}
	return name(names[:], int(s), "state")
}

// AttemptStateName is how the API writes what became of an attempt.
func AttemptStateName(s tasks.AttemptState) string {
	names := [...]string{tasks.AttemptHeld: "held", tasks.AttemptLate: "late", tasks.AttemptAnswered: "answered",
		tasks.AttemptAccepted: "accepted", tasks.AttemptRejected: "rejected", tasks.AttemptFailed: "failed",
		tasks.AttemptLost: "lost", tasks.AttemptRefused: "refused", tasks.AttemptRevoked: "revoked"}
	return name(names[:], int(s), "attempt")
}

// ReasonOf is how the API writes a reason; nil for OK.
func ReasonOf(r tasks.Reason) *Reason {
	if r == tasks.OK {
		return nil
	}
	return &Reason{Code: uint32(r), Text: r.String()}
}

func name(names []string, i int, what string) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return what + " " + strconv.Itoa(i)
}
