// Package rpc makes a participant of sagas a service of gRPC, saga.v1.Participant.
//
//	p := participant.New(barrier.New(db, barrier.PostgreSQL))
//	p.Handle("reserve", reserve, release)
//	sagav1.RegisterParticipantServer(server, rpc.New(p))
//
// makes {"service": "inventory:grpc", "grpc": "reserve"} the action and the compensation of a step.
package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
	"github.com/fairlead-mesh/fairlead/pkg/saga/participant"
)

// Server implements sagav1.ParticipantServer. It is safe for concurrent use.
type Server struct {
	sagav1.UnimplementedParticipantServer
	participant *participant.Participant
}

// New returns a server of what p handles. Handle is to be called before it serves.
func New(p *participant.Participant) *Server { return &Server{participant: p} }

// maxBody bounds the body of a call, as the coordinator does.
const maxBody = 32 << 10

// Call implements sagav1.ParticipantServer. A Refusal, and an action whose compensation came before it, is FAILED_PRECONDITION; an operation that there is not,
// UNIMPLEMENTED; what is no call of a saga, INVALID_ARGUMENT; any other error UNKNOWN, upon which the call comes again.
func (s *Server) Call(ctx context.Context, q *sagav1.CallRequest) (*sagav1.CallResponse, error) {
	if len(q.GetBody()) > maxBody {
		return nil, status.Errorf(codes.InvalidArgument, "body: %d bytes, of at most %d", len(q.GetBody()), maxBody)
	}
	var undo bool
	switch q.GetKind() {
	case sagav1.CallRequest_ACTION:
	case sagav1.CallRequest_COMPENSATE:
		undo = true
	default:
		return nil, status.Errorf(codes.InvalidArgument, "kind: %v is neither ACTION nor COMPENSATE", q.GetKind())
	}
	result, err := s.participant.Call(ctx, q.GetOperation(), undo, q.GetIdempotencyKey(), q.GetBody())
	var refusal participant.Refusal
	switch {
	case err == nil:
		return &sagav1.CallResponse{Result: result}, nil
	case errors.As(err, &refusal), errors.Is(err, barrier.ErrUndone):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, participant.ErrNoOperation):
		return nil, status.Errorf(codes.Unimplemented, "%v: %.140q", err, q.GetOperation())
	case errors.Is(err, barrier.ErrKey):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	default:
		return nil, status.Error(codes.Unknown, err.Error())
	}
}
