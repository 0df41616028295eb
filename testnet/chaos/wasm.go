package chaos

import (
	"encoding/binary"
	"slices"
)

// The programs are modules of some 300 bytes, made here: thousands of tasks must
// cost the mesh its own work, not a language's start.

const (
	i32 = 0x7f
	at  = 1024 // where programs keep what they read
)

// imports are the WASI functions used, with their parameters; all but proc_exit
// give an errno.
var imports = []struct {
	name   string
	params []byte
}{
	{"fd_read", []byte{i32, i32, i32, i32}},
	{"fd_write", []byte{i32, i32, i32, i32}},
	{"random_get", []byte{i32, i32}},
	{"poll_oneoff", []byte{i32, i32, i32, i32}},
	{"proc_exit", []byte{i32}},
}

// code is a function's body being written. It has one local: bytes held.
type code []byte

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

func (c *code) op(b ...byte) *code { *c = append(*c, b...); return c }
func (c *code) num(v int) *code    { return c.op(0x41).op(sleb(int64(v))...) }
func (c *code) held() *code        { return c.op(0x20, 0) }
func (c *code) add() *code         { return c.op(0x6a) }
func (c *code) load() *code        { return c.op(0x28, 2, 0) }
func (c *code) store() *code       { return c.op(0x36, 2, 0) }
func (c *code) drop() *code        { return c.op(0x1a) }

func (c *code) call(name string) *code {
	for i, f := range imports {
		if f.name == name {
			return c.op(0x10, byte(i))
		}
	}
	panic("no import " + name)
}

// vector tells fd_read and fd_write of the bytes from at+from on; size is on the
// stack above the address that this leaves below it.
func (c *code) read() *code {
	c.num(0).num(at).held().add().store()
	c.num(4).num(4096).store()
	return c.num(0).num(0).num(1).num(8).call("fd_read").drop()
}

func (c *code) write(extra int) *code {
	c.num(0).num(at).store()
	c.num(4).held().num(extra).add().store()
	return c.num(1).num(0).num(1).num(8).call("fd_write").drop()
}

// until runs body again and again until the last read gave nothing.
func (c *code) untilEmpty(body func()) *code {
	c.op(0x02, 0x40, 0x03, 0x40) // block, loop
	c.read()
	c.num(8).load().op(0x45, 0x0d, 1) // eqz, br_if out
	body()
	return c.op(0x0c, 0, 0x0b, 0x0b) // again; end, end
}

// all reads standard input to its end.
func (c *code) all() *code {
	return c.untilEmpty(func() { c.held().num(8).load().add().op(0x21, 0) })
}

// spin counts to so many million.
func (c *code) spin(millions int) *code {
	if millions == 0 {
		return c
	}
	c.op(0x03, 0x40).held().num(1).add().op(0x22, 0)  // loop; held++
	c.num(millions*1_000_000).op(0x49, 0x0d, 0, 0x0b) // lt_u, br_if again; end
	return c.num(0).op(0x21, 0)                       // held = 0
}

// draw copies its input and adds random bytes: the same for every replica, or
// others at each run of a job that says it is nondeterministic. It counts and sleeps
// first.
func draw(random, sleepMs, spin int) []byte {
	c := new(code).spin(spin)
	if sleepMs > 0 { // one subscription: a clock, relative
		c.num(512+24).op(0x42).op(sleb(int64(sleepMs)*1e6)...).op(0x37, 3, 0) // i64.store
		c.num(512 + 16).num(1).store()                                        // monotonic
		c.num(512).num(600).num(1).num(700).call("poll_oneoff").drop()
	}
	c.all()
	c.num(at).held().add().num(random).call("random_get").drop()
	return module(c.write(random))
}

// join copies its input.
func join() []byte {
	c := new(code)
	return module(c.untilEmpty(func() {
		c.num(8).load().op(0x21, 0) // held = read
		c.write(0)
		c.num(0).op(0x21, 0)
	}))
}

// fail ends with an exit code.
func fail(spin int) []byte { return module(new(code).spin(spin).num(3).call("proc_exit")) }

// module wraps a body as _start, with room for what programs hold.
func module(c *code) []byte {
	uleb := func(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }
	vec := func(items ...[]byte) []byte { return slices.Concat(append([][]byte{uleb(len(items))}, items...)...) }
	name := func(s string) []byte { return append(uleb(len(s)), s...) }
	section := func(id byte, body []byte) []byte { return slices.Concat([]byte{id}, uleb(len(body)), body) }
	var types, from [][]byte
	for i, f := range imports {
		results := []byte{1, i32}
		if f.name == "proc_exit" {
			results = []byte{0}
		}
		types = append(types, slices.Concat([]byte{0x60}, uleb(len(f.params)), f.params, results))
		from = append(from, slices.Concat(name("wasi_snapshot_preview1"), name(f.name), []byte{0, byte(i)}))
	}
	types = append(types, []byte{0x60, 0, 0})
	start := byte(len(imports))
	body := slices.Concat([]byte{1, 1, i32}, *c, []byte{0x0b})
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vec(types...)), section(2, vec(from...)), section(3, vec([]byte{start})), section(5, vec([]byte{0, 4})),
		section(7, vec(slices.Concat(name("memory"), []byte{2, 0}), slices.Concat(name("_start"), []byte{0, start}))),
		section(10, vec(append(uleb(len(body)), body...))))
}
