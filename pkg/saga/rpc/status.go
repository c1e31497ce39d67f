package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

// What a google.rpc.ErrorInfo says.
const (
	domain         = "sagas.fairlead"
	reasonNotOwner = "NOT_OWNER" // surely nothing was done
	reasonFull     = "FULL"
)

// How long to wait before asking again, as REST says it.
const (
	retryFull        = 10 * time.Second
	retryUnavailable = time.Second
)

// errLost is of what was passed on and of which nobody here knows what came: it may have been done.
var errLost = errors.New("lost")

// said is an error that another replica has said.
type said struct {
	text string
	what error // that it matches
}

func (e *said) Error() string { return e.text }
func (e *said) Unwrap() error { return e.what }

// statusOf makes a status of an error that is none; nil of nil. Only of one that is a status itself: what the store's errors wrap may be one of etcd's.
func statusOf(err error) error {
	if _, is := err.(interface{ GRPCStatus() *status.Status }); is {
		return err
	}
	var faults saga.Faults
	switch {
	case err == nil:
		return nil
	case errors.As(err, &faults):
		detail := &errdetails.BadRequest{}
		for _, f := range faults {
			detail.FieldViolations = append(detail.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Path, Description: f.Text})
		}
		return with(codes.InvalidArgument, err.Error(), detail)
	case errors.Is(err, coordinator.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, coordinator.ErrConflict):
		return status.Error(codes.AlreadyExists, err.Error())
	case errors.Is(err, saga.ErrVerb):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, coordinator.ErrFull):
		return with(codes.ResourceExhausted, err.Error(), retry(retryFull), &errdetails.ErrorInfo{Domain: domain, Reason: reasonFull})
	case errors.Is(err, coordinator.ErrNotOwner):
		return with(codes.Unavailable, err.Error(), retry(retryUnavailable), &errdetails.ErrorInfo{Domain: domain, Reason: reasonNotOwner})
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	default:
		return with(codes.Unavailable, err.Error(), retry(retryUnavailable))
	}
}

// invalid is of one field of a request that is no definition.
func invalid(field, text string) error { return statusOf(saga.Faults{{Path: field, Text: text}}) }

func retry(after time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(after)}
}

func with(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	s := status.New(code, text)
	if detailed, err := s.WithDetails(details...); err == nil {
		s = detailed
	}
	return s.Err()
}

// errorOf makes of what another replica said the error that it was there.
func errorOf(err error) error {
	s := status.Convert(err)
	var faults saga.Faults
	reason := ""
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				faults = append(faults, saga.Fault{Path: v.GetField(), Text: v.GetDescription()})
			}
		case *errdetails.ErrorInfo:
			if d.GetDomain() == domain {
				reason = d.GetReason()
			}
		}
	}
	what := errLost
	switch code := s.Code(); {
	case code == codes.InvalidArgument && faults != nil:
		return faults
	case code == codes.NotFound:
		what = coordinator.ErrNotFound
	case code == codes.AlreadyExists:
		what = coordinator.ErrConflict
	case code == codes.FailedPrecondition:
		what = saga.ErrVerb
	case code == codes.ResourceExhausted && reason == reasonFull:
		what = coordinator.ErrFull
	case code == codes.Unavailable && reason == reasonNotOwner:
		what = coordinator.ErrNotOwner
	}
	return &said{s.Message(), what}
}
