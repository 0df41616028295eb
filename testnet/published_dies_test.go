//go:build unix

package testnet

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// fast lets published jobs change hands within seconds, and not because a busy
// machine is slow.
const fast = "KITH_CRASH_FAST=5s"

// newPublishing is a lab with a submitter that runs no job service, and hosts.
func newPublishing(t *testing.T, hosts int) (l *lab, submitter *Process, at []*Process) {
	t.Helper()
	l = newLab(t, 1+hosts, func(i int) []string {
		if i == 0 {
			return []string{"--light"}
		}
		return nil
	}, fast)
	return l, l.nodes[0], l.nodes[1:]
}

func (l *lab) publish(p *Process, spec tasks.Spec) string {
	l.t.Helper()
	id, err := p.Client.Publish(l.ctx, spec, api.PublishOptions{})
	l.must(err)
	return string(id)
}

// holder waits until a host says that it holds a job at a term.
func (l *lab) holder(id string, term uint64, hosts []*Process) (holder *Process) {
	l.t.Helper()
	l.until(fmt.Sprintf("a host holds the job at term %d", term), func() bool {
		for _, p := range hosts {
			j, err := p.Client.Job(l.ctx, id)
			if err != nil {
				continue
			}
			if j.Term > term {
				l.t.Fatalf("%s says that %s holds the job at term %d, and nobody was seen to at term %d", p.Name, j.Origin, j.Term, term)
			}
			if j.Origin == p.ID && j.Term == term {
				holder = p
			}
		}
		return holder != nil
	})
	return holder
}

// kept waits until all hosts keep a job for its origin.
func (l *lab) kept(id string, origin *Process, hosts []*Process) {
	l.t.Helper()
	for _, p := range hosts {
		l.until(p.Name+" keeps the job", func() bool {
			j, err := p.Client.Job(l.ctx, id)
			return err == nil && j.Origin == origin.ID
		})
	}
}

// answered waits for the one answer to a published job.
func (l *lab) answered(submitter *Process, id string) api.Job {
	l.t.Helper()
	j := l.over(submitter, id)
	if j.State != "done" {
		l.t.Fatalf("the job is %s (%s)", j.State, j.Detail)
	}
	l.words(submitter, j.Output)
	return j
}

func without(nodes []*Process, p *Process) []*Process {
	return slices.DeleteFunc(slices.Clone(nodes), func(q *Process) bool { return q == p })
}

// The origin of a published job is killed and its successor answers, whether the
// old one stays away, is back while the successor is at work, or after the end.
func TestPublishedOriginDies(t *testing.T) {
	scenario(t)
	l, submitter, hosts := newPublishing(t, 3)
	for _, c := range []struct {
		name   string
		during bool // the old origin is back before the end
	}{{"and is back after the end", false}, {"and is back while its successor works", true}} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.pause(hosts...)
			id := l.publish(submitter, l.wordCount(submitter))
			old := l.holder(id, 1, hosts)
			rest := without(hosts, old)
			l.kept(id, old, rest)
			l.must(old.Kill())
			next := l.holder(id, 2, rest)
			l.says(submitter, id, next.ID+" is its origin, at term 2")
			if c.during {
				l.start(old, fast)
				l.says(old, id, next.ID+" is its origin, at term 2; kept here in case its origin falls silent")
			}
			l.resume(rest...)
			j := l.answered(submitter, id)
			if j.Origin != next.ID || j.Term != 2 {
				t.Errorf("the answer is of %s at term %d, want %s at term 2", j.Origin, j.Term, next.ID)
			}
			if !c.during {
				l.start(old, fast)
			}
			// It hears that the job has its answer, and whose, and makes none of its own.
			l.until("the old origin lets go", func() bool {
				j, err := old.Client.Job(l.ctx, id)
				if err != nil { // let go of, and its end not written down yet
					return false
				}
				if j.State == "done" || j.Leased > 0 || j.Done > 0 {
					t.Fatalf("the old origin says that the job is %s, with %d tasks done and %d leased", j.State, j.Done, j.Leased)
				}
				return j.Over()
			})
			if j := l.job(old, id); j.State != "cancelled" || j.Reason == nil || j.Reason.Code != uint32(tasks.AnsweredElse) || !strings.Contains(j.Detail, next.ID+", at term 2: ") {
				t.Errorf("the old origin says that the job is %s: %+v %s", j.State, j.Reason, j.Detail)
			}
		})
	}
}

// Whoever dies between the end of a published job and the word that its answer is
// accepted, there is one answer.
func TestPublishedAnswerOwed(t *testing.T) {
	scenario(t)
	l, submitter, hosts := newPublishing(t, 1)
	origin := hosts[0]
	for _, c := range []struct {
		name            string
		at, atSubmitter string // crash points
	}{
		{"done, the answer not sent", "state/finish:after", ""},
		{"accepted, and not known to be", "state/forget:before", ""},
		{"adopted, not claimed", "state/adopt:after", ""},
		{"origin, and it has not said so", "state/term:after", ""},
		{"published, not said", "", "state/publish:after"},
		{"the answer here, not accepted", "", "state/accept:before"},
		{"accepted, the origin not told", "", "state/accept:after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			victim, at := origin, c.at
			if at == "" {
				victim, at = submitter, c.atSubmitter
			}
			l.restart(victim, fast, "KITH_CRASH_AT="+at)
			spec := l.wordCount(submitter)
			said, err := submitter.Client.Publish(l.ctx, spec, api.PublishOptions{})
			l.died(victim)
			l.start(victim, fast)
			id := string(said)
			if err != nil {
				id = l.newest(submitter)
			}
			if j := l.answered(submitter, id); j.Term != 1 || j.Origin != origin.ID {
				t.Errorf("the answer is of %s at term %d", j.Origin, j.Term)
			}
			l.over(origin, id) // it owes nothing
		})
	}
}

// The submitter is away while its job is worked on, and so is the origin when it
// is back: the answer waits for it on disk.
func TestSubmitterDies(t *testing.T) {
	scenario(t)
	l, submitter, hosts := newPublishing(t, 2)
	t.Run("a node", func(t *testing.T) {
		l := l.in(t)
		l.pause(hosts...)
		id := l.publish(submitter, l.wordCount(submitter))
		origin := l.holder(id, 1, hosts)
		l.cut(origin, id) // its inputs are there
		l.must(submitter.Kill())
		l.resume(hosts...)
		l.over(origin, id)
		l.must(origin.Kill())
		l.start(submitter, fast)
		l.start(origin, fast)
		if j := l.answered(submitter, id); j.Origin != origin.ID || j.Term != 1 {
			t.Errorf("the answer is of %s at term %d, want %s at term 1", j.Origin, j.Term, origin.ID)
		}
	})
	// `kith publish` without a running node: what it began goes on when a node of
	// its home runs again.
	t.Run("the light client of kith publish", func(t *testing.T) {
		l := l.in(t)
		l.must(submitter.Stop())
		l.pause(hosts...)
		dir := t.TempDir()
		write := func(name string, b []byte) {
			l.must(os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		write("text", l.text)
		for _, name := range []string{"wordcount", "wcsum"} {
			write(name+".wasm", l.exampleProgram(name))
		}
		write("job.yaml", []byte("name: wc\nprogram: ./wordcount.wasm\ninputs: [{source: ./text, split: {by: lines, size: 50}}]\nreduce: {program: ./wcsum.wasm}\n"))
		cmd := exec.CommandContext(l.ctx, l.exe, "publish", "--home", submitter.Home, filepath.Join(dir, "job.yaml"))
		// Its mesh is on loopback alone, which who listens elsewhere too does not dial.
		cmd.Env = append(cleanEnv(), fast, "KITH_LISTEN=/ip4/127.0.0.1/tcp/0", "KITH_NO_QUIC=true")
		says, err := cmd.StderrPipe()
		l.must(err)
		l.must(cmd.Start())
		var id string
		lines := bufio.NewScanner(says)
		for id == "" && lines.Scan() {
			t.Log(lines.Text())
			if rest, ok := strings.CutPrefix(lines.Text(), "job "); ok {
				id = rest
			}
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for lines.Scan() {
				t.Log(lines.Text())
			}
			_ = cmd.Wait() // it says that it was killed
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			<-ended
		})
		if id == "" {
			t.Fatal("kith publish never said a job's ID")
		}
		origin := l.holder(id, 1, hosts)
		l.cut(origin, id) // its inputs are there
		l.must(cmd.Process.Kill())
		<-ended
		l.resume(hosts...)
		l.start(submitter, fast)
		l.answered(submitter, id)
	})
}
