package etcdstore

import (
	"context"
	"crypto/rand"
	"net"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// oldServer knows its users as etcd 3.4 does: it looks at the token of every request, those for a new token included.
type oldServer struct {
	pb.UnimplementedAuthServer
	pb.UnimplementedKVServer

	mu     sync.Mutex
	tokens map[string]bool
}

func (s *oldServer) check(ctx context.Context, must bool) error {
	token := metadata.ValueFromIncomingContext(ctx, rpctypes.TokenFieldNameGRPC)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(token) == 0 && must:
		return rpctypes.ErrGRPCUserEmpty
	case len(token) > 0 && !s.tokens[token[0]]:
		return rpctypes.ErrGRPCInvalidAuthToken
	}
	return nil
}

func (s *oldServer) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

func (s *oldServer) Authenticate(ctx context.Context, q *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	if err := s.check(ctx, false); err != nil {
		return nil, err
	}
	if q.Name != "fairlead" || q.Password != "secret" {
		return nil, rpctypes.ErrGRPCAuthFailed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token := rand.Text()
	s.tokens[token] = true
	return &pb.AuthenticateResponse{Header: &pb.ResponseHeader{}, Token: token}, nil
}

func (s *oldServer) Range(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := s.check(ctx, true); err != nil {
		return nil, err
	}
	return &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 7}}, nil
}

func TestUserLogsInAgainAtAServerThatForgotTheToken(t *testing.T) {
	old := &oldServer{tokens: make(map[string]bool)}
	server := grpc.NewServer()
	pb.RegisterAuthServer(server, old)
	pb.RegisterKVServer(server, old)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-served }()

	s, err := New(t.Context(), Config{Endpoints: []string{l.Addr().String()}, User: "fairlead", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	old.forget()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if head, err := s.Head(ctx); err != nil || head.Revision != 7 {
		t.Errorf("head %+v, %v", head, err)
	}
}
