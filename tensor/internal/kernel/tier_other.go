//go:build !amd64 && !arm64

package kernel

func machineTiers() []*Tier { return nil }

// spin has no instruction here that is kind to others.
func spin(int) {}
