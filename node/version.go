package node

import (
	"runtime/debug"
	"sync"
)

// release is set at build time by -ldflags "-X .../node.release=v1.2.3".
var release = ""

// Version names this build: its release, else the revision that it was built
// from, else dev.
var Version = sync.OnceValue(func() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
})
