package node

import (
	"fmt"
	"runtime"

	"github.com/pbnjay/memory"

	"github.com/kith-mesh/kith/node/policy"
)

// machine measures what there is to give.
func machine(home Home) (policy.Machine, error) {
	m := policy.Machine{Cores: runtime.NumCPU(), Memory: int64(memory.TotalMemory())}
	if m.Memory <= 0 {
		return m, fmt.Errorf("node: the machine's memory is not known on %s: set --memory in bytes", runtime.GOOS)
	}
	var err error
	if m.Disk, _, err = volume(string(home)); err != nil {
		return m, fmt.Errorf("node: size of the volume of %s: %w", home, err)
	}
	return m, nil
}
