package sidecar

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

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
