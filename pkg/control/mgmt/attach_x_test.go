package mgmt_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/xds/client"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// sidecar is a stream that holds an instance.
type sidecar struct {
	t      *testing.T
	stream meshv1.Attachment_AttachClient
	kill   context.CancelFunc
}

func (w *world) sidecar() *sidecar {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	stream, err := meshv1.NewAttachmentClient(w.conn).Attach(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return &sidecar{w.t, stream, cancel}
}

// attach registers an instance by a stream.
func (w *world) attach(i *meshv1.Instance) *sidecar {
	w.t.Helper()
	s := w.sidecar()
	s.send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Instance{Instance: i}})
	if r := s.recv(); r.GetRegistered() == nil {
		w.t.Fatalf("answered with %v", r)
	}
	return s
}

func (s *sidecar) send(r *meshv1.AttachRequest) {
	s.t.Helper()
	if err := s.stream.Send(r); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sidecar) status(to meshv1.Status) {
	s.t.Helper()
	s.send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Status{Status: to}})
}

func (s *sidecar) recv() *meshv1.AttachResponse {
	s.t.Helper()
	r, err := s.stream.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// end returns how the stream ends, and until when.
func (s *sidecar) end() error {
	s.t.Helper()
	r, err := s.stream.Recv()
	if err == nil {
		s.t.Fatalf("goes on with %v", r)
	}
	return err
}

func (s *sidecar) goodbye() error {
	s.t.Helper()
	if err := s.stream.CloseSend(); err != nil {
		s.t.Fatal(err)
	}
	return s.end()
}

func endpointsOf(service string) string { return service + ".default:http" }

// subscriber is a running xDS client.
type subscriber struct {
	stop func()
	wait chan struct{} // closed: it may apply what it gets
}

func (w *world) subscriber(node string, names ...string) *subscriber {
	s := w.slowSubscriber(node, "", names...)
	close(s.wait)
	return s
}

func (w *world) refuser(node, reason string, names ...string) *subscriber {
	s := w.slowSubscriber(node, reason, names...)
	close(s.wait)
	return s
}

// slowSubscriber applies, or refuses, only what it gets while wait is closed.
func (w *world) slowSubscriber(node, reason string, names ...string) *subscriber {
	w.t.Helper()
	s := &subscriber{wait: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	c := client.New(client.Config{
		Node: &core.Node{Id: node, Cluster: "caller.default"},
		Conn: w.dial(),
		Apply: func(u client.Update) (bad []client.Rejection) {
			select {
			case <-s.wait:
			case <-ctx.Done():
			}
			for _, r := range u.Resources {
				if reason != "" {
					bad = append(bad, client.Rejection{Name: r.Name, Reason: reason})
				}
			}
			return bad
		},
		Log: slog.New(slog.DiscardHandler),
	})
	c.Subscribe(codec.EndpointsURL, names...)
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	s.stop = func() {
		cancel()
		running.Wait()
	}
	w.t.Cleanup(s.stop)
	synctest.Wait()
	return s
}

func (w *world) statusOf(id string) meshv1.Status {
	w.t.Helper()
	r, ok := w.view.Instance(discovery.Key{Service: mesh.ServiceName{Name: "orders", Namespace: mesh.DefaultNamespace}, ID: id})
	if !ok {
		w.t.Fatalf("%s is not registered", id)
	}
	return r.Instance.GetStatus()
}

func TestAttachedInstanceIsRegisteredWithoutATTL(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.sidecar()
		i := instance("orders", "")
		i.InboundPort = 15006
		s.send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Instance{Instance: i}})
		got := s.recv().GetRegistered()
		if got.GetId() == "" || got.GetNamespace() != "default" || got.GetTtl() != nil || got.GetInboundPort() != 15006 || got.GetRevision() == 0 {
			t.Errorf("registered %v", got)
		}
		if !w.has("orders", got.GetId()) {
			t.Error("it is answered, but not seen")
		}
		time.Sleep(2 * discovery.MaxTTL)
		if !w.has("orders", got.GetId()) {
			t.Error("it ended, but its stream has not")
		}
	})
}

func TestStreamThatDoesNotBeginWithAnInstanceIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.sidecar()
		s.status(meshv1.Status_HEALTHY)
		expectFault(t, s.end(), codes.InvalidArgument, "must be the instance")
		s = w.sidecar()
		s.send(&meshv1.AttachRequest{})
		expectFault(t, s.end(), codes.InvalidArgument, "must be the instance")
		expectFault(t, w.sidecar().goodbye(), codes.InvalidArgument, "must be the instance")
		s = w.sidecar()
		s.send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Instance{Instance: &meshv1.Instance{Service: "Orders"}}})
		expectFault(t, s.end(), codes.InvalidArgument, "the instance is not valid", "service", "address", "ports")
	})
	synctest.Test(t, func(t *testing.T) {
		expectFault(t, newWorld(t).sidecar().end(), codes.Unavailable, "has not read the store yet")
	})
}

func TestStatusFollowsWhatTheSidecarReports(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.attach(instance("orders", "a"))
		for _, to := range []meshv1.Status{meshv1.Status_UNHEALTHY, meshv1.Status_HEALTHY, meshv1.Status_STATUS_UNSPECIFIED} {
			s.status(to)
			synctest.Wait()
			if got := w.statusOf("a"); got != to {
				t.Errorf("it is %v, reported was %v", got, to)
			}
		}
	})
}

func TestWhatIsNoStatusBreaksTheStream(t *testing.T) {
	for name, r := range map[string]*meshv1.AttachRequest{
		"unknown status":      {Event: &meshv1.AttachRequest_Status{Status: 9}},
		"nothing":             {},
		"another instance":    {Event: &meshv1.AttachRequest_Instance{Instance: instance("orders", "b")}},
		"its instance, again": {Event: &meshv1.AttachRequest_Instance{Instance: instance("orders", "a")}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				s := w.attach(instance("orders", "a"))
				s.send(r)
				expectFault(t, s.end(), codes.InvalidArgument, "")
				time.Sleep(2 * time.Second)
				if w.has("orders", "a") || w.has("orders", "b") {
					t.Error("something is still registered")
				}
			})
		})
	}
}

func TestHalfCloseDeregistersAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s, began := w.attach(instance("orders", "a")), time.Now()
		if err := s.goodbye(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream ends with %v", err)
		}
		if w.has("orders", "a") || time.Since(began) > 0 {
			t.Errorf("still there after %v", time.Since(began))
		}
	})
}

func TestHalfCloseWithoutTheStoreIsMadeUpForLater(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.attach(instance("orders", "a"))
		w.store.SetDown(true)
		expectFault(t, s.goodbye(), codes.Unavailable, "")
		time.Sleep(10 * time.Second)
		w.store.SetDown(false)
		time.Sleep(20 * time.Second)
		if w.has("orders", "a") {
			t.Error("still registered")
		}
	})
}

func TestBrokenStreamTakesItsInstanceAwayAfterASecond(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.attach(instance("orders", "a"))
		s.kill()
		time.Sleep(900 * time.Millisecond)
		if !w.has("orders", "a") {
			t.Error("gone before a new stream could come")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if w.has("orders", "a") {
			t.Error("still registered")
		}
	})
}

func TestNewStreamTakesTheInstanceAndEndsTheOldOne(t *testing.T) {
	for name, end := range map[string]func(*sidecar){
		"broken":  func(s *sidecar) { s.kill() },
		"waiting": func(s *sidecar) { expectFault(s.t, s.end(), codes.Aborted, "another stream") },
		"reports": func(s *sidecar) {
			_ = s.stream.Send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Status{Status: meshv1.Status_DRAINING}})
			expectFault(s.t, s.end(), codes.Aborted, "another stream")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				old := w.attach(instance("orders", "a"))
				recent := w.attach(instance("orders", "a"))
				end(old)
				time.Sleep(time.Minute)
				if !w.has("orders", "a") || w.statusOf("a") != meshv1.Status_STATUS_UNSPECIFIED {
					t.Fatal("the new one's instance suffered")
				}
				recent.status(meshv1.Status_UNHEALTHY)
				synctest.Wait()
				if w.statusOf("a") != meshv1.Status_UNHEALTHY {
					t.Error("the new one does not hold it")
				}
			})
		})
	}
}

func TestStreamWhoseInstanceIsDeregisteredIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.attach(instance("orders", "a"))
		_, err := meshv1.NewRegistryClient(w.conn).DeregisterInstance(t.Context(), &meshv1.DeregisterInstanceRequest{Namespace: "default", Service: "orders", Id: "a"})
		if err != nil {
			t.Fatal(err)
		}
		expectFault(t, s.end(), codes.Aborted, "removed")
	})
}

func TestTwinOfASidecarThatLivesIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.attach(instance("orders", "a"))
		twin := instance("orders", "a")
		twin.Address = "10.9.9.9"
		second := w.sidecar()
		second.send(&meshv1.AttachRequest{Event: &meshv1.AttachRequest_Instance{Instance: twin}})
		expectFault(t, second.end(), codes.AlreadyExists, "each needs its own")
		first.status(meshv1.Status_UNHEALTHY)
		synctest.Wait()
		if w.statusOf("a") != meshv1.Status_UNHEALTHY {
			t.Error("the first does not hold it any more")
		}
	})
}

func TestStreamThatComesBackWithinItsGraceKeepsTheInstance(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.attach(instance("orders", "a")).kill()
		time.Sleep(500 * time.Millisecond)
		w.attach(instance("orders", "a"))
		time.Sleep(time.Minute)
		if !w.has("orders", "a") {
			t.Error("it was taken away")
		}
	})
}

func TestAttachedInstanceIsNotForTheAPIToRegisterOrRenew(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		w.attach(instance("orders", "a"))
		_, err := ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: instance("", "a")})
		expectFault(t, err, codes.FailedPrecondition, "sidecar's stream")
		_, err = ask(t, w, &meshv1.RenewInstanceRequest{Service: "orders", Id: "a"})
		expectFault(t, err, codes.FailedPrecondition, "sidecar's stream")
	})
}

func TestDrainIsAnsweredWhenEverySubscriberHasAppliedIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.attach(instance("orders", "a"))
		w.subscriber("quick", endpointsOf("orders"))
		slow := w.slowSubscriber("slow", "", endpointsOf("orders"))
		w.slowSubscriber("elsewhere", "", endpointsOf("carts")) // not concerned
		s.status(meshv1.Status_DRAINING)
		answered := make(chan *meshv1.AttachResponse)
		go func() {
			r, _ := s.stream.Recv()
			answered <- r
		}()
		time.Sleep(time.Second)
		select {
		case r := <-answered:
			t.Fatalf("answered with %v before the slow one had applied it", r)
		default:
		}
		if w.statusOf("a") != meshv1.Status_DRAINING {
			t.Error("it does not drain")
		}
		close(slow.wait)
		began := time.Now()
		if r := <-answered; r.GetDrained() == nil || r.GetDrained().GetMissing() != 0 || time.Since(began) > 0 {
			t.Errorf("answered with %v after %v", r, time.Since(began))
		}
		if err := s.goodbye(); !errors.Is(err, io.EOF) || w.has("orders", "a") {
			t.Errorf("the drained sidecar ends with %v", err)
		}
	})
}

func TestDrainSaysHowManyHaveNotAppliedItWhenItsBoundPassed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.attach(instance("orders", "a"))
		w.subscriber("quick", endpointsOf("orders"))
		w.slowSubscriber("dead-1", "", endpointsOf("orders"))
		w.slowSubscriber("dead-2", "", endpointsOf("orders"))
		began := time.Now()
		s.status(meshv1.Status_DRAINING)
		if r := s.recv(); r.GetDrained() == nil || r.GetDrained().GetMissing() != 2 {
			t.Errorf("answered with %v", r)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestDrainDoesNotWaitForWhoRefusesOrIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.attach(instance("orders", "a"))
		w.refuser("refuser", "no", endpointsOf("orders"))
		leaving := w.slowSubscriber("leaving", "", endpointsOf("orders"))
		began := time.Now()
		s.status(meshv1.Status_DRAINING)
		synctest.Wait()
		leaving.stop()
		if r := s.recv(); r.GetDrained() == nil || r.GetDrained().GetMissing() != 0 || time.Since(began) > 0 {
			t.Errorf("answered with %v after %v", r, time.Since(began))
		}
	})
}

func TestClosingLeavesInstancesRegistered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ids, ended := []string{"a", "b", "c", "d", "e", "f"}, make(chan error)
		began := time.Now()
		for _, id := range ids {
			s := w.attach(instance("orders", id))
			go func() {
				_, err := s.stream.Recv()
				ended <- err
			}()
		}
		w.api.Close()
		for range ids {
			if err := <-ended; status.Code(err) != codes.Unavailable {
				t.Errorf("a stream ends with %v", err)
			}
		}
		if took := time.Since(began); took == 0 || took > time.Second {
			t.Errorf("all streams ended over %v", took)
		}
		time.Sleep(5 * time.Second)
		for _, id := range ids {
			if !w.has("orders", id) {
				t.Errorf("%s is gone", id)
			}
		}
	})
}

func TestWhileTheAPIClosesReportsAndGoodbyesStillCount(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		leaving, failing := w.attach(instance("orders", "a")), w.attach(instance("orders", "b"))
		w.api.Close()
		failing.status(meshv1.Status_UNHEALTHY)
		if err := leaving.goodbye(); !errors.Is(err, io.EOF) {
			t.Errorf("the one that leaves ends with %v", err)
		}
		synctest.Wait()
		if w.has("orders", "a") || w.statusOf("b") != meshv1.Status_UNHEALTHY {
			t.Error("they were not heard")
		}
	})
}

func TestStreamThatSaysNothingEndsWhenTheAPICloses(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s, draining := w.sidecar(), w.attach(instance("orders", "a"))
		w.slowSubscriber("dead", "", endpointsOf("orders"))
		draining.status(meshv1.Status_DRAINING)
		synctest.Wait()
		w.api.Close()
		expectFault(t, s.end(), codes.Unavailable, "shutting down")
		began := time.Now()
		if r := draining.recv(); r.GetDrained().GetMissing() != 1 || time.Since(began) > 0 {
			t.Errorf("the drain is answered with %v after %v", r, time.Since(began))
		}
		expectFault(t, draining.end(), codes.Unavailable, "shutting down")
	})
}
