package mgmt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// sendTimeout is how long a watcher may take to read what was sent to it.
const sendTimeout = 10 * time.Second

// Watch streams the registry.
func (s *registryService) Watch(r *meshv1.WatchRequest, stream meshv1.Registry_WatchServer) error {
	sender := newSender(stream.Send)
	defer sender.stop()
	return statusOf(s.watch(stream.Context(), s.closing, r, sender.send))
}

// watch sends events until ctx or closing ends, or one cannot be sent. send gives up
// when its context ends, and fails with errSlow if it takes longer than sendTimeout.
func (c *Config) watch(ctx, closing context.Context, r *meshv1.WatchRequest, send func(context.Context, *meshv1.WatchResponse) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	filter, err := filterOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(closing, func() { cancel(errClosing) })()
	w := c.View.Watch(filter, r.GetRevision())
	told := r.GetRevision()
	for {
		e, err := w.Next(ctx)
		if err == nil {
			err = send(ctx, responseOf(e))
		}
		if err == nil {
			told, err = e.Token, ctx.Err()
		}
		// What could not be sent may have arrived: what was told before it has, or will.
		switch {
		case err == nil:
		case errors.Is(context.Cause(ctx), errClosing):
			return status.Error(codes.Unavailable, goOnFrom(errClosing, told))
		case errors.Is(err, errSlow):
			return status.Error(codes.ResourceExhausted, goOnFrom(errSlow, told))
		default:
			return err
		}
	}
}

// goOnFrom says why a watch ends, and with which token another one misses nothing.
func goOnFrom(why error, token string) string {
	if token == "" {
		return why.Error()
	}
	return fmt.Sprintf("%v; go on from %.70s", why, token)
}

// filterOf reads what is to be watched.
func filterOf(r *meshv1.WatchRequest) (discovery.Filter, error) {
	f := discovery.Filter{Namespace: r.GetNamespace(), Service: r.GetService()}
	var faults []mesh.Fault
	if f.Namespace != "" {
		if err := mesh.CheckLabel(f.Namespace); err != nil {
			faults = append(faults, mesh.Fault{Field: "namespace", Reason: err.Error()})
		}
	}
	if f.Service != "" {
		if err := mesh.CheckLabel(f.Service); err != nil {
			faults = append(faults, mesh.Fault{Field: "service", Reason: err.Error()})
		}
		if f.Namespace == "" {
			f.Namespace = mesh.DefaultNamespace
		}
	}
	if len(faults) > 0 {
		return f, &mesh.InvalidError{What: "the request", Faults: faults}
	}
	return f, nil
}

func responseOf(e discovery.Event) *meshv1.WatchResponse {
	r := &meshv1.WatchResponse{Token: e.Token, Snapshot: e.Snapshot, Bookmark: e.Bookmark, StoreRevision: e.Revision}
	r.Changed = instances(e.Changed)
	for _, k := range e.Removed {
		r.Removed = append(r.Removed, &meshv1.InstanceKey{Namespace: k.Service.Namespace, Service: k.Service.Name, Id: k.ID})
	}
	for _, name := range e.Services {
		r.Services = append(r.Services, &meshv1.ServiceKey{Namespace: name.Namespace, Service: name.Name})
	}
	return r
}

var errSlow = errors.New("the client does not read")

// sender sends on a stream from a goroutine of its own, since a gRPC send to a
// client that does not read can be left, but not cancelled: it ends when the
// stream does, which is after its handler has returned.
type sender struct {
	queue chan *meshv1.WatchResponse
	sent  chan error
}

func newSender(send func(*meshv1.WatchResponse) error) *sender {
	s := &sender{queue: make(chan *meshv1.WatchResponse), sent: make(chan error, 1)}
	go func() {
		for r := range s.queue {
			s.sent <- send(r)
		}
	}()
	return s
}

// send returns when the response was handed to the transport, when ctx ended, or
// with errSlow when it takes too long. After an error nothing more can be sent.
func (s *sender) send(ctx context.Context, r *meshv1.WatchResponse) error {
	s.queue <- r
	patience := time.NewTimer(sendTimeout)
	defer patience.Stop()
	select {
	case err := <-s.sent:
		return err
	case <-patience.C:
		return errSlow
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *sender) stop() { close(s.queue) }
