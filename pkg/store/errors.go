package store

import (
	"errors"
	"fmt"
)

// The errors of a Store. They come wrapped with their cause; test with errors.Is.
var (
	// ErrUnknownOutcome: the write may or may not have happened (a timeout, a lost leader, a connection lost after sending).
	// Read the keys again before deciding; repeating blindly is safe only if the compares make the repetition harmless.
	ErrUnknownOutcome = errors.New("store: outcome of the write is unknown")
	// ErrUnavailable: the store could not be reached or could not serve, and the request surely had no effect. Retry later.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrNotFound: the key does not exist.
	ErrNotFound = errors.New("store: key not found")
	// ErrLeaseNotFound: the lease expired, was revoked or never was.
	ErrLeaseNotFound = errors.New("store: lease not found")
	// ErrLeaseLost: KeepAlive gave up: the lease is gone, or may be, because it could not be renewed for its whole TTL.
	ErrLeaseLost = errors.New("store: lease lost")
	// ErrInvalid: the request breaks a rule of the contract and would never succeed.
	ErrInvalid = errors.New("store: invalid request")
	// ErrTooLarge: the request is beyond MaxRequestBytes.
	ErrTooLarge = errors.New("store: request too large")
	// ErrNoSpace: the store's quota is used up; it refuses writes until it is compacted, defragmented and its alarm disarmed.
	ErrNoSpace = errors.New("store: no space")
	// ErrFutureRevision: the requested revision does not exist yet.
	ErrFutureRevision = errors.New("store: revision is in the future")
	// ErrCompacted: the requested revision is older than the history. Every *CompactedError matches it.
	ErrCompacted = errors.New("store: revision compacted")
	// ErrDenied: the store refused the credentials, or they do not permit the request.
	ErrDenied = errors.New("store: denied")
	// ErrClosed: the Store or the Watch was closed.
	ErrClosed = errors.New("store: closed")
)

// CompactedError says that a revision is older than the history. It matches ErrCompacted.
type CompactedError struct {
	// Revision is the oldest revision that can still be listed, or 0 if the store did not tell.
	Revision int64
}

// Error implements error.
func (e *CompactedError) Error() string {
	if e.Revision == 0 {
		return ErrCompacted.Error()
	}
	return fmt.Sprintf("%v: the oldest is %d", ErrCompacted, e.Revision)
}

// Unwrap returns ErrCompacted.
func (e *CompactedError) Unwrap() error { return ErrCompacted }
