//go:build freebsd || dragonfly

package runner

import "golang.org/x/sys/unix"

func limitOf(v uint64) *unix.Rlimit { return &unix.Rlimit{Cur: int64(v), Max: int64(v)} }
