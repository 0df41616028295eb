package client

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/kith-mesh/kith/api"
)

// NotReachableError says that no API answered.
type NotReachableError struct {
	Address string
	Err     error
}

func (e *NotReachableError) Error() string {
	return fmt.Sprintf("no kith answers at %s: %v (start one with 'kith up')", e.Address, e.Err)
}

func (e *NotReachableError) Unwrap() error { return e.Err }

// Class sorts errors by what their caller can do.
type Class int

// The classes of errors.
const (
	Failed       Class = 1 // it was tried
	Usage        Class = 2 // the request was wrong: ask differently
	NotReachable Class = 3 // no node answered: start one
	Refused      Class = 4 // the node would not
)

// ClassOf sorts an error of any method of a Client.
func ClassOf(err error) Class {
	var gone *NotReachableError
	if errors.As(err, &gone) {
		return NotReachable
	}
	var e *api.Error
	if !errors.As(err, &e) {
		return Failed
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusNotImplemented,
		http.StatusInsufficientStorage:
		return Refused
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusRequestedRangeNotSatisfiable:
		return Usage
	}
	return Failed
}
