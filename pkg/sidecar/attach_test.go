package sidecar

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

// frozen is a control plane that takes everything and never says a word, as a process
// that was stopped does.
type frozen struct{ grpc.ClientStream }

func (frozen) Attach(ctx context.Context, _ ...grpc.CallOption) (meshv1.Attachment_AttachClient, error) {
	return frozenStream{ctx: ctx}, nil
}

type frozenStream struct {
	grpc.ClientStream
	ctx context.Context
}

func (frozenStream) Send(*meshv1.AttachRequest) error { return nil }
func (frozenStream) CloseSend() error                 { return nil }
func (s frozenStream) Recv() (*meshv1.AttachResponse, error) {
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

func TestDrainEndsInTimeThoughTheControlPlaneIsFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAttachment(nil, instanceOf(Workload{Service: "orders"}, netip.MustParseAddr("192.0.2.1"), 1, 2), slog.New(slog.DiscardHandler))
		a.api = frozen{}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.run(ctx) }()
		time.Sleep(time.Minute)
		stop()
		began := time.Now()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > drainWait+linger {
			t.Errorf("it took %v", took)
		}
	})
}

// gone is a control plane that keeps the instance registered for a minute, and is gone then: connections are refused.
type gone struct{ until time.Time }

func (g gone) Attach(ctx context.Context, options ...grpc.CallOption) (meshv1.Attachment_AttachClient, error) {
	if time.Now().Before(g.until) {
		return &goneStream{frozenStream: frozenStream{ctx: ctx}, until: time.After(time.Until(g.until))}, nil
	}
	if slices.Contains(options, grpc.WaitForReady(true)) {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return nil, status.Error(codes.Unavailable, "connection refused")
}

type goneStream struct {
	frozenStream
	until      <-chan time.Time
	registered bool
}

func (s *goneStream) Recv() (*meshv1.AttachResponse, error) {
	if !s.registered {
		s.registered = true
		return &meshv1.AttachResponse{Event: &meshv1.AttachResponse_Registered{Registered: &meshv1.Instance{}}}, nil
	}
	<-s.until
	return nil, status.Error(codes.Unavailable, "connection reset")
}

func TestTheEndWaitsASecondForAControlPlaneThatWasLostAndForNoneThatNeverWas(t *testing.T) {
	for _, c := range []struct {
		there time.Duration // how long it is there
		waits time.Duration
	}{{0, 0}, {time.Minute, lastTry}} {
		synctest.Test(t, func(t *testing.T) {
			a := newAttachment(nil, instanceOf(Workload{Service: "orders"}, netip.MustParseAddr("192.0.2.1"), 1, 2), slog.New(slog.DiscardHandler))
			a.api = gone{until: time.Now().Add(c.there)}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- a.run(ctx) }()
			time.Sleep(10 * time.Minute)
			stop()
			began := time.Now()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took != c.waits {
				t.Errorf("there for %v: the end took %v", c.there, took)
			}
		})
	}
}
