package rpc

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

// Backend is what is served: the sagas of all replicas, and of them those whose shards are owned here, for the other replicas. Replicas is one.
type Backend interface {
	coordinator.Sagas
	// Here answers for what is owned by this replica alone.
	Here(ctx context.Context) (*coordinator.Coordinator, error)
}

// mark is of what one replica has passed on to another: of a list, the shards whose sagas are asked for.
const mark = "fairlead-saga-passed"

// maxPageBytes bounds a page, so that it is taken by clients that take messages of 4 MiB, as gRPC's do.
const maxPageBytes = 2 << 20

// server serves sagav1.Sagas.
type server struct {
	sagav1.UnimplementedSagasServer
	backend Backend
}

// Register adds the API of sagas to a gRPC server.
func Register(g grpc.ServiceRegistrar, b Backend) { sagav1.RegisterSagasServer(g, &server{backend: b}) }

// passed returns the mark of a call that was passed on, and whether it has one.
func passed(ctx context.Context) (string, bool) {
	values := metadata.ValueFromIncomingContext(ctx, mark)
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// sagas returns who answers: what was passed on is not passed on again.
func (s *server) sagas(ctx context.Context) (coordinator.Sagas, error) {
	if _, ok := passed(ctx); !ok {
		return s.backend, nil
	}
	here, err := s.backend.Here(ctx)
	if err != nil {
		return nil, err
	}
	return here, nil
}

// show returns a saga of which something was asked: v, or as Get has it. Who passes on looks for itself.
func (s *server) show(ctx context.Context, id string, v *coordinator.View) (_ *sagav1.Saga, err error) {
	if _, ok := passed(ctx); ok {
		return &sagav1.Saga{Id: id}, nil
	}
	if v == nil {
		if v, err = s.backend.Get(ctx, id); err != nil {
			return nil, statusOf(err)
		}
	}
	var done []coordinator.Verb
	if v.Verbs > 0 {
		if done, err = s.backend.Verbs(ctx, id); err != nil {
			return nil, statusOf(err)
		}
	}
	return shown(v, done), nil
}

// Start implements sagav1.SagasServer.
func (s *server) Start(ctx context.Context, q *sagav1.StartRequest) (*sagav1.Saga, error) {
	sagas, err := s.sagas(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	v, err := sagas.Start(ctx, definitionOf(q.GetSaga()))
	if err != nil {
		return nil, statusOf(err)
	}
	return s.show(ctx, q.GetSaga().GetId(), v)
}

// Get implements sagav1.SagasServer.
func (s *server) Get(ctx context.Context, q *sagav1.GetRequest) (*sagav1.Saga, error) {
	return s.show(ctx, q.GetId(), nil)
}

// Wait implements sagav1.SagasServer. Of what was passed on, the client's deadline is the bound.
func (s *server) Wait(ctx context.Context, q *sagav1.WaitRequest) (*sagav1.Saga, error) {
	sagas, err := s.sagas(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	waiting := ctx
	if _, ok := passed(ctx); !ok {
		timeout := coordinator.DefaultWait
		if q.GetTimeout() != nil {
			timeout = q.GetTimeout().AsDuration()
		}
		if timeout < 0 || timeout > coordinator.MaxWait {
			return nil, invalid("timeout", fmt.Sprintf("%v is not 0s to %v", timeout, coordinator.MaxWait))
		}
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	v, err := sagas.Wait(waiting, q.GetId())
	switch {
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil && waiting.Err() == nil:
		return nil, statusOf(err)
	}
	return s.show(ctx, q.GetId(), v)
}

// List implements sagav1.SagasServer.
func (s *server) List(ctx context.Context, q *sagav1.ListRequest) (*sagav1.ListResponse, error) {
	query, err := queryOf(q)
	if err != nil {
		return nil, err
	}
	found, more, err := s.list(ctx, query)
	if err != nil {
		return nil, statusOf(err)
	}
	answer, bytes := &sagav1.ListResponse{}, 0
	for i := range found {
		p := summary(&found[i])
		if bytes += proto.Size(p); bytes > maxPageBytes {
			more = true
			break
		}
		answer.Sagas = append(answer.Sagas, p)
	}
	if more {
		answer.After = answer.GetSagas()[len(answer.GetSagas())-1].GetId()
	}
	return answer, nil
}

func queryOf(q *sagav1.ListRequest) (coordinator.Query, error) {
	query := coordinator.Query{Label: q.GetLabel(), Value: q.GetValue(), After: q.GetAfter(), Limit: int(q.GetLimit())}
	var err error
	if query.State, err = coordinator.ParseState(string(states().model(q.GetState()))); err != nil {
		return query, invalid("state", err.Error())
	}
	if query.Limit < 0 || query.Limit > coordinator.MaxPage {
		return query, invalid("limit", fmt.Sprintf("%d is not 1 to %d", query.Limit, coordinator.MaxPage))
	}
	return query, nil
}

// list lists the sagas of all shards, or if that was passed on, of those it names.
func (s *server) list(ctx context.Context, q coordinator.Query) ([]coordinator.Summary, bool, error) {
	names, ok := passed(ctx)
	if !ok {
		return s.backend.List(ctx, q)
	}
	here, err := s.backend.Here(ctx)
	if err != nil {
		return nil, false, err
	}
	var shards []int
	for name := range strings.SplitSeq(names, ",") {
		shard, err := strconv.Atoi(name)
		if err != nil || shard < 0 || shard >= here.Shards() {
			return nil, false, saga.Faults{{Path: mark, Text: fmt.Sprintf("%q is none of the %d shards", name, here.Shards())}}
		}
		shards = append(shards, shard)
	}
	return here.ListOf(ctx, q, shards)
}

func (s *server) do(ctx context.Context, id string, v coordinator.Verb) (*sagav1.Saga, error) {
	sagas, err := s.sagas(ctx)
	if err == nil {
		err = sagas.Do(ctx, id, v)
	}
	if err != nil {
		return nil, statusOf(err)
	}
	return s.show(ctx, id, nil)
}

// Retry implements sagav1.SagasServer.
func (s *server) Retry(ctx context.Context, q *sagav1.RetryRequest) (*sagav1.Saga, error) {
	return s.do(ctx, q.GetId(), coordinator.Verb{Name: coordinator.Retry, By: q.GetBy(), Note: q.GetNote()})
}

// Skip implements sagav1.SagasServer.
func (s *server) Skip(ctx context.Context, q *sagav1.SkipRequest) (*sagav1.Saga, error) {
	return s.do(ctx, q.GetId(), coordinator.Verb{Name: coordinator.Skip, Step: q.GetStep(), By: q.GetBy(), Note: q.GetNote()})
}

// Resolve implements sagav1.SagasServer.
func (s *server) Resolve(ctx context.Context, q *sagav1.ResolveRequest) (*sagav1.Saga, error) {
	return s.do(ctx, q.GetId(), coordinator.Verb{Name: coordinator.Resolve, Step: q.GetStep(), As: stepStates().model(q.GetAs()), By: q.GetBy(), Note: q.GetNote()})
}

// Resume implements sagav1.SagasServer.
func (s *server) Resume(ctx context.Context, q *sagav1.ResumeRequest) (*sagav1.Saga, error) {
	return s.do(ctx, q.GetId(), coordinator.Verb{Name: coordinator.Resume, By: q.GetBy(), Note: q.GetNote()})
}

// Abort implements sagav1.SagasServer.
func (s *server) Abort(ctx context.Context, q *sagav1.AbortRequest) (*sagav1.Saga, error) {
	return s.do(ctx, q.GetId(), coordinator.Verb{Name: coordinator.Abort, By: q.GetBy(), Note: q.GetNote()})
}

// verbTo does a verb by a client.
func verbTo(ctx context.Context, c sagav1.SagasClient, id string, v coordinator.Verb) (err error) {
	switch v.Name {
	case coordinator.Retry:
		_, err = c.Retry(ctx, &sagav1.RetryRequest{Id: id, By: v.By, Note: v.Note})
	case coordinator.Skip:
		_, err = c.Skip(ctx, &sagav1.SkipRequest{Id: id, Step: v.Step, By: v.By, Note: v.Note})
	case coordinator.Resolve:
		_, err = c.Resolve(ctx, &sagav1.ResolveRequest{Id: id, Step: v.Step, As: stepStates().schema(v.As), By: v.By, Note: v.Note})
	case coordinator.Resume:
		_, err = c.Resume(ctx, &sagav1.ResumeRequest{Id: id, By: v.By, Note: v.Note})
	default: // coordinator.Abort
		_, err = c.Abort(ctx, &sagav1.AbortRequest{Id: id, By: v.By, Note: v.Note})
	}
	return err
}
