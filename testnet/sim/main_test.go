package sim_test

import (
	"os"
	"runtime/debug"
	"testing"
)

// A mesh of a hundred makes much garbage of little live memory: collect seldom,
// within a bound.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(1500 << 20)
	os.Exit(m.Run())
}
