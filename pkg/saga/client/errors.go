package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// What is wrong, to compare errors with by errors.Is.
var (
	// ErrInvalid: the definition, or what else was asked, is wrong, and so will be the next time. Where the faults of a definition can be told one by one, errors.As finds
	// saga.Faults.
	ErrInvalid = errors.New("the request is wrong")
	// ErrConflict: there is a saga with this id and other content.
	ErrConflict = errors.New("there is a saga with this id and other content")
	// ErrNotFound: there is none with this id, or it ended longer than the retention time ago.
	ErrNotFound = errors.New("there is no saga with this id")
	// ErrVerb: the saga is not in a state for what a person wants to do.
	ErrVerb = errors.New("this cannot be done to the saga")
	// ErrFull: the store takes no more sagas until others are forgotten. Error.RetryAfter says when to ask again.
	ErrFull = errors.New("the store of sagas is full")
	// ErrUnavailable: there is no answer, or a control plane cannot say now. What was asked for may have been done.
	ErrUnavailable = errors.New("no control plane answers for the saga")
	// ErrNoSagas: what listens at the address coordinates no sagas, or is no control plane.
	ErrNoSagas = errors.New("no sagas are served there")
)

// Error is why there is no answer, or that the answer was no. It matches one of the errors above.
type Error struct {
	// Op is what was asked for, such as "start saga order-42".
	Op string
	// Address is whom it was asked of.
	Address string
	// Status is of HTTP, and Message what the control plane says. They are 0 and empty if it did not answer; without a message, what answered is none.
	Status  int
	Message string
	// RetryAfter is when to ask again; 0: it was not said.
	RetryAfter time.Duration
	// Faults are of a definition, one by one.
	Faults saga.Faults
	// Sent says that it was, as far as is known: what was asked for may have been done.
	Sent bool
	// Err is why there is no answer, or none that can be read.
	Err error

	kind error
}

// Error says what was asked of whom, and why it came to nothing.
func (e *Error) Error() string {
	switch {
	case e.Message != "":
		return fmt.Sprintf("%s at %s: %s", e.Op, e.Address, e.Message)
	case e.Status == 0:
		return fmt.Sprintf("%s at %s: %v (%v)", e.Op, e.Address, e.kind, e.Err)
	case e.Err != nil:
		return fmt.Sprintf("%s at %s: the answer is not as a control plane's is (%v): is the address right?", e.Op, e.Address, e.Err)
	default:
		return fmt.Sprintf("%s at %s: %v, the status is %d: is the address right?", e.Op, e.Address, e.kind, e.Status)
	}
}

// Unwrap returns which of the errors of this package it is, its Faults, and its Err.
func (e *Error) Unwrap() []error {
	all := []error{e.kind}
	if len(e.Faults) > 0 {
		all = append(all, e.Faults)
	}
	if e.Err != nil {
		all = append(all, e.Err)
	}
	return all
}

// passes reports whether the same request may be answered otherwise later.
func (e *Error) passes() bool { return e.kind == ErrUnavailable || e.kind == ErrFull } //nolint:errorlint // it is one of these very values
