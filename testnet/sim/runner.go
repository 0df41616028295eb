package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
)

// maxInline is what travels inside of a receipt, as on a real node.
const maxInline = 64 << 10

// programs are what nodes can run, by the bytes that stand for a module.
var programs = map[string]func(x tasks.Execution, stdin []byte) []byte{
	"sim: wordcount": wordCount,
	"sim: sum":       sum,
	"sim: number":    func(x tasks.Execution, _ []byte) []byte { return fmt.Appendf(nil, "%d of %d\n", x.Ref.Index, x.Tasks) },
}

// Program stores a program on this node: "wordcount", "sum" of its outputs, or
// "number", which prints its task's.
func (n *Node) Program(name string) tasks.CID {
	n.m.t.Helper()
	code := "sim: " + name
	if programs[code] == nil {
		n.m.t.Fatalf("no program %q", name)
	}
	return n.Add([]byte(code))
}

// WordCount is a job that counts the words of a text in tasks of so many lines,
// and sums the counts up.
func (n *Node) WordCount(text string, lines int64) tasks.Spec {
	return tasks.Spec{
		Name: "wordcount", Kind: tasks.KindWasm, Program: n.Program("wordcount"),
		Inputs: []tasks.Input{{Source: n.Add([]byte(text)), Split: tasks.Split{By: tasks.SplitLines, Size: lines}}},
		Reduce: &tasks.Reduce{Program: n.Program("sum")},
	}.WithDefaults()
}

// Numbers is a job of so many tasks without input.
func (n *Node) Numbers(count uint32) tasks.Spec {
	return tasks.Spec{Name: "numbers", Kind: tasks.KindWasm, Program: n.Program("number"), Tasks: count}.WithDefaults()
}

// CountWords is what WordCount must come to.
func CountWords(text string) string { return string(wordCount(tasks.Execution{}, []byte(text))) }

func wordCount(_ tasks.Execution, stdin []byte) []byte {
	counts := map[string]int{}
	for _, w := range strings.Fields(string(stdin)) {
		counts[w]++
	}
	return table(counts)
}

func sum(_ tasks.Execution, stdin []byte) []byte {
	counts := map[string]int{}
	for line := range strings.Lines(string(stdin)) {
		word, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		k, err := strconv.Atoi(number)
		if err != nil {
			return []byte("not a count: " + line)
		}
		counts[word] += k
	}
	return table(counts)
}

func table(counts map[string]int) []byte {
	var b bytes.Buffer
	for _, w := range slices.SortedFunc(maps.Keys(counts), cmp.Compare[string]) {
		fmt.Fprintf(&b, "%s %d\n", w, counts[w])
	}
	return b.Bytes()
}

// Ran is one run of a task on a node.
type Ran struct {
	Job   tasks.JobID
	Ref   tasks.Ref
	Began time.Time
	Ended time.Time // zero: still running, or broken off
}

// runner is a market.Runner with virtual service times.
type runner struct {
	node *Node

	mu  sync.Mutex
	ran []*Ran
	lie func(honest []byte) []byte
}

// Lie makes a node answer something else than its programs do; nil makes it
// honest again.
func (n *Node) Lie(f func(honest []byte) []byte) {
	n.runner.mu.Lock()
	defer n.runner.mu.Unlock()
	n.runner.lie = f
}

// Runs is what the node has run so far, over all its lives.
func (n *Node) Runs() (out []Ran) {
	n.runner.mu.Lock()
	defer n.runner.mu.Unlock()
	for _, r := range n.runner.ran {
		out = append(out, *r)
	}
	return out
}

// ForgetRuns forgets what has ended, for tests of what grows.
func (n *Node) ForgetRuns() {
	n.runner.mu.Lock()
	defer n.runner.mu.Unlock()
	n.runner.ran = slices.DeleteFunc(n.runner.ran, func(r *Ran) bool { return !r.Ended.IsZero() })
}

// Running is how many tasks the node runs now.
func (n *Node) Running() (k int) {
	for _, r := range n.Runs() {
		if r.Ended.IsZero() {
			k++
		}
	}
	return k
}

// Run reads program and input from the node's store, as a real runner does, so
// that a fetch that did not happen shows.
func (r *runner) Run(ctx context.Context, x tasks.Execution) (tasks.Outcome, error) {
	began := &Ran{Job: x.Job, Ref: x.Ref, Began: time.Now()}
	r.mu.Lock()
	r.ran = append(r.ran, began)
	lie := r.lie
	r.mu.Unlock()
	code, err := r.read(ctx, tasks.Span{Root: x.Program, Length: -1})
	if err != nil {
		return tasks.Outcome{}, fmt.Errorf("load program: %w", err)
	}
	program := programs[string(code)]
	if program == nil {
		return tasks.Outcome{Reason: tasks.BadProgram, Detail: fmt.Sprintf("no program %q", code)}, nil
	}
	stdin, err := r.read(ctx, x.Stdin...)
	if err != nil {
		return tasks.Outcome{}, fmt.Errorf("read input: %w", err)
	}
	takes := r.node.m.cfg.Service(r.node.Index, x)
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return tasks.Outcome{}, ctx.Err()
	}
	out := program(x, stdin)
	if lie != nil {
		out = lie(out)
	}
	root, err := r.node.Blocks.AddBytes(ctx, out, storage.AddOptions{Audience: storage.Job, Owner: storage.Owner("work:" + string(x.Job))})
	if err != nil {
		return tasks.Outcome{}, fmt.Errorf("keep output: %w", err)
	}
	r.mu.Lock()
	began.Ended = time.Now()
	r.mu.Unlock()
	o := tasks.Outcome{Reason: tasks.OK, Output: tasks.CID(root.CID.String()),
		Usage: tasks.Usage{Wall: takes, CPU: takes, Input: int64(len(stdin)), Output: int64(len(out))}}
	if len(out) <= maxInline {
		o.Inline = out
	}
	return o, nil
}

func (r *runner) read(ctx context.Context, spans ...tasks.Span) ([]byte, error) {
	var all []byte
	for _, s := range spans {
		root, err := cid.Decode(string(s.Root))
		if err != nil {
			return nil, err
		}
		f, err := r.node.Blocks.Open(ctx, root, s.Path, s.Offset, s.Length)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}
