package etcdstore

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// A write may be reported as refused only if etcd surely did not apply it.
func TestErrorsOfReadsAndWrites(t *testing.T) {
	tests := []struct {
		name        string
		err         error
		read, write error
	}{
		{"compacted", rpctypes.ErrGRPCCompacted, store.ErrCompacted, store.ErrCompacted},
		{"future revision", rpctypes.ErrGRPCFutureRev, store.ErrFutureRevision, store.ErrFutureRevision},
		{"no space", rpctypes.ErrGRPCNoSpace, store.ErrNoSpace, store.ErrNoSpace},
		{"too large", rpctypes.ErrGRPCRequestTooLarge, store.ErrTooLarge, store.ErrTooLarge},
		{"lease not found", rpctypes.ErrGRPCLeaseNotFound, store.ErrLeaseNotFound, store.ErrLeaseNotFound},
		{"permission denied", rpctypes.ErrGRPCPermissionDenied, store.ErrDenied, store.ErrDenied},
		{"wrong password", rpctypes.ErrGRPCAuthFailed, store.ErrDenied, store.ErrDenied},
		{"overloaded, refused before proposal", rpctypes.ErrGRPCRequestTooManyRequests, store.ErrUnavailable, store.ErrUnavailable},
		{"no connection could be made", status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: refused"`), store.ErrUnavailable, store.ErrUnavailable},
		{"connection lost", status.Error(codes.Unavailable, "error reading from server: EOF"), store.ErrUnavailable, store.ErrUnknownOutcome},
		{"request timed out in the server", rpctypes.ErrGRPCTimeout, store.ErrUnavailable, store.ErrUnknownOutcome},
		{"leader failed", rpctypes.ErrGRPCTimeoutDueToLeaderFail, store.ErrUnavailable, store.ErrUnknownOutcome},
		{"leader changed", rpctypes.ErrGRPCLeaderChanged, store.ErrUnavailable, store.ErrUnknownOutcome},
		{"server stopped", rpctypes.ErrGRPCStopped, store.ErrUnavailable, store.ErrUnknownOutcome},
		{"own deadline", context.DeadlineExceeded, context.DeadlineExceeded, store.ErrUnknownOutcome},
		{"unheard of", status.Error(codes.Unknown, "?"), store.ErrUnavailable, store.ErrUnknownOutcome},
	}
	for _, tt := range tests {
		if got := readError(tt.err); !errors.Is(got, tt.read) {
			t.Errorf("%s: read error %v, want %v", tt.name, got, tt.read)
		}
		got := writeError(tt.err)
		if !errors.Is(got, tt.write) || errors.Is(got, store.ErrUnknownOutcome) != errors.Is(tt.write, store.ErrUnknownOutcome) {
			t.Errorf("%s: write error %v, want %v", tt.name, got, tt.write)
		}
	}
}

func TestBadConfigurationIsRefused(t *testing.T) {
	for _, c := range []Config{
		{},
		{Endpoints: []string{"a:1"}, User: "u"},
		{Endpoints: []string{"a:1"}, Cert: "c.pem"},
	} {
		if _, err := New(t.Context(), c); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%+v: error %v, want ErrInvalid", c, err)
		}
	}
}
