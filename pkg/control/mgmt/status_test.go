package mgmt

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

func TestEveryErrorHasItsCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{&mesh.InvalidError{What: "it", Faults: []mesh.Fault{{Field: "f", Reason: "r"}}}, codes.InvalidArgument},
		{discovery.ErrNotFound, codes.NotFound},
		{policy.ErrNotFound, codes.NotFound},
		{discovery.ErrAttached, codes.FailedPrecondition},
		{discovery.ErrNoLease, codes.FailedPrecondition},
		{policy.ErrConflict, codes.FailedPrecondition},
		{discovery.ErrTwin, codes.AlreadyExists},
		{discovery.ErrReplaced, codes.Aborted},
		{discovery.ErrConflict, codes.Aborted},
		{discovery.ErrFull, codes.ResourceExhausted},
		{policy.ErrFull, codes.ResourceExhausted},
		{store.ErrNoSpace, codes.ResourceExhausted},
		{&discovery.SlowError{Token: "t"}, codes.ResourceExhausted},
		{store.ErrTooLarge, codes.InvalidArgument},
		{store.ErrUnavailable, codes.Unavailable},
		{store.ErrUnknownOutcome, codes.Unavailable},
		{store.ErrClosed, codes.Unavailable},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{errors.New("never heard of"), codes.Internal},
	} {
		for _, err := range []error{c.err, fmt.Errorf("while: %w", c.err)} {
			if got := status.Code(statusOf(err)); got != c.want {
				t.Errorf("%v has code %v, want %v", err, got, c.want)
			}
		}
	}
	if err := statusOf(nil); err != nil {
		t.Errorf("no error has become %v", err)
	}
	own := status.Error(codes.DataLoss, "as it is")
	if got := statusOf(own); !errors.Is(got, own) {
		t.Errorf("a status has become %v", got)
	}
}

// etcd's client hands on gRPC statuses. They are about the control plane's call:
// told to our client, "unauthenticated" would speak of the wrong credentials.
func TestStatusThatTheStoreWrapsIsNotOurs(t *testing.T) {
	for _, c := range []struct {
		err   error
		inner codes.Code
		want  codes.Code
	}{
		{store.ErrUnknownOutcome, codes.DeadlineExceeded, codes.Unavailable},
		{store.ErrUnavailable, codes.ResourceExhausted, codes.Unavailable},
		{store.ErrDenied, codes.Unauthenticated, codes.Internal},
		{store.ErrInvalid, codes.InvalidArgument, codes.Internal},
	} {
		err := fmt.Errorf("%w: %w", c.err, status.Error(c.inner, "etcdserver: no"))
		if got := status.Code(statusOf(err)); got != c.want {
			t.Errorf("%v has code %v, want %v", err, got, c.want)
		}
	}
}
