package runner

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/kith-mesh/kith/tasks"
)

// programName is args[0] of every program.
const programName = "program"

// guest is a compiled program in a child.
type guest struct {
	runtime wazero.Runtime
	module  wazero.CompiledModule
	memory  int64
	in      *inputs
	scratch *os.Root
	base    wazero.ModuleConfig
	serial  int // names files in scratch
}

// loadGuest compiles a program. A nil guest with a Reason other than OK is the
// program's fault.
func loadGuest(ctx context.Context, m loadMessage, module []byte) (*guest, readyMessage, error) {
	cache, err := wazero.NewCompilationCacheWithDir(m.CacheDir)
	if err != nil {
		return nil, readyMessage{}, fmt.Errorf("open cache: %w", err)
	}
	// The allocator holds the limit, so that it can tell that it was met.
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().
		WithCompilationCache(cache).WithCloseOnContextDone(false))
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return nil, readyMessage{}, fmt.Errorf("instantiate WASI: %w", err)
	}
	compiled, err := rt.CompileModule(ctx, module)
	if err != nil {
		return nil, failure(tasks.BadProgram, "%v", err), nil
	}
	known := rt.Module(wasi_snapshot_preview1.ModuleName).ExportedFunctionDefinitions()
	for _, f := range compiled.ImportedFunctions() {
		from, name, _ := f.Import()
		if _, ok := known[name]; !ok || from != wasi_snapshot_preview1.ModuleName {
			return nil, failure(tasks.BadProgram, "imports %s.%s: only the functions of %s are here",
				from, name, wasi_snapshot_preview1.ModuleName), nil
		}
	}
	if f, ok := compiled.ExportedFunctions()["_start"]; !ok || len(f.ParamTypes())+len(f.ResultTypes()) > 0 {
		return nil, failure(tasks.BadProgram, "exports no _start: build it as a WASI command, not as a library"), nil
	}
	for _, mem := range compiled.ImportedMemories() {
		from, name, _ := mem.Import()
		return nil, failure(tasks.BadProgram, "imports the memory %s.%s", from, name), nil
	}
	g := &guest{runtime: rt, module: compiled, memory: m.Memory, base: wazero.NewModuleConfig().WithName("").WithStartFunctions()}
	if g.in, err = openInputs(m.Inputs); err != nil {
		return nil, readyMessage{}, err
	}
	if g.scratch, err = os.OpenRoot(m.Scratch); err != nil {
		return nil, readyMessage{}, fmt.Errorf("open scratch: %w", err)
	}
	if len(module) > 1<<20 { // what compiling left is not the program's
		debug.FreeOSMemory()
	}
	return g, readyMessage{}, nil
}

// run runs one task in a fresh instance. An error ends the child.
func (g *guest) run(ctx context.Context, t taskMessage, in *stdin, w *bufio.Writer) (doneMessage, error) {
	book := &ledger{limit: t.Output}
	logs := &stderr{w: w, ledger: book, kept: tail{max: 64 << 10}}
	out := newOutputs(g.scratch, book, &g.serial)
	mem := &memory{limit: g.memory}

	conf := g.base.WithArgs(append([]string{programName}, t.Args...)...).
		WithStdin(in).WithStdout(&stdout{w, book}).WithStderr(logs)
	for _, e := range t.Env {
		name, value, _ := strings.Cut(e, "=")
		conf = conf.WithEnv(name, value)
	}
	mounts := wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(g.in, "/in")
	if t.Out {
		mounts = mounts.(sysfs.FSConfig).WithSysFSMount(out, "/out")
	}
	conf = conf.WithFSConfig(mounts)
	conf, err := timeAndChance(conf, t.Seed)
	if err != nil {
		return doneMessage{}, err
	}

	stopped, began := g.instance(experimental.WithMemoryAllocator(ctx, mem), conf)
	mem.release()
	done := doneMessage{Memory: mem.peak, Input: in.read, Log: logs.kept.bytes()}
	done.Reason, done.Code, done.Detail = judge(stopped, began, book, mem)
	if in.err != nil || book.err != nil || mem.err != nil {
		return done, errors.Join(in.err, book.err, mem.err)
	}
	if tasks.Reason(done.Reason) != tasks.OK {
		return done, out.discard()
	}
	return done, out.send(w)
}

// instance runs _start and says how it ended, and whether it ever began.
func (g *guest) instance(ctx context.Context, conf wazero.ModuleConfig) (err error, began bool) {
	var mod api.Module
	defer func() {
		if mod != nil {
			err = errors.Join(err, mod.Close(ctx))
		}
		if p := recover(); p != nil { // the allocator refuses a first size by it
			err = fmt.Errorf("%v", p)
		}
	}()
	if mod, err = g.runtime.InstantiateModule(ctx, g.module, conf); err != nil {
		return err, false
	}
	_, err = mod.ExportedFunction("_start").Call(ctx)
	return err, true
}

// judge turns how a program ended into a Reason.
func judge(err error, began bool, book *ledger, mem *memory) (reason uint32, code uint32, detail string) {
	give := func(r tasks.Reason, code uint32, detail string) (uint32, uint32, string) {
		return uint32(r), code, clip(detail)
	}
	var exit *sys.ExitError
	exited := errors.As(err, &exit)
	switch {
	case book.over:
		return give(tasks.OutputLimit, 0, book.detail)
	case err == nil, exited && exit.ExitCode() == 0:
		return give(tasks.OK, 0, "")
	case mem.refused > 0:
		if exited {
			code = exit.ExitCode()
		}
		return give(tasks.OutOfMemory, code, fmt.Sprintf("asked for %d bytes of memory, %d allowed, then: %v", mem.refused, mem.limit, err))
	case exited:
		return give(tasks.ExitCode, exit.ExitCode(), fmt.Sprintf("exit code %d", exit.ExitCode()))
	case !began && !strings.Contains(err.Error(), "wasm error:"):
		return give(tasks.BadProgram, 0, err.Error())
	}
	return give(tasks.Trap, 0, err.Error())
}

// epoch is when every deterministic program starts: 2020-01-01 in UTC.
const epoch = 1577836800

// fileTime stands for every time of every file that a program sees.
const fileTime = epoch * int64(time.Second)

// timeAndChance gives a program the fixed clock and seeded randomness, or the
// host's when there is no seed.
func timeAndChance(conf wazero.ModuleConfig, seed []byte) (wazero.ModuleConfig, error) {
	if len(seed) == 0 {
		return conf.WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(crand.Reader), nil
	}
	if len(seed) != 32 {
		return nil, fmt.Errorf("seed of %d bytes, not 32", len(seed))
	}
	var passed int64 // ns
	const step = int64(time.Microsecond)
	return conf.WithRandSource(io.Reader(rand.NewChaCha8([32]byte(seed)))).
		WithWalltime(func() (int64, int32) {
			passed += step
			return epoch + passed/1e9, int32(passed % 1e9)
		}, sys.ClockResolution(step)).
		WithNanotime(func() int64 { passed += step; return passed }, sys.ClockResolution(step)).
		WithNanosleep(func(ns int64) {
			if ns > 0 && passed < 1<<62 {
				passed += min(ns, 1<<62)
			}
		}).
		WithOsyield(func() { passed += step }), nil
}
