package market

import (
	"context"
	"slices"
	"testing"

	"github.com/kith-mesh/kith/tasks"
)

// Of jobs that are over the history of a bounded number of tasks stays in memory.
// People are told the same of the others: how they ended at once, each task from
// disk.
func TestHistoryOfManyTasks(t *testing.T) {
	inMesh(t, 3, nil, func(m *mesh) {
		n := m.all[0]
		n.svc.detailed = 12
		spec, _ := lineJob(n, 8)
		var jobs []tasks.JobID
		var ended []tasks.JobStatus
		for range 3 {
			v := m.done(n, m.submit(n, spec))
			jobs, ended = append(jobs, v.Record.ID), append(ended, v.Status)
		}
		detailed := func() (list []tasks.JobID) {
			n.svc.mu.Lock()
			all := slices.Clone(n.svc.finished)
			n.svc.mu.Unlock()
			for _, d := range all {
				if !d.brief() {
					list = append(list, d.job.ID)
				}
			}
			return list
		}
		if got := detailed(); !slices.Equal(got, jobs[2:]) {
			t.Errorf("the history of %v is in memory, want the last of %v", got, jobs)
		}
		for i, id := range jobs {
			v, err := n.svc.Job(context.Background(), id)
			if err != nil || v.Status.State != tasks.Done || v.Status.Decided != ended[i].Decided || !slices.EqualFunc(v.Status.Workers, ended[i].Workers, sameWork) || len(v.Status.Workers) == 0 {
				t.Errorf("job %d: %+v, %v, want %+v", i, v.Status, err, ended[i])
			}
		}
		list, err := n.svc.Tasks(context.Background(), jobs[0], tasks.StageMap, 0, 100)
		if err != nil || len(list) != 8 || slices.ContainsFunc(list, func(s tasks.TaskStatus) bool { return s.State != tasks.TaskDecided || s.Result == nil }) {
			t.Errorf("the first job's tasks: %+v, %v", list, err)
		}
		if got := detailed(); !slices.Equal(got, jobs[:1]) {
			t.Errorf("the history of %v is in memory, want that of who was looked at last, %v", got, jobs[0])
		}
	})
}

func sameWork(a, b tasks.WorkerShare) bool {
	return a.Worker == b.Worker && a.Accepted == b.Accepted && a.Failed == b.Failed && a.Rejected == b.Rejected
}

// A large history that is let go of takes no smaller and older one with it.
func TestHistoryBehindALargeOne(t *testing.T) {
	inMesh(t, 3, nil, func(m *mesh) {
		n := m.all[0]
		n.svc.detailed = 12
		for _, lines := range []int{1, 8, 2, 6} {
			spec, _ := lineJob(n, lines)
			m.done(n, m.submit(n, spec))
		}
		n.svc.mu.Lock()
		all := slices.Clone(n.svc.finished)
		n.svc.mu.Unlock()
		var brief []bool
		for _, d := range all {
			brief = append(brief, d.brief())
		}
		if !slices.Equal(brief, []bool{false, true, false, false}) {
			t.Errorf("of jobs of 1, 8, 2 and 6 tasks are brief: %v, want the second", brief)
		}
	})
}
