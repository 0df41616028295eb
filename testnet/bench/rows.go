package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-mesh/kith/node/state"
)

// What a limit of durable rows is: as many writers as a node has tasks in hand,
// each of which waits for its row's commit, as all writes of a node do.
const (
	rowWriters = 256
	rowBytes   = 256
)

// rows is a database with a node's settings: WAL, synced at each commit, writes
// of many callers in one.
type rows struct {
	s    *state.State
	next atomic.Uint64
}

func openRows(path string) (*rows, error) {
	s, err := state.Open(path)
	if err != nil {
		return nil, fmt.Errorf("group-commit: %w", err)
	}
	return &rows{s: s}, nil
}

// rate tells rows a second, each durable.
func (r *rows) rate(ctx context.Context, long time.Duration) (float64, error) {
	var wg sync.WaitGroup
	var n atomic.Int64
	errs := make([]error, rowWriters)
	begin := time.Now()
	for i := range rowWriters {
		wg.Go(func() {
			value := make([]byte, rowBytes)
			for time.Since(begin) < long {
				if errs[i] = r.s.Set(ctx, fmt.Sprintf("%d", r.next.Add(1)), value); errs[i] != nil {
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("group-commit: %w", err)
	}
	return float64(n.Load()) / time.Since(begin).Seconds(), nil
}

func (r *rows) close() error { return r.s.Close() }
