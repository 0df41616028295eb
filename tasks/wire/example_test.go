package wire_test

import (
	"fmt"
	"strings"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// A ticket names the lease by which a worker asks for its inputs.
func Example() {
	b, err := wire.MarshalTicket(wire.Ticket{Job: tasks.JobID(strings.Repeat("a", 52)), Lease: "1.7"})
	if err != nil {
		fmt.Println(err)
		return
	}
	t, err := wire.UnmarshalTicket(b)
	fmt.Println(t.Lease, err)
	_, err = wire.UnmarshalTicket(b[:20])
	fmt.Println(err != nil)
	// Output:
	// 1.7 <nil>
	// true
}
