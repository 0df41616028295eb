package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"time"

	"github.com/kith-mesh/kith/tensor"
)

// kernelPairs is how often each product is measured beside each peer, and kernelWork
// the operations of one measure, some 15 milliseconds of one core.
const (
	kernelPairs = 21
	kernelWork  = 2e9
)

// kernelShapes are M, N and K: squares, and a GPT's rows by its weights.
var kernelShapes = func() (all [][3]int) {
	for _, n := range []int{256, 512, 1024, 2048} {
		all = append(all, [3]int{n, n, n})
	}
	for _, m := range []int{8, 64, 256, 1024} {
		for _, n := range []int{768, 3072, 8192} {
			all = append(all, [3]int{m, n, 768})
		}
	}
	return all
}()

func kernelCase(shape [3]int, threads int) string {
	return fmt.Sprintf("sgemm/%dx%dx%d/%dt", shape[0], shape[1], shape[2], threads)
}

var kernels = Bench{
	Name: "kernels", Short: "matrix products of this process beside OpenBLAS, BLIS and oneDNN, on one and two threads",
	Cases: func() (all []string) {
		for threads := 1; threads <= 2; threads++ {
			all = append(all, fmt.Sprintf("peak/%dt", threads))
			for _, shape := range kernelShapes {
				all = append(all, kernelCase(shape, threads))
			}
			all = append(all, fmt.Sprintf("geomean/%dt", threads))
		}
		return all
	}(),
	Run: func(ctx context.Context, o Options, emit func(Line)) error {
		return runKernels(ctx, o, kernelShapes, kernelPairs, kernelWork, emit)
	},
}

func runKernels(ctx context.Context, o Options, shapes [][3]int, pairs int, work float64, emit func(Line)) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "kith-bench-")
	if err != nil {
		return fmt.Errorf("make the bench's folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	exe, missing := compileBLAS(ctx, dir)
	if missing != nil {
		o.say("no peers: %v", missing)
	}
	for threads := 1; threads <= 2; threads++ {
		if err := kernelsOn(ctx, o, exe, missing, threads, shapes, pairs, work, emit); err != nil {
			return err
		}
	}
	return nil
}

// kernelsOn measures on so many threads. The geometric mean, of the cases that ran,
// wants all of them.
func kernelsOn(ctx context.Context, o Options, exe string, missing error, threads int, shapes [][3]int, pairs int, work float64, emit func(Line)) (err error) {
	geomean := fmt.Sprintf("geomean/%dt", threads)
	pool, err := tensor.NewPool(threads)
	if err != nil {
		return err
	}
	defer pool.Close()
	if name := fmt.Sprintf("peak/%dt", threads); o.Wants(name) {
		emit(Line{Bench: "kernels", Case: name, Value: peak(pool), Unit: "GFLOP/s", Note: "fused multiply-adds on registers, " + pool.Tier()})
	}
	wants := o.Wants(geomean)
	for _, shape := range shapes {
		wants = wants || o.Wants(kernelCase(shape, threads))
	}
	if !wants {
		return nil
	}
	var peers []*blasPeer
	defer func() {
		for _, p := range peers {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, kind := range blasKinds {
		if missing != nil || kind.avx512 && pool.Tier() != "avx512" {
			continue
		}
		p, err := startBLAS(ctx, exe, kind, threads)
		if err != nil {
			o.say("without %s: %v", kind.name, err)
			continue
		}
		peers = append(peers, p)
	}
	if len(peers) == 0 {
		missing = errors.Join(missing, errors.New("no peer is installed: apt install libopenblas0-pthread libblis4-pthread libdnnl2"))
	}
	logs, n := 0.0, 0
	for _, shape := range shapes {
		name := kernelCase(shape, threads)
		if !o.Wants(name) && !o.Wants(geomean) {
			continue
		}
		if len(peers) == 0 {
			if o.Wants(name) {
				emit(Line{Bench: "kernels", Case: name, Skipped: missing.Error()})
			}
			continue
		}
		line, err := besides(pool, peers, shape, pairs, work)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		logs, n = logs+math.Log(line.Ratio), n+1
		line.Bench, line.Case = "kernels", name
		if o.Wants(name) {
			emit(line.RatioAtLeast(0.85))
		}
	}
	switch {
	case !o.Wants(geomean):
	case n == 0:
		emit(Line{Bench: "kernels", Case: geomean, Skipped: missing.Error()})
	default:
		l := Line{Bench: "kernels", Case: geomean, Value: math.Exp(logs / float64(n)), Unit: "ratio"}.With("best", 1)
		l.Note = "the best of"
		for _, p := range peers {
			l.Note += " " + p.name
		}
		emit(l.RatioAtLeast(map[int]float64{1: 0.97, 2: 1.05}[threads]))
	}
	return nil
}

// besides measures one product, each time beside each peer, and answers with the
// peer that is best.
func besides(pool *tensor.Pool, peers []*blasPeer, shape [3]int, pairs int, work float64) (Line, error) {
	m, n, k := shape[0], shape[1], shape[2]
	rnd := rand.New(rand.NewPCG(1, 2))
	draw := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = 2*rnd.Float32() - 1
		}
		return out
	}
	g := tensor.Gemm{M: m, N: n, K: k, A: draw(m * k), B: draw(n * k), C: make([]float32, m*n), LDA: k, LDB: k, LDC: n, TransB: true}
	flops := 2 * float64(m) * float64(n) * float64(k)
	seconds := func(times int) (float64, error) {
		start := time.Now()
		for range times {
			if err := pool.Gemm(&g); err != nil {
				return 0, err
			}
		}
		return time.Since(start).Seconds(), nil
	}
	if _, err := seconds(1); err != nil {
		return Line{}, err
	}
	times := max(1, int(work/flops))
	own := make([]float64, 0, pairs)
	theirs, ratios := make([][]float64, len(peers)), make([][]float64, len(peers))
	for range pairs {
		for i, p := range peers {
			ours, err := seconds(times)
			if err != nil {
				return Line{}, err
			}
			its, err := p.seconds(m, n, k, times)
			if err != nil {
				return Line{}, err
			}
			own = append(own, ours)
			theirs[i], ratios[i] = append(theirs[i], its), append(ratios[i], its/ours)
		}
	}
	best := 0
	for i := range peers {
		if Median(ratios[i]) < Median(ratios[best]) {
			best = i
		}
	}
	rate := func(all []float64) float64 { return float64(times) * flops / Median(all) / 1e9 }
	l := Line{Value: rate(own), Unit: "GFLOP/s", Against: peers[best].name, AgainstValue: rate(theirs[best]), Ratio: Median(ratios[best])}
	for i, p := range peers {
		l.Note += fmt.Sprintf("%s %.3g  ", p.name, rate(theirs[i]))
	}
	return l, nil
}

// peak is the rate of multiply-adds on registers, the best of some tries.
func peak(pool *tensor.Pool) float64 {
	best := 0.0
	for range 10 {
		start := time.Now()
		flops := pool.Spend(2_000_000)
		best = max(best, flops/time.Since(start).Seconds()/1e9)
	}
	return best
}
