package runner

import (
	"encoding/binary"
	"slices"
)

// A tiny assembler for modules under 1 KiB: one function, _start, and a memory.

const (
	tI32 = 0x7f
	tI64 = 0x7e
)

// wasiTypes are the signatures of the WASI functions that the tests call: their
// parameters; all but proc_exit give an errno.
var wasiTypes = map[string][]byte{
	"fd_write":       {tI32, tI32, tI32, tI32},
	"fd_read":        {tI32, tI32, tI32, tI32},
	"fd_close":       {tI32},
	"proc_exit":      {tI32},
	"random_get":     {tI32, tI32},
	"clock_time_get": {tI32, tI64, tI32},
	"path_open":      {tI32, tI32, tI32, tI32, tI32, tI64, tI64, tI32, tI32},
	"path_symlink":   {tI32, tI32, tI32, tI32, tI32},
	"sock_shutdown":  {tI32, tI32},
}

// program is a module being assembled.
type program struct {
	min, max int // pages of memory; max 0: none
	code     []byte
	data     map[int]string
	funcs    []string
	from     string // module of the imports
	export   string
}

func newProgram() *program {
	return &program{min: 1, data: map[int]string{}, from: "wasi_snapshot_preview1", export: "_start"}
}

func uleb(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func sleb(v int64) (out []byte) {
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func (p *program) op(bytes ...byte) *program { p.code = append(p.code, bytes...); return p }
func (p *program) i32(v int) *program        { return p.op(append([]byte{0x41}, sleb(int64(v))...)...) }
func (p *program) i64(v int64) *program      { return p.op(append([]byte{0x42}, sleb(v)...)...) }
func (p *program) load32() *program          { return p.op(0x28, 2, 0) }
func (p *program) store32() *program         { return p.op(0x36, 2, 0) }
func (p *program) store8() *program          { return p.op(0x3a, 0, 0) }
func (p *program) drop() *program            { return p.op(0x1a) }
func (p *program) unreachable() *program     { return p.op(0x00) }
func (p *program) grow() *program            { return p.op(0x40, 0) }
func (p *program) loop(body func()) *program {
	p.op(0x03, 0x40)
	body()
	return p.op(0x0c, 0, 0x0b) // again, for ever
}
func (p *program) text(at int, s string) *program { p.data[at] = s; return p }

// call imports name at its first use. The arguments are on the stack.
func (p *program) call(name string) *program {
	i := slices.Index(p.funcs, name)
	if i < 0 {
		i = len(p.funcs)
		p.funcs = append(p.funcs, name)
	}
	return p.op(append([]byte{0x10}, uleb(uint64(i))...)...)
}

// vector stores an iovec of n bytes at at.
func (p *program) vector(iov, at, n int) *program {
	return p.i32(iov).i32(at).store32().i32(iov + 4).i32(n).store32()
}

// print writes n bytes at at to fd, through an iovec at 8; the errno is dropped.
func (p *program) print(fd, at, n int) *program {
	return p.vector(8, at, n).i32(fd).i32(8).i32(1).i32(16).call("fd_write").drop()
}

// digit prints the number on the stack, as a letter from 'a', to stdout.
func (p *program) letter() *program {
	p.op(0x21, 0) // local.set
	p.i32(32).op(0x20, 0).i32('a').op(0x6a).store8()
	return p.print(1, 32, 1)
}

func (p *program) exit(code int) *program { return p.i32(code).call("proc_exit") }

func section(id byte, body []byte) []byte {
	return append(append([]byte{id}, uleb(uint64(len(body)))...), body...)
}

func name(s string) []byte { return append(uleb(uint64(len(s))), s...) }

// wasm gives the module's bytes.
func (p *program) wasm() []byte {
	types := [][]byte{{0x60, 0, 0}}
	var imports []byte
	for i, f := range p.funcs {
		params := wasiTypes[f]
		t := append(append([]byte{0x60}, uleb(uint64(len(params)))...), params...)
		if f == "proc_exit" {
			t = append(t, 0)
		} else {
			t = append(t, 1, tI32)
		}
		types = append(types, t)
		imports = slices.Concat(imports, name(p.from), name(f), []byte{0}, uleb(uint64(i+1)))
	}
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = append(out, section(1, append(uleb(uint64(len(types))), slices.Concat(types...)...))...)
	out = append(out, section(2, append(uleb(uint64(len(p.funcs))), imports...))...)
	out = append(out, section(3, []byte{1, 0})...)
	out = append(out, section(4, []byte{1, 0x70, 0, 0})...)
	mem := append([]byte{1, 0}, uleb(uint64(p.min))...)
	if p.max > 0 {
		mem = slices.Concat([]byte{1, 1}, uleb(uint64(p.min)), uleb(uint64(p.max)))
	}
	out = append(out, section(5, mem)...)
	out = append(out, section(7, slices.Concat([]byte{2}, name("memory"), []byte{2, 0}, name(p.export), []byte{0}, uleb(uint64(len(p.funcs)))))...)
	body := slices.Concat([]byte{1, 1, tI32}, p.code, []byte{0x0b}) // one i32 local
	out = append(out, section(10, slices.Concat([]byte{1}, uleb(uint64(len(body))), body))...)
	var data []byte
	for _, at := range slices.Sorted(mapKeys(p.data)) {
		data = slices.Concat(data, []byte{0, 0x41}, sleb(int64(at)), []byte{0x0b}, name(p.data[at]))
	}
	return append(out, section(11, append(uleb(uint64(len(p.data))), data...))...)
}

func mapKeys(m map[int]string) func(func(int) bool) {
	return func(yield func(int) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// The programs that the tests run.

func nothing() *program { return newProgram() }

func spin() *program { p := newProgram(); return p.loop(func() {}) }

// talkThenSpin fills more than any buffer, so that somebody hears of it, and
// then spins.
func talkThenSpin() *program {
	p := newProgram()
	p.min = 4
	p.print(1, 1024, 200<<10)
	return p.loop(func() {})
}

func hello(text string) *program { return newProgram().text(64, text).print(1, 64, len(text)) }

// growForEver asks for a page at a time; after a refusal it exits with 9.
func growForEver() *program {
	p := newProgram()
	return p.loop(func() {
		p.i32(1).grow().i32(-1).op(0x46, 0x04, 0x40) // i32.eq, if
		p.exit(9).op(0x0b)
	})
}

// growTable takes memory that is not the program's own.
func growTable() *program {
	p := newProgram()
	return p.loop(func() { p.op(0xd0, 0x70).i32(1<<20).op(0xfc, 15, 0).drop() })
}

func printForEver(fd int) *program {
	p := newProgram()
	return p.loop(func() { p.print(fd, 1024, 60_000) })
}

// dirOut and dirIn are the descriptors of the mounts.
const (
	dirIn  = 3
	dirOut = 4
)

// open opens the path at at and leaves the errno; the descriptor is at 48.
func (p *program) open(dir, at, n, oflags int, rights int64) *program {
	return p.i32(dir).i32(1).i32(at).i32(n).i32(oflags).i64(rights).i64(0).i32(0).i32(48).call("path_open")
}

const (
	oCreate     = 1
	rightRead   = 2
	rightWrite  = 64
	bothRights  = rightRead | rightWrite
	errnoNoEnt  = 44
	errnoPerm   = 63
	errnoROFS   = 69
	errnoBadF   = 8
	errnoAccess = 2
)

// writeOut makes /out/<file> with text in it.
func writeOut(file, text string) *program {
	p := newProgram().text(64, file).text(128, text)
	p.open(dirOut, 64, len(file), oCreate, bothRights).drop()
	return p.vector(8, 128, len(text)).i32(48).load32().i32(8).i32(1).i32(16).call("fd_write").drop()
}

// tryOpen prints the errno of opening path as a letter: 'a' is none.
func tryOpen(dir int, path string, oflags int, rights int64) *program {
	return newProgram().text(64, path).open(dir, 64, len(path), oflags, rights).letter()
}

// chance prints 32 random bytes and two readings of both clocks.
func chance() *program {
	p := newProgram().i32(64).i32(32).call("random_get").drop()
	for i, clock := range []int{0, 1, 0, 1} {
		p.i32(clock).i64(1).i32(96 + 8*i).call("clock_time_get").drop()
	}
	return p.print(1, 64, 64)
}

// copyOnce reads up to n bytes of stdin once and prints them.
func copyOnce(n int) *program {
	p := newProgram().vector(8, 1024, n).i32(0).i32(8).i32(1).i32(16).call("fd_read").drop()
	p.i32(8).i32(1024).store32().i32(12).i32(16).load32().store32()
	return p.i32(1).i32(8).i32(1).i32(16).call("fd_write").drop()
}
