package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// refusals are the answers that say that a request surely had no effect.
func refusals() map[error]error {
	return map[error]error{
		rpctypes.ErrFutureRev:        store.ErrFutureRevision,
		rpctypes.ErrNoSpace:          store.ErrNoSpace,
		rpctypes.ErrLeaseNotFound:    store.ErrLeaseNotFound,
		rpctypes.ErrRequestTooLarge:  store.ErrTooLarge,
		rpctypes.ErrTooManyOps:       store.ErrInvalid,
		rpctypes.ErrDuplicateKey:     store.ErrInvalid,
		rpctypes.ErrEmptyKey:         store.ErrInvalid,
		rpctypes.ErrLeaseTTLTooLarge: store.ErrInvalid,
		rpctypes.ErrTooManyRequests:  store.ErrUnavailable, // refused before it is proposed to raft
		rpctypes.ErrPermissionDenied: store.ErrDenied,
		rpctypes.ErrAuthFailed:       store.ErrDenied,
		rpctypes.ErrInvalidAuthToken: store.ErrDenied,
		rpctypes.ErrUserEmpty:        store.ErrDenied,
	}
}

// refused returns the contract's error for a request that surely had no effect, or nil.
func refused(err error) error {
	known := rpctypes.Error(err)
	if errors.Is(known, rpctypes.ErrCompacted) {
		return fmt.Errorf("%w (%w)", &store.CompactedError{}, err)
	}
	for from, to := range refusals() {
		if errors.Is(known, from) {
			return fmt.Errorf("%w: %w", to, err)
		}
	}
	// gRPC fails a request like this when no connection could be made for it to be sent on.
	if strings.Contains(err.Error(), "transport: Error while dialing") {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return nil
}

// readError maps the error of a request that changes nothing.
func readError(err error) error {
	if err == nil {
		return nil
	}
	if r := refused(err); r != nil {
		return r
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if status.Code(err) == codes.InvalidArgument {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// writeError maps the error of a request that was sent and may have changed something: whatever is not surely a refusal leaves
// the outcome unknown.
func writeError(err error) error {
	if err == nil {
		return nil
	}
	if r := refused(err); r != nil {
		return r
	}
	return fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
}
