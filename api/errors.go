package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kith-mesh/kith/tasks"
)

// Error is a failure as the API tells it: an RFC 9457 problem with a reason
// that programs can test and a hint that says what to do.
type Error struct {
	Type       string   `json:"type,omitempty" doc:"always about:blank"`
	Title      string   `json:"title" doc:"text of the HTTP status"`
	Status     int      `json:"status"`
	Detail     string   `json:"detail" doc:"what failed, with the value"`
	Reason     string   `json:"reason" doc:"a stable name" example:"not-found"`
	Code       uint32   `json:"code,omitempty" doc:"number of a task's or job's reason, when that is the cause"`
	Hint       string   `json:"hint,omitempty" doc:"what to do"`
	RetryAfter int      `json:"retryAfter,omitempty" doc:"seconds"`
	Faults     []string `json:"faults,omitempty" doc:"every fault of a bad request"`
}

// The stable names of reasons.
const (
	ReasonUnauthorized = "unauthorized"  // no token, or not this node's
	ReasonHost         = "bad-host"      // Host header is not this API's
	ReasonInvalid      = "invalid"       // the request is wrong
	ReasonNotFound     = "not-found"     //
	ReasonTooLarge     = "too-large"     // above the route's limit
	ReasonRefused      = "refused"       // understood, and not allowed
	ReasonBusy         = "busy"          // a queue is full: try again later
	ReasonFull         = "full"          // no room on this node's disk
	ReasonUnavailable  = "unavailable"   // not now: not ready, or nobody served it in time
	ReasonNotServed    = "not-served"    // this node does not have the ability
	ReasonConflict     = "conflict"      // not in the state that this needs
	ReasonInternal     = "internal"      // the node's own failure
	ReasonRange        = "bad-range"     // the file does not have the span
	ReasonMediaType    = "bad-mediatype" // a body of another type is needed
)

func (e *Error) Error() string {
	if e.Hint != "" {
		return e.Detail + " (" + e.Hint + ")"
	}
	return e.Detail
}

// GetStatus is the HTTP status.
func (e *Error) GetStatus() int { return e.Status }

// ContentType makes JSON answers problems.
func (e *Error) ContentType(ct string) string {
	if ct == "application/json" {
		return "application/problem+json"
	}
	return ct
}

// GetHeaders tells when to try again.
func (e *Error) GetHeaders() http.Header {
	h := http.Header{}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	return h
}

// NewError returns a problem. The hint may be empty.
func NewError(status int, reason, hint, format string, args ...any) *Error {
	return &Error{Title: http.StatusText(status), Status: status, Reason: reason, Hint: hint, Detail: fmt.Sprintf(format, args...)}
}

// NotFound says that a thing is not here.
func NotFound(hint, format string, args ...any) *Error {
	return NewError(http.StatusNotFound, ReasonNotFound, hint, format, args...)
}

// Invalid says that the request is wrong.
func Invalid(hint, format string, args ...any) *Error {
	return NewError(http.StatusUnprocessableEntity, ReasonInvalid, hint, format, args...)
}

// Refused says that something is not allowed; r is OK when no reason of a task
// or job fits.
func Refused(r tasks.Reason, hint, format string, args ...any) *Error {
	e := NewError(http.StatusForbidden, ReasonRefused, hint, format, args...)
	e.Code = uint32(r)
	return e
}

// Busy says that a queue is full and when to try again.
func Busy(r tasks.Reason, after time.Duration, format string, args ...any) *Error {
	e := NewError(http.StatusTooManyRequests, ReasonBusy, "try again later", format, args...)
	e.Code, e.RetryAfter = uint32(r), max(1, int((after+time.Second-1)/time.Second))
	return e
}

// Full says that this node has no room for it; r is OK when no reason of a task
// or job fits.
func Full(r tasks.Reason, format string, args ...any) *Error {
	e := NewError(http.StatusInsufficientStorage, ReasonFull, "free some room on the disk, or with kith unpin and kith gc; or start with a larger --disk", format, args...)
	e.Code = uint32(r)
	return e
}

// Unavailable says that it can't be done now.
func Unavailable(hint, format string, args ...any) *Error {
	return NewError(http.StatusServiceUnavailable, ReasonUnavailable, hint, format, args...)
}

// Conflict says that a thing is not in the state that this needs.
func Conflict(hint, format string, args ...any) *Error {
	return NewError(http.StatusConflict, ReasonConflict, hint, format, args...)
}

// BadRange says that a file does not have the span asked for.
func BadRange(format string, args ...any) *Error {
	return NewError(http.StatusRequestedRangeNotSatisfiable, ReasonRange, "", format, args...)
}

// problem turns any error into one that the API can tell.
func problem(err error) *Error {
	var e *Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		c := *e
		if c.Title == "" {
			c.Title = http.StatusText(c.Status)
		}
		if c.Detail == "" || err != error(e) {
			c.Detail = strings.ReplaceAll(err.Error(), e.Error(), e.Detail)
		}
		return &c
	case errors.As(err, &large):
		return NewError(http.StatusRequestEntityTooLarge, ReasonTooLarge, "", "body is larger than the %d bytes that this route takes", large.Limit)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return NewError(http.StatusGatewayTimeout, ReasonUnavailable, "try again; 'kith doctor' tells what is wrong with the node", "not done in time: %v", err)
	case errors.Is(err, context.Canceled):
		return Unavailable("try again", "stopped before it was done: %v", err)
	}
	return NewError(http.StatusInternalServerError, ReasonInternal, "", "%v", err)
}

var reasonByStatus = map[int]string{
	http.StatusUnauthorized: ReasonUnauthorized, http.StatusForbidden: ReasonRefused, http.StatusNotFound: ReasonNotFound,
	http.StatusConflict: ReasonConflict, http.StatusRequestEntityTooLarge: ReasonTooLarge,
	http.StatusUnsupportedMediaType: ReasonMediaType, http.StatusRequestedRangeNotSatisfiable: ReasonRange,
	http.StatusTooManyRequests: ReasonBusy, http.StatusServiceUnavailable: ReasonUnavailable,
	http.StatusInternalServerError: ReasonInternal, http.StatusNotImplemented: ReasonNotServed,
}

// newHumaError is what huma calls for faults that it finds itself.
func newHumaError(status int, msg string, errs ...error) huma.StatusError {
	reason, ok := reasonByStatus[status]
	if !ok {
		reason = ReasonInvalid
	}
	e := NewError(status, reason, "", "%s", msg)
	for _, err := range errs {
		if err == nil {
			continue
		}
		var own *Error
		if errors.As(err, &own) {
			return own
		}
		e.Faults = append(e.Faults, err.Error())
	}
	if len(e.Faults) > 0 {
		e.Detail = msg + ": " + strings.Join(e.Faults, "; ")
	}
	return e
}
