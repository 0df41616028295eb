package market

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Who gave up asking the hall is not written to any more: what it reads then, in
// the middle of a map or a text perhaps, is its own.
func TestAskedTooLate(t *testing.T) {
	inMesh(t, 1, nil, func(m *mesh) {
		h := m.all[0].svc.hall
		busy := make(chan struct{})
		h.do(func(context.Context) { <-busy })
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		ran := false
		if err := h.ask(ctx, func(*hall) { ran = true }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("asked a busy hall: %v", err)
		}
		close(busy)
		synctest.Wait()
		if ran {
			t.Error("it was answered after it had left")
		}
		if err := h.ask(context.Background(), func(*hall) { ran = true }); err != nil || !ran {
			t.Errorf("asked an idle hall: %v, answered %v", err, ran)
		}
	})
}
