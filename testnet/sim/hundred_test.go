package sim_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kith-mesh/kith/testnet/sim"
)

func cpu() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

var origins = []int{0, 20, 40, 61, 82, 98}

func TestHundred(t *testing.T) {
	for name, cfg := range map[string]sim.Config{"norm": {}, "flood": {Flood: true}, "random": {Random: true}, "given": {Given: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Nodes = 100
			cfg.Settle = time.Minute
			sim.Run(t, cfg, func(m *sim.Mesh) {
				t.Logf("%v err %v", m.Survey(origins, 12), m.PredictionError(origins))
				for range 3 {
					sim.Sleep(20 * time.Second)
					t.Logf("%v err %v", m.Survey(origins, 12), m.PredictionError(origins))
				}
				var moved []int
				for i := 0; i < 30; i += 3 {
					m.Latency.Swap(i, i+1)
					moved = append(moved, i, i+1)
				}
				for range 6 {
					sim.Sleep(30 * time.Second)
					t.Logf("moved: %v err %v", m.Survey(moved[:8], 12), m.PredictionError(moved))
				}
			})
		})
	}
}
