//go:build !amd64 && !arm64

package kernel

func machineTiers() []*Tier { return nil }

// spin has no instruction here that is kind to others.
func spin(int) {}

// fetch is a hint that nothing here can give.
func fetch(*float32, int, int, int) {}
