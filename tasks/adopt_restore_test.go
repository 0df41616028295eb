package tasks_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// A restarted host is what it was: both its records and its machine say who is
// origin, also of one that yielded and led again, or that yielded at its own
// term to a nearer host.
func TestRestoredRole(t *testing.T) {
	for _, c := range []struct {
		name          string
		term, yielded uint64
		want          tasks.Role
	}{
		{"keeps", 0, 0, tasks.RoleKeeper},
		{"leads", 1, 0, tasks.RoleOrigin},
		{"yielded", 1, 2, tasks.RoleKeeper},
		{"yielded to a nearer one", 2, 2, tasks.RoleKeeper},
		{"leads again", 3, 2, tasks.RoleOrigin},
	} {
		cfg := tasks.AdoptionConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 2))}
		a, err := tasks.RestoreAdoption(cfg, "job", "submitter", tasks.AdoptionRecord{Adopted: true, Term: c.term, Yielded: c.yielded}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if role, _, _ := a.Role(); role != c.want {
			t.Errorf("%s: role %d, want %d", c.name, role, c.want)
		}
		if got := (wire.JobRecord{Term: c.term, Yielded: c.yielded}).Origin(); got != (c.want == tasks.RoleOrigin) {
			t.Errorf("%s: the record says origin: %v", c.name, got)
		}
	}
}
