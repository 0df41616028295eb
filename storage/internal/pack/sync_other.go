//go:build !linux

package pack

import "os"

func dataSync(f *os.File) error { return f.Sync() }

func StartSync(*os.File, int64, int64) {}
