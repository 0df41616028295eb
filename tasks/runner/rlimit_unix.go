//go:build unix && !freebsd && !dragonfly

package runner

import "golang.org/x/sys/unix"

func limitOf(v uint64) *unix.Rlimit { return &unix.Rlimit{Cur: v, Max: v} }
