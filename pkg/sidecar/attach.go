package sidecar

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	// drainWait bounds how long the shutdown waits until peers have applied that the
	// instance drains.
	drainWait = 5 * time.Second
	// linger is how long it goes on taking requests after that: those that peers sent
	// just before are on their way.
	linger = 100 * time.Millisecond
	// lastTry bounds how long the shutdown looks for a control plane that it has lost.
	lastTry = time.Second
	// maxAttachBackoff bounds the time before another attempt to register.
	maxAttachBackoff = 2 * time.Second
)

// attachment keeps the workload registered: its stream is the instance's liveness.
type attachment struct {
	api meshv1.AttachmentClient
	log *slog.Logger

	changed chan struct{} // holds one: the status changed

	mu       sync.Mutex
	instance *meshv1.Instance // guarded by mu; with the present status

	// reconnect ends the pause before the next connection to the control plane is tried.
	reconnect func()
	// known says that the control plane has kept the instance registered. It is run's.
	known bool

	onRegistered func()
	onRefused    func(why error) // the control plane is there, and does not keep it registered
}

func newAttachment(conn grpc.ClientConnInterface, instance *meshv1.Instance, log *slog.Logger) *attachment {
	return &attachment{
		api: meshv1.NewAttachmentClient(conn), log: log, instance: instance,
		changed: make(chan struct{}, 1), reconnect: func() {}, onRegistered: func() {}, onRefused: func(error) {},
	}
}

// instanceOf describes the workload to the registry.
func instanceOf(w Workload, address netip.Addr, inbound, app uint16) *meshv1.Instance {
	return &meshv1.Instance{
		Id:          w.InstanceID,
		Service:     w.Service,
		Namespace:   w.Namespace,
		Address:     address.String(),
		Ports:       []*meshv1.Port{portOf(w.AppProtocol, app)},
		Labels:      w.Labels,
		Zone:        w.Zone,
		Weight:      w.Weight,
		Status:      meshv1.Status_UNHEALTHY, // until the first check says otherwise
		InboundPort: uint32(inbound),
		TakesKnocks: w.AppProtocol == mesh.ProtocolTCP,
	}
}

// portOf describes the application's port, which is called as its protocol is.
func portOf(p mesh.Protocol, number uint16) *meshv1.Port {
	return &meshv1.Port{Name: strings.ToLower(p.String()), Number: uint32(number), Protocol: meshv1.Protocol(meshv1.Protocol_value[p.String()])}
}

// setStatus reports a status to the control plane, now or with the next stream.
func (a *attachment) setStatus(s meshv1.Status) {
	a.mu.Lock()
	a.instance.Status = s
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *attachment) current() *meshv1.Instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	return proto.Clone(a.instance).(*meshv1.Instance)
}

// run keeps the instance registered until ctx ends, then drains and deregisters it. If it has no stream just then, it looks
// for the control plane a last time: that may have come back, and still believe in the instance.
func (a *attachment) run(ctx context.Context) error {
	backoff := 50 * time.Millisecond
	for {
		began := time.Now()
		lost := a.stream(ctx)
		if lost == nil {
			return nil
		}
		if ctx.Err() == nil {
			a.log.Warn("not registered", "error", lost)
			if refused(lost) {
				a.onRefused(lost)
			}
		}
		if time.Since(began) > maxAttachBackoff {
			backoff = 50 * time.Millisecond
		}
		wait := time.NewTimer(backoff/2 + time.Duration(rand.Int64N(int64(backoff/2))))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			if !a.known {
				return nil
			}
			if lost := a.stream(ctx); lost != nil {
				a.log.Warn("the control plane was not told that this instance ends", "error", lost)
			}
			return nil
		}
		backoff = min(2*backoff, maxAttachBackoff)
	}
}

// refused reports whether a stream ended because the control plane said so. One that is
// gone changes nothing for the peers, who go on with what they know.
func refused(lost error) bool {
	switch status.Code(lost) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.OK:
		return false
	}
	return !errors.Is(lost, io.EOF)
}

// stream registers the instance and keeps it so while the stream lives, and returns why it does no more. At the end
// of stop it drains, and returns nil.
func (a *attachment) stream(stop context.Context) error {
	// The stream outlives stop: draining goes over it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(stop))
	defer cancel()
	s, err := a.open(ctx, cancel, stop.Err() != nil)
	if err != nil {
		return err
	}
	instance := a.current()
	if err := s.Send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Instance{Instance: instance}}); err != nil {
		_, err = s.Recv() // which is where gRPC says why
		return err
	}
	events := make(chan *meshv1.AttachResponse)
	var broken error
	var receiving sync.WaitGroup
	receiving.Go(func() {
		defer close(events)
		for {
			var r *meshv1.AttachResponse
			if r, broken = s.Recv(); broken != nil {
				return
			}
			select {
			case events <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	defer receiving.Wait()
	defer cancel()
	told := instance.GetStatus()
	for {
		select {
		case r, ok := <-events:
			if !ok {
				receiving.Wait()
				return broken
			}
			if r.GetRegistered() != nil {
				a.known = true
				a.log.Info("registered", "instance", r.GetRegistered().GetId(), "service", r.GetRegistered().GetService()+"."+r.GetRegistered().GetNamespace())
				a.onRegistered()
			}
		case <-a.changed:
			if status := a.current().GetStatus(); status != told {
				told = status
				// If this fails, the stream is broken, and events says so next.
				_ = s.Send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Status{Status: status}})
			}
		case <-stop.Done():
			a.drain(s, events)
			return nil
		}
	}
}

// open opens a stream. The last one is waited for, as long as that takes no longer than lastTry: then, cancel is called.
func (a *attachment) open(ctx context.Context, cancel func(), last bool) (meshv1.Attachment_AttachClient, error) {
	if !last {
		return a.api.Attach(ctx)
	}
	bound := time.AfterFunc(lastTry, cancel)
	defer bound.Stop()
	a.reconnect()
	return a.api.Attach(ctx, grpc.WaitForReady(true))
}

// drain asks for no more requests, waits until peers have applied that, and ends
// the stream, which deregisters the instance. A control plane that does not answer
// holds neither up for longer than drainWait.
func (a *attachment) drain(s meshv1.Attachment_AttachClient, events <-chan *meshv1.AttachResponse) {
	bound, done := context.WithTimeout(context.Background(), drainWait)
	defer done()
	drained := s.Send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Status{Status: meshv1.Status_DRAINING}}) != nil
	for !drained {
		select {
		case r, ok := <-events:
			if d := r.GetDrained(); !ok || d != nil {
				a.log.Info("drained", "peers_missing", d.GetMissing())
				drained = true
			}
		case <-bound.Done():
			a.log.Warn("peers did not confirm the drain in time", "waited", drainWait)
			drained = true
		}
	}
	pause := time.NewTimer(linger)
	defer pause.Stop()
	<-pause.C
	if s.CloseSend() != nil {
		return // the stream is gone, and the registration with it
	}
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-bound.Done():
			return
		}
	}
}
