package mgmt

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

func statusUnsynced() error {
	return status.Error(codes.Unavailable, "the control plane has not read the store yet")
}

func statusUnknownService(name mesh.ServiceName) error {
	return status.Errorf(codes.NotFound, "service %s was never known", name)
}

func statusClosing() error { return status.Error(codes.Unavailable, errClosing.Error()) }

// statusOf makes a gRPC status of an error that is none; nil of nil.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	// Only of one that is a status itself: what the store's errors wrap may be one of
	// etcd's, whose code speaks of the control plane's own call, not of our client's.
	if _, is := err.(interface{ GRPCStatus() *status.Status }); is {
		return err
	}
	var invalid *mesh.InvalidError
	if errors.As(err, &invalid) {
		return statusInvalid(invalid)
	}
	return status.Error(codeOf(err), err.Error())
}

func statusInvalid(e *mesh.InvalidError) error {
	s := status.New(codes.InvalidArgument, e.Error())
	detail := &errdetails.BadRequest{}
	for _, f := range e.Faults {
		detail.FieldViolations = append(detail.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Field, Description: f.Reason})
	}
	if with, err := s.WithDetails(detail); err == nil {
		s = with
	}
	return s.Err()
}

func codeOf(err error) codes.Code {
	var slow *discovery.SlowError
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(discovery.ErrNotFound, policy.ErrNotFound):
		return codes.NotFound
	case is(discovery.ErrAttached, discovery.ErrNoLease, policy.ErrConflict):
		return codes.FailedPrecondition
	case is(discovery.ErrTwin):
		return codes.AlreadyExists
	case is(discovery.ErrReplaced, discovery.ErrConflict):
		return codes.Aborted
	case is(discovery.ErrFull, policy.ErrFull, store.ErrNoSpace), errors.As(err, &slow):
		return codes.ResourceExhausted
	case is(store.ErrTooLarge):
		return codes.InvalidArgument
	case is(context.Canceled):
		return codes.Canceled
	case is(store.ErrUnavailable, store.ErrUnknownOutcome, store.ErrClosed):
		return codes.Unavailable
	case is(context.DeadlineExceeded):
		return codes.DeadlineExceeded
	default:
		return codes.Internal
	}
}
