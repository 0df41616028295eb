// Package verify decides from the answers of several workers whether a task's
// output can be believed. It is pure: it never runs, fetches or compares bytes;
// equal CIDs are equal outputs.
package verify

import (
	"fmt"
	"sort"
	"strings"

	"github.com/kith-mesh/kith/tasks"
)

// Decide is the [tasks.Judge] for the modes that a spec can ask for. Under none
// the first answer is accepted. Under quorum the first output that v.Replicas
// different peers gave is; while there is none, it asks for as many answers as
// the most frequent output lacks; with v.Replicas+r.Max answers and no quorum it
// gives up. A second answer of one peer counts for nothing.
func Decide(v tasks.Verify, r tasks.Retry, answers []tasks.Answered) tasks.Judgement {
	need := uint32(1)
	if v.Mode == tasks.VerifyQuorum {
		need = max(v.Replicas, 1)
	}
	seen := make(map[tasks.PeerID]bool, len(answers))
	votes := make(map[tasks.CID]uint32, 1)
	var most, heard uint32
	for _, a := range answers {
		if seen[a.Worker] {
			continue
		}
		seen[a.Worker] = true
		heard++
		votes[a.Output]++
		if most = max(most, votes[a.Output]); votes[a.Output] == need {
			return tasks.Judgement{Decided: true, Output: a.Output}
		}
	}
	more := need - most
	if bound := need + r.Max; heard+more > bound {
		return tasks.Judgement{NoQuorum: true, Detail: Who(answers)}
	}
	return tasks.Judgement{More: more}
}

// Who tells who answered what: outputs with the most peers first.
func Who(answers []tasks.Answered) string {
	peers := make(map[tasks.CID][]string)
	var outputs []tasks.CID
	seen := make(map[tasks.PeerID]bool)
	for _, a := range answers {
		if seen[a.Worker] {
			continue
		}
		seen[a.Worker] = true
		if peers[a.Output] == nil {
			outputs = append(outputs, a.Output)
		}
		peers[a.Output] = append(peers[a.Output], string(a.Worker))
	}
	sort.SliceStable(outputs, func(i, j int) bool { return len(peers[outputs[i]]) > len(peers[outputs[j]]) })
	parts := make([]string, len(outputs))
	for i, o := range outputs {
		parts[i] = fmt.Sprintf("%s from %s", o, strings.Join(peers[o], ", "))
	}
	return strings.Join(parts, "; ")
}
