//go:build unix

package testnet

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/tasks"
)

// garble changes some bytes of what a node keeps on its disk, wherever it keeps
// them, whether it runs or not.
func (l *lab) garble(p *Process, some []byte) {
	l.t.Helper()
	hits := 0
	l.must(filepath.WalkDir(filepath.Join(p.Home, "blocks"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		for from := 0; ; {
			at := bytes.Index(b[from:], some)
			if at < 0 {
				return f.Close()
			}
			if _, err := f.WriteAt([]byte{^some[0], ^some[1]}, int64(from+at)); err != nil {
				return errors.Join(err, f.Close())
			}
			from += at + 2
			hits++
		}
	}))
	if hits == 0 {
		l.t.Fatalf("%s does not have the bytes to be garbled", p.Name)
	}
}

func (l *lab) cat(p *Process, c tasks.CID) ([]byte, error) {
	r, err := p.Client.Cat(l.ctx, c, "", 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// noise is text of its own for each seed: two lines a kilobyte.
func noise(seed uint64, size int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for i := range b {
		if b[i] = "abcdefghijklmnopqrstuvwxyz      "[rng.IntN(32)]; i%512 == 511 {
			b[i] = '\n'
		}
	}
	return b
}

// readsAgain wants the right bytes from a node that has them damaged, as another
// has them whole.
func (l *lab) readsAgain(p *Process, c tasks.CID, want []byte) {
	l.t.Helper()
	if got, err := l.cat(p, c); err != nil || !bytes.Equal(got, want) {
		l.t.Errorf("%s reads %d bytes, %v; want the right %d", p.Name, len(got), err, len(want))
	}
}

// reports wants an error that names the CID and says what to do, and no wrong
// byte before it.
func (l *lab) reports(p *Process, c tasks.CID, want []byte) {
	l.t.Helper()
	got, err := l.cat(p, c)
	if !bytes.HasPrefix(want, got) {
		l.t.Errorf("%s gives wrong bytes", p.Name)
	}
	if len(got) > 0 { // it was on its way; whoever asks again is told at once
		if err == nil {
			l.t.Errorf("%s gives %d bytes of a damaged file of %d as whole", p.Name, len(got), len(want))
		}
		got, err = l.cat(p, c)
	}
	var e *api.Error
	if len(got) > 0 || !errors.As(err, &e) || client.ClassOf(err) != client.Failed || !strings.Contains(e.Error(), "is damaged on this node's disk") || !strings.Contains(e.Error(), string(c)) || !strings.Contains(e.Hint, "kith add") {
		l.t.Errorf("%s gives %d bytes and says %v, want an error that names %s and the fix", p.Name, len(got), err, c)
	}
}

func (l *lab) doctorNames(p *Process, c tasks.CID, damaged bool) {
	l.t.Helper()
	checks, err := p.Client.Doctor(l.ctx)
	l.must(err)
	for _, k := range checks {
		if k.Name == "blocks" {
			if got := k.State == api.CheckFail && strings.Contains(k.Detail, string(c)) && strings.Contains(k.Fix, "kith add"); got != damaged {
				l.t.Errorf("doctor says of %s: %+v, want damaged: %v", c, k, damaged)
			}
			return
		}
	}
	l.t.Error("doctor looked at no blocks")
}

// Bytes of blocks are garbled on the disk under a node, running or stopped. What
// another member has is fetched again; what nobody has is reported by CID, with
// what to do; nothing wrong is served, read or given to a program, and a job that
// needs it says so and waits.
func TestDamagedBlocks(t *testing.T) {
	scenario(t)
	l := newLab(t, 3, nil)
	a, b := l.origin, l.nodes[1]
	l.pause(a)
	// both is a file that both have; it spans some blocks.
	both := func(l *lab, seed uint64) (tasks.CID, []byte) {
		l.t.Helper()
		text := noise(seed, 3<<20)
		c := l.upload(a, "text", text, api.AudienceMesh)
		if _, err := b.Client.Pin(l.ctx, c, 0); err != nil {
			l.t.Fatal(err)
		}
		return c, text
	}
	for _, down := range []bool{false, true} {
		name := "under a running node"
		if down {
			name = "under a stopped node"
		}
		harm := func(l *lab, p *Process, some []byte) {
			l.t.Helper()
			if down {
				l.must(p.Kill())
			}
			l.garble(p, some)
			if down {
				l.start(p)
				l.must(WaitMet(l.ctx, l.nodes))
			}
		}
		seed := uint64(1)
		if down {
			seed = 100
		}
		t.Run(name, func(t *testing.T) {
			t.Run("another has it", func(t *testing.T) {
				l := l.in(t)
				c, text := both(l, seed)
				harm(l, a, text[2<<20+100:][:64])
				l.readsAgain(a, c, text)
				l.doctorNames(a, c, false)
			})
			t.Run("a giver, and the taker has another", func(t *testing.T) {
				l := l.in(t)
				c, text := both(l, seed+1)
				harm(l, b, text[1<<20+100:][:64])
				l.readsAgain(l.nodes[2], c, text)
			})
			t.Run("nobody else has it", func(t *testing.T) {
				l := l.in(t)
				text := noise(seed+2, 3<<20)
				c := l.upload(a, "text", text, api.AudienceMesh)
				harm(l, a, text[2<<20+100:][:64])
				l.reports(a, c, text)
				l.doctorNames(a, c, true)
				if got, err := l.cat(b, c); err == nil || !bytes.HasPrefix(text, got) {
					t.Errorf("%s gave %d bytes of what is damaged at its only holder, %v", b.Name, len(got), err)
				}
				l.upload(a, "text", text, api.AudienceMesh)
				l.readsAgain(a, c, text)
				l.readsAgain(b, c, text)
				l.doctorNames(a, c, false)
			})
			t.Run("a job's input, and another has it", func(t *testing.T) {
				l := l.in(t)
				text := noise(seed+3, 100<<10)
				spec := l.wordCount(a)
				spec.Inputs[0].Source = l.upload(a, "text", text, api.AudienceMesh)
				_, err := b.Client.Pin(l.ctx, spec.Inputs[0].Source, 0)
				l.must(err)
				harm(l, a, text[1000:][:64])
				l.text = text
				l.done(a, l.submit(a, spec), 1)
			})
			for _, what := range []string{"input", "program"} {
				t.Run("a job's "+what+", and nobody else has it", func(t *testing.T) {
					l := l.in(t)
					l.text = noise(seed+4, 100<<10)
					spec := l.wordCount(a)
					damaged, c := l.text, spec.Inputs[0].Source
					if what == "program" {
						// One of its own, so that no worker has it.
						damaged = append(l.exampleProgram("wordcount"), custom(noise(seed+5, 600))...)
						c = l.upload(a, "program", damaged, api.AudienceJob)
						spec.Program = c
					}
					l.pause(l.nodes[1:]...)
					id := l.submit(a, spec)
					l.cut(a, id)
					harm(l, a, damaged[len(damaged)-400:][:64])
					l.resume(l.nodes[1:]...)
					l.says(a, id, string(c)+" is damaged on this node's disk")
					l.upload(a, what, damaged, api.AudienceJob)
					l.done(a, id, 1)
				})
			}
			t.Run("what a worker has cached", func(t *testing.T) {
				l := l.in(t)
				l.text = noise(seed+6, 100<<10)
				l.pause(l.nodes[2])
				spec := l.wordCount(a)
				l.done(a, l.submit(a, spec), 1)
				harm(l, b, l.text[1000:][:64])
				l.done(a, l.submit(a, spec), 1)
				l.resume(l.nodes[2])
			})
			t.Run("a job's output", func(t *testing.T) {
				l := l.in(t)
				l.text = noise(seed+7, 100<<10)
				j := l.done(a, l.submit(a, l.wordCount(a)), 1)
				out, err := l.cat(a, tasks.CID(j.Output))
				l.must(err)
				harm(l, a, out[:min(64, len(out))])
				l.reports(a, tasks.CID(j.Output), out)
			})
		})
	}
}

// custom is a section of a wasm module that runners skip.
func custom(b []byte) []byte {
	body := append([]byte{4, 'n', 'o', 't', 'e'}, b...)
	head := []byte{0}
	for n := len(body); ; n >>= 7 {
		if n < 128 {
			return append(append(head, byte(n)), body...)
		}
		head = append(head, byte(n)|128)
	}
}
