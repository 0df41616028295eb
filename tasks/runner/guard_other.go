//go:build !unix

package runner

import (
	"fmt"
	"os"
)

// guardMain has nothing to do where the system itself ends orphans.
func guardMain() int {
	fmt.Fprintln(os.Stderr, "kith guard: this system needs none")
	return 2
}
