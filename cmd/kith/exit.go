package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
)

// The exit codes of every command.
const (
	exitDone         = 0
	exitFailed       = 1
	exitUsage        = 2
	exitNotReachable = 3
	exitRefused      = 4
)

// usageError is a command line, setting or spec that is wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// silentError ends with a code after the command itself has told why.
type silentError struct{ code int }

func (silentError) Error() string { return "" }

func (a *app) exitCode(err error) int {
	var silent silentError
	var usage usageError
	var spec *tasks.SpecError
	var path *client.PathError
	switch {
	case errors.As(err, &silent):
		return silent.code
	case !a.started, errors.As(err, &usage), errors.As(err, &spec), errors.As(err, &path),
		errors.Is(err, node.ErrNoMesh), errors.Is(err, node.ErrHasMesh), errors.Is(err, node.ErrBadInvite),
		errors.Is(err, node.ErrConfig):
		return exitUsage
	case errors.Is(err, node.ErrHomeInUse), errors.Is(err, node.ErrRefused):
		return exitRefused
	case errors.Is(err, context.Canceled):
		return exitFailed
	}
	return int(client.ClassOf(err))
}
