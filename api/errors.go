package api

import (
	"fmt"
	"net/http"
	"time"

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
