//go:build !linux

package runner

const (
	nodeArg  = "__node"
	wallsArg = "__walls"
)

func nodeMain([]string) int  { return 2 }
func wallsMain([]string) int { return 2 }
