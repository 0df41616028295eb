package p2p

import (
	"errors"
	"fmt"
	"time"
)

// Code numbers a refusal. Numbers are append-only: one is never reused or given
// another meaning. 1 to 99 are p2p's; every other package takes a hundred of
// its own above them.
type Code = uint32

// The codes that any protocol may answer with.
const (
	CodeInternal  Code = 1 // the handler failed; not the caller's fault
	CodeMalformed Code = 2 // the request can't be read
	CodeTooLarge  Code = 3 // a message above the protocol's limit
	CodeBusy      Code = 4 // a bound is reached: try after RetryAfter
	CodeRate      Code = 5 // too many requests: try after RetryAfter
	CodeDeadline  Code = 6 // the handler did not finish in time
	CodeRights    Code = 7 // the caller's token does not allow this
	CodeNotMember Code = 8 // the caller has shown no valid token
	CodeNotFound  Code = 9 // what was asked for is not here
)

// The codes of hello, join and renew.
const (
	CodeOtherMesh      Code = 20
	CodeTokenMalformed Code = 21
	CodeTokenExpired   Code = 22
	CodeTokenRevoked   Code = 23
	CodeClock          Code = 24 // the two clocks are too far apart
	CodeTokenHolder    Code = 25 // the token belongs to another peer
	CodeInviteUnknown  Code = 30
	CodeInviteSpent    Code = 31
	CodeInviteExpired  Code = 32
	CodeInviteRevoked  Code = 33
	CodeNotOpen        Code = 34 // the mesh takes no one without an invite
	CodeCannotAdmit    Code = 35 // this member may not issue tokens
)

// Refusal is a numbered no that crosses the wire: a handler returns it, and the
// caller's Call or ReadMsg returns it as its error. Use errors.As.
type Refusal struct {
	Code       Code
	Text       string        // for people; cut at 256 bytes on the wire
	RetryAfter time.Duration // zero: trying again won't help
}

// Error gives the text, and when to try again.
func (r *Refusal) Error() string {
	s := fmt.Sprintf("refused (%d): %s", r.Code, r.Text)
	if r.RetryAfter > 0 {
		s += fmt.Sprintf(", try again in %s", r.RetryAfter.Round(time.Millisecond))
	}
	return s
}

// Is makes errors.Is compare by code.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

// Refuse makes a refusal with a formatted text.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
}

// RefusalCode is the code of the refusal in err's chain, or 0.
func RefusalCode(err error) Code {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return 0
}

const maxRefusalText = 256
