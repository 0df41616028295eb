package market

import (
	"context"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

func TestJobAcrossNodes(t *testing.T) {
	inMesh(t, 4, nil, func(m *mesh) {
		n := m.all[0]
		spec, want := lineJob(n, 60)
		id := m.submit(n, spec)
		v := m.done(n, id)
		m.want(n, v, want)
		who := m.workers(n, id)
		if len(who) < 3 {
			t.Errorf("only %d nodes worked: %v", len(who), who)
		}
		logs, err := n.svc.Logs(context.Background(), id, tasks.Ref{Index: 3})
		if err != nil || len(logs) == 0 || string(logs[len(logs)-1].Receipt.Log) != "ran 3" {
			t.Errorf("logs of task 3: %v, %v", logs, err)
		}
		time.Sleep(time.Minute)
		for _, o := range m.all {
			if owed, err := o.store.OwedReceipts(context.Background()); err != nil || len(owed) > 0 {
				t.Errorf("node %d has %d receipts without a verdict, %v", o.i, len(owed), err)
			}
			if w, _ := o.svc.Work(); w.Running+w.Queued+w.Receipts > 0 || w.Jobs > 0 {
				t.Errorf("node %d still has work in hand: %+v", o.i, w)
			}
		}
	})
}
