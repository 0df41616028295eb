package sim_test

import (
	"fmt"

	"github.com/kith-mesh/kith/testnet/sim"
)

// Where nodes stand is known without a mesh; what runs one is a test (see Run).
func ExampleContinents() {
	l := sim.Continents(1, 100)
	near := l.Nearest(0)[0]
	fmt.Println(near%3 == 0, l.RTT(0, near) < sim.Far, l.RTT(0, 1) > sim.Far)
	l.Swap(near, 1)
	fmt.Println(l.Nearest(0)[0])
	// Output:
	// true true true
	// 1
}
