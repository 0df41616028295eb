package market_test

import (
	"fmt"

	"github.com/kith-mesh/kith/tasks/market"
)

// A job is named by the bytes that its submitter signed.
func ExampleJobIDOf() {
	id := market.JobIDOf([]byte("signed bytes"))
	fmt.Println(len(id), id == market.JobIDOf([]byte("signed bytes")), id == market.JobIDOf([]byte("other bytes")))
	// Output: 52 true false
}
