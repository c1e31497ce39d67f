package mgmt

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

const (
	// drainBound is how long a drain waits for the clients that have not applied it.
	drainBound = 3 * time.Second
	// closingSpread is over what time the streams end when the control plane stops.
	closingSpread = time.Second
)

// attachmentService implements mesh.v1.Attachment.
type attachmentService struct {
	meshv1.UnimplementedAttachmentServer
	Config
	closing context.Context //nolint:containedctx // it is the life of the API, not of a call
}

// Attach keeps an instance registered for as long as the stream lives.
func (s *attachmentService) Attach(stream meshv1.Attachment_AttachServer) error {
	if err := s.ready(); err != nil {
		return err
	}
	in := receive(stream)
	defer in.leave()
	instance, err := s.first(in)
	if err != nil {
		return err
	}
	a, err := s.Registry.Attach(stream.Context(), instance)
	if err != nil {
		return statusOf(err)
	}
	err = s.keep(stream, in, a)
	switch {
	case errors.Is(err, io.EOF):
		// The sidecar has said good-bye. Its stream may be gone before the store has
		// answered: that changes nothing.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(stream.Context()), drainBound)
		defer cancel()
		if err := a.Detach(ctx); err != nil {
			a.Broke()
			return statusOf(err)
		}
		return nil
	case errors.Is(err, errClosing):
		return statusClosing()
	case errors.Is(err, discovery.ErrReplaced):
	case peerFellSilent(stream.Context()):
		a.FellSilent()
	default:
		a.Broke()
	}
	return statusOf(err)
}

var errClosing = errors.New("the control plane is shutting down")

// inbox is what a stream receives.
type inbox struct {
	messages chan *meshv1.AttachRequest // closed when there are no more
	err      error                      // why there are no more
	left     chan struct{}
}

// receive starts to. Receiving ends with the stream, which ends after its handler
// has returned: nobody waits for it.
func receive(stream meshv1.Attachment_AttachServer) *inbox {
	in := &inbox{messages: make(chan *meshv1.AttachRequest), left: make(chan struct{})}
	go func() {
		defer close(in.messages)
		for {
			r, err := stream.Recv()
			if err != nil {
				in.err = err
				return
			}
			select {
			case in.messages <- r:
			case <-in.left:
				return
			}
		}
	}()
	return in
}

// leave says that nobody takes messages any more.
func (in *inbox) leave() { close(in.left) }

// first returns the instance that a stream begins with.
func (s *attachmentService) first(in *inbox) (*meshv1.Instance, error) {
	select {
	case r, ok := <-in.messages:
		switch {
		case r.GetInstance() != nil:
			return r.GetInstance(), nil
		case ok || errors.Is(in.err, io.EOF):
			return nil, status.Error(codes.InvalidArgument, "the first message of the stream must be the instance")
		}
		return nil, in.err
	case <-s.closing.Done():
		return nil, statusClosing()
	}
}

// keep serves a stream after its first message, until it ends, with io.EOF if the
// sidecar ended it, or, some time after the API began to close, with errClosing.
func (s *attachmentService) keep(stream meshv1.Attachment_AttachServer, in *inbox, a *discovery.Attachment) error {
	answer := &meshv1.AttachResponse{Event: &meshv1.AttachResponse_Registered{Registered: a.Instance()}}
	if err := stream.Send(answer); err != nil {
		return err
	}
	closing := s.closing.Done()
	var closed <-chan time.Time
	for {
		select {
		case r, ok := <-in.messages:
			if !ok {
				return in.err
			}
			if err := s.report(stream, a, r); err != nil {
				return err
			}
		case <-a.Replaced():
			return discovery.ErrReplaced
		case <-closing:
			closing = nil
			pause := time.NewTimer(rand.N(closingSpread))
			defer pause.Stop()
			closed = pause.C
		case <-closed:
			return errClosing
		}
	}
}

// report takes in a status.
func (s *attachmentService) report(stream meshv1.Attachment_AttachServer, a *discovery.Attachment, r *meshv1.AttachRequest) error {
	to, ok := r.GetEvent().(*meshv1.AttachRequest_Status)
	if !ok {
		return status.Error(codes.InvalidArgument, "after the first message, only a status may follow")
	}
	if _, known := meshv1.Status_name[int32(to.Status)]; !known {
		return status.Errorf(codes.InvalidArgument, "there is no status %d", to.Status)
	}
	if err := a.SetStatus(stream.Context(), to.Status); err != nil {
		return err
	}
	if to.Status != meshv1.Status_DRAINING {
		return nil
	}
	missing := s.drained(stream.Context(), a.Instance())
	return stream.Send(&meshv1.AttachResponse{Event: &meshv1.AttachResponse_Drained{Drained: &meshv1.Drained{Missing: uint32(missing)}}})
}

// drained waits until every client of the instance's load assignments has applied
// that it drains, and returns how many had not when the bound passed or the API
// began to close.
func (s *attachmentService) drained(ctx context.Context, i *meshv1.Instance) (missing int) {
	ctx, cancel := context.WithTimeout(ctx, drainBound)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	name := mesh.ServiceName{Namespace: i.GetNamespace(), Name: i.GetService()}
	for _, p := range i.GetPorts() {
		missing += s.Cache.AwaitApplied(ctx, xdsserver.Key{Type: codec.TypeEndpoints, Name: mesh.ClusterName(name, p.GetName())})
	}
	return missing
}
