package runner

import (
	"context"
	"testing"

	"github.com/kith-mesh/kith/tasks"
)

// Whatever bytes are called a program, loading them gives a guest or a numbered
// reason, and never ends the child.
func FuzzModule(f *testing.F) {
	for _, p := range []*program{newProgram(), newProgram().print(1, 64, 5).text(64, "hello"), newProgram().grow().drop(), newProgram().unreachable()} {
		f.Add(p.wasm())
	}
	foreign := newProgram().call("sock_shutdown")
	foreign.from = "env"
	f.Add(foreign.wasm())
	f.Add([]byte("\x00asm\x01\x00\x00\x00\xff"))
	cache := f.TempDir()
	f.Fuzz(func(t *testing.T, module []byte) {
		ctx := context.Background()
		g, said, err := loadGuest(ctx, loadMessage{CacheDir: cache, Scratch: t.TempDir(), Memory: 16 << 20}, module)
		switch {
		case err != nil:
			t.Error(err)
		case g == nil && tasks.Reason(said.Reason) == tasks.OK:
			t.Error("no guest and no reason")
		case g != nil:
			if err := g.scratch.Close(); err != nil {
				t.Error(err)
			}
			if err := g.runtime.Close(ctx); err != nil {
				t.Error(err)
			}
		}
	})
}
