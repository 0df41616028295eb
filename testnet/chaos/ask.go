package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kith-mesh/kith/api"
)

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// ask calls until an answer comes: it gives up on a "no", and when ctx ends.
func ask[T any](ctx context.Context, call func(context.Context) (T, error)) (out T, err error) {
	for {
		try, cancel := context.WithTimeout(ctx, callTime)
		out, err = call(try)
		cancel()
		if err == nil || ctx.Err() != nil || final(err) {
			return out, err
		}
		wait(ctx, again)
	}
}

// final tells a "no" from a node that is down, starts or is busy.
func final(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status < 500 && e.Status != 429 && e.Status != 409
}

func notFound(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == 404
}

// intend writes down what is about to be asked for, and numbers its tasks.
func (c *chaosClient) intend(w *Want, e Entry) string {
	c.mu.Lock()
	c.serial++
	key := fmt.Sprintf("c%d-%d", c.cfg.Number, c.serial)
	if w.Tasks > 0 {
		w.First = c.cfg.Number*1_000_000 + c.serial*10
	}
	c.mu.Unlock()
	e.Op, e.Key, e.Want = Intent, key, w
	c.write(e)
	return key
}

// once asks for something one time: whether a call that failed did its work is
// not known.
func (c *chaosClient) once(ctx context.Context, key string, call func(context.Context) (Entry, error)) (Entry, bool) {
	try, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	e, err := call(try)
	e.Key = key
	if err != nil {
		e.Op, e.Text = Failed, err.Error()
		c.write(e)
		wait(ctx, again)
		return e, false
	}
	e.Op = Acked
	c.write(e)
	return e, true
}

func (c *chaosClient) keep(w Want, key, id string) *thing {
	t := &thing{want: w, key: key, id: id}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.things = append(c.things, t)
	return t
}

// pick draws something acknowledged that is there still.
func (c *chaosClient) pick(r *rand.Rand, ok func(*thing) bool) *thing {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 20 {
		if len(c.things) == 0 {
			break
		}
		if t := c.things[r.IntN(len(c.things))]; ok(t) {
			return t
		}
	}
	return nil
}
