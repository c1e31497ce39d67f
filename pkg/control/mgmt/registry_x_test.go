package mgmt_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

func TestInstanceFromItsRegistrationToItsEnd(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		registered := must[*meshv1.Instance](t, w, ask, &meshv1.RegisterInstanceRequest{Service: "orders", Namespace: "shop", Instance: &meshv1.Instance{
			Id: "a1", Address: "::1", Ports: []*meshv1.Port{{Name: "http", Number: 9000}}, Labels: map[string]string{"version": "v1"},
			Ttl: durationpb.New(10 * time.Second),
		}})
		if registered.GetService() != "orders" || registered.GetNamespace() != "shop" || registered.GetWeight() != 1 ||
			registered.GetPorts()[0].GetProtocol() != meshv1.Protocol_HTTP || !registered.GetRegisteredAt().AsTime().Equal(time.Now()) {
			t.Errorf("registered as %v", registered)
		}
		got := must[*meshv1.Instance](t, w, ask, &meshv1.GetInstanceRequest{Service: "orders", Namespace: "shop", Id: "a1"})
		if !proto.Equal(got, registered) || got.GetRevision() == 0 {
			t.Errorf("got %v, registered %v", got, registered)
		}
		list := must[*meshv1.ListInstancesResponse](t, w, ask, &meshv1.ListInstancesRequest{Service: "orders", Namespace: "shop"})
		if len(list.GetInstances()) != 1 || !proto.Equal(list.GetInstances()[0], registered) || list.GetRevision() < registered.GetRevision() {
			t.Errorf("list %v", list)
		}
		want := &meshv1.Service{
			Name: "orders", Namespace: "shop", Ports: registered.GetPorts(), Instances: 1, UsableInstances: 1, Revision: registered.GetRevision(),
		}
		if s := must[*meshv1.Service](t, w, ask, &meshv1.GetServiceRequest{Service: "orders", Namespace: "shop"}); !proto.Equal(s, want) {
			t.Errorf("service %v, want %v", s, want)
		}
		if r := must[*meshv1.RenewInstanceResponse](t, w, ask, &meshv1.RenewInstanceRequest{Service: "orders", Namespace: "shop", Id: "a1"}); r.GetTtl().AsDuration() != 10*time.Second {
			t.Errorf("renewed for %v", r.GetTtl().AsDuration())
		}
		gone := must[*meshv1.DeregisterInstanceResponse](t, w, ask, &meshv1.DeregisterInstanceRequest{Service: "orders", Namespace: "shop", Id: "a1"})
		if gone.GetRevision() <= registered.GetRevision() {
			t.Errorf("gone with revision %d", gone.GetRevision())
		}
		for _, request := range []proto.Message{
			&meshv1.GetInstanceRequest{Service: "orders", Namespace: "shop", Id: "a1"},
			&meshv1.RenewInstanceRequest{Service: "orders", Namespace: "shop", Id: "a1"},
			&meshv1.DeregisterInstanceRequest{Service: "orders", Namespace: "shop", Id: "a1"},
		} {
			_, err := ask(t, w, request)
			expectFault(t, err, codes.NotFound, "no such instance")
		}
	})
}

func TestKnownAndEmptyIsNotUnknown(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		for _, request := range []proto.Message{&meshv1.GetServiceRequest{Service: "orders"}, &meshv1.ListInstancesRequest{Service: "orders"}} {
			_, err := ask(t, w, request)
			expectFault(t, err, codes.NotFound, "service orders.default was never known")
		}
		must[*meshv1.Instance](t, w, ask, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: instance("", "a")})
		must[*meshv1.DeregisterInstanceResponse](t, w, ask, &meshv1.DeregisterInstanceRequest{Service: "orders", Id: "a"})
		if list := must[*meshv1.ListInstancesResponse](t, w, ask, &meshv1.ListInstancesRequest{Service: "orders"}); len(list.GetInstances()) != 0 {
			t.Errorf("there is %v", list)
		}
		if s := must[*meshv1.Service](t, w, ask, &meshv1.GetServiceRequest{Service: "orders"}); s.GetInstances() != 0 || len(s.GetPorts()) != 1 {
			t.Errorf("service %v", s)
		}
	})
}

func TestInstanceLivesByItsTTLAndItsRenewals(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		i := instance("", "a")
		i.Ttl = durationpb.New(5 * time.Second)
		must[*meshv1.Instance](t, w, ask, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: i})
		for range 4 {
			time.Sleep(4 * time.Second)
			must[*meshv1.RenewInstanceResponse](t, w, ask, &meshv1.RenewInstanceRequest{Service: "orders", Id: "a"})
		}
		time.Sleep(6 * time.Second)
		_, err := ask(t, w, &meshv1.RenewInstanceRequest{Service: "orders", Id: "a"})
		expectFault(t, err, codes.NotFound, "no such instance")
	})
}

func TestServicesAreListedByNamespaceAndName(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		for _, name := range []string{"b.shop", "a.shop", "z.default"} {
			service, namespace, _ := strings.Cut(name, ".")
			i := instance(service, "a")
			i.Namespace = namespace
			w.register(i)
		}
		unhealthy := instance("z", "b")
		unhealthy.Status = meshv1.Status_UNHEALTHY
		w.register(unhealthy)
		for namespace, want := range map[string]string{
			"":      "z.default 1 of 2, a.shop 1 of 1, b.shop 1 of 1",
			"shop":  "a.shop 1 of 1, b.shop 1 of 1",
			"empty": "",
		} {
			list := must[*meshv1.ListServicesResponse](t, w, ask, &meshv1.ListServicesRequest{Namespace: namespace})
			var got []string
			for _, s := range list.GetServices() {
				got = append(got, fmt.Sprintf("%s.%s %d of %d", s.GetName(), s.GetNamespace(), s.GetUsableInstances(), s.GetInstances()))
			}
			if strings.Join(got, ", ") != want || list.GetRevision() == 0 {
				t.Errorf("in %q: %v at %d, want %s", namespace, got, list.GetRevision(), want)
			}
		}
		_, err := ask(t, w, &meshv1.ListServicesRequest{Namespace: "No"})
		expectFault(t, err, codes.InvalidArgument, "namespace", "namespace")
	})
}

func TestNamesThatAreNoLabelsAreRefusedByField(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		for _, c := range []struct {
			request proto.Message
			fields  []string
		}{
			{&meshv1.GetServiceRequest{Namespace: "A", Service: "B"}, []string{"namespace", "service"}},
			{&meshv1.ListInstancesRequest{Namespace: "a_", Service: "b"}, []string{"namespace"}},
			{&meshv1.GetInstanceRequest{Service: "b..c", Id: "a"}, []string{"service"}},
			{&meshv1.GetInstanceRequest{Service: "orders", Id: "A"}, []string{"id"}},
			{&meshv1.GetInstanceRequest{Namespace: "A", Service: "B", Id: "C"}, []string{"namespace", "service", "id"}},
			{&meshv1.RenewInstanceRequest{Service: "orders", Id: "a b"}, []string{"id"}},
			{&meshv1.DeregisterInstanceRequest{Service: strings.Repeat("a", 64), Id: "a"}, []string{"service"}},
			{&meshv1.GetPolicyRequest{Service: "-"}, []string{"service"}},
			{&meshv1.DeletePolicyRequest{Namespace: "-", Service: "orders"}, []string{"namespace"}},
			{&meshv1.PutPolicyRequest{Service: "UP", Policy: &meshv1.Policy{LoadBalancing: 9}}, []string{"service", "loadBalancing"}},
			{&meshv1.RegisterInstanceRequest{Namespace: "UP", Service: "DOWN", Instance: instance("", "a")}, []string{"namespace", "service"}},
		} {
			_, err := ask(t, w, c.request)
			expectFault(t, err, codes.InvalidArgument, "is not valid", c.fields...)
		}
	})
}

func TestFaultyInstanceIsRefusedWithAllItsFaults(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		_, err := ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: &meshv1.Instance{
			Id: "A1", Address: "orders.example", Weight: 10_001, Status: 9, Identity: "me", Zone: strings.Repeat("z", 64), InboundPort: 65_536,
			Ttl:    durationpb.New(time.Second),
			Labels: map[string]string{"": "empty", "long": strings.Repeat("v", 256)},
			Ports:  []*meshv1.Port{{Name: "http", Number: 1}, {Name: "http", Number: 1, Protocol: 77}, {Name: "?", Number: 65_536}},
		}})
		expectFault(t, err, codes.InvalidArgument, "the instance is not valid",
			"id", "address", "weight", "status", "identity", "zone", "inboundPort", "ttl", `labels[""]`, `labels["long"]`,
			"ports[1].name", "ports[1].number", "ports[1].protocol", "ports[2].name", "ports[2].number")
		_, err = ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: &meshv1.Instance{Id: "a"}})
		expectFault(t, err, codes.InvalidArgument, "the instance is not valid", "address", "ports")
		_, err = ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: &meshv1.Instance{Service: "carts", Id: "A1"}})
		expectFault(t, err, codes.InvalidArgument, "the instance is not valid", "service", "id", "address", "ports")
		foreign := instance("", "a")
		foreign.Identity = "spiffe://elsewhere/ns/default/sa/orders"
		_, err = ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: foreign})
		expectFault(t, err, codes.InvalidArgument, "trust domain", "identity")
		if w.has("orders", "a") {
			t.Error("a refused instance is registered")
		}
	})
}

func TestThousandsOfFaultsHaveAShortAnswer(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		i := instance("", "a")
		i.Labels = map[string]string{}
		for n := range 5000 {
			i.Labels[strings.Repeat("k", 64)+fmt.Sprint(n)] = ""
			i.Ports = append(i.Ports, &meshv1.Port{Number: 1})
		}
		_, err := ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: i})
		expectFault(t, err, codes.InvalidArgument, "the instance is not valid", "labels", "ports")

		long := instance(strings.Repeat("s", 100_000), "a")
		_, err = ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: long})
		expectFault(t, err, codes.InvalidArgument, "in the request", "service")
		if n := len(err.Error()); n > 500 {
			t.Errorf("the answer has %d characters", n)
		}
	})
}

func TestNamesInTheBodyMayBeRepeatedButNotContradicted(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		same := instance("orders", "a")
		same.Namespace = "default"
		must[*meshv1.Instance](t, w, ask, &meshv1.RegisterInstanceRequest{Namespace: "default", Service: "orders", Instance: same})
		other := instance("carts", "a")
		other.Namespace = "shop"
		_, err := ask(t, w, &meshv1.RegisterInstanceRequest{Namespace: "default", Service: "orders", Instance: other})
		expectFault(t, err, codes.InvalidArgument, `"carts" here and "orders" in the request`, "namespace", "service")

		must[*meshv1.Policy](t, w, ask, &meshv1.PutPolicyRequest{Namespace: "default", Service: "orders", Policy: &meshv1.Policy{Service: "orders", Namespace: "default"}})
		_, err = ask(t, w, &meshv1.PutPolicyRequest{Namespace: "default", Service: "orders", Policy: &meshv1.Policy{Service: "carts", Namespace: "shop"}})
		expectFault(t, err, codes.InvalidArgument, `"shop" here and "default" in the request`, "namespace", "service")
	})
}

func TestContradictedNameIsToldWithAllElseThatIsWrong(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		foreign := instance("carts", "a")
		foreign.Identity, foreign.Weight = "spiffe://elsewhere/ns/default/sa/orders", 10_001
		_, err := ask(t, w, &meshv1.RegisterInstanceRequest{Service: "orders", Instance: foreign})
		expectFault(t, err, codes.InvalidArgument, "trust domain", "service", "identity", "weight")
		_, err = ask(t, w, &meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{
			Service: "carts", LoadBalancing: 9, Breaker: &meshv1.Breaker{FailurePercent: 101},
		}})
		expectFault(t, err, codes.InvalidArgument, `"carts" here and "orders" in the request`, "service", "loadBalancing", "breaker.failurePercent")
	})
}

func TestOverGRPCTheObjectAloneMaySayItsNames(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		i := instance("orders", "a")
		i.Namespace = "shop"
		if got := must[*meshv1.Instance](t, w, askGRPC, &meshv1.RegisterInstanceRequest{Instance: i}); got.GetNamespace() != "shop" {
			t.Errorf("registered %v", got)
		}
		p := &meshv1.Policy{Service: "orders", Namespace: "shop"}
		if got := must[*meshv1.Policy](t, w, askGRPC, &meshv1.PutPolicyRequest{Policy: p}); got.GetNamespace() != "shop" {
			t.Errorf("put %v", got)
		}
		_, err := askGRPC(t, w, &meshv1.RegisterInstanceRequest{Service: "orders"})
		expectFault(t, err, codes.InvalidArgument, "is required", "instance")
		_, err = askGRPC(t, w, &meshv1.PutPolicyRequest{Service: "orders"})
		expectFault(t, err, codes.InvalidArgument, "is required", "policy")
		_, err = askGRPC(t, w, &meshv1.GetServiceRequest{})
		expectFault(t, err, codes.InvalidArgument, "must not be empty", "service")
	})
}

func TestPolicyFromItsPutToItsDeletion(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		_, err := ask(t, w, &meshv1.GetPolicyRequest{Service: "orders"})
		expectFault(t, err, codes.NotFound, "no policy")
		_, err = ask(t, w, &meshv1.DeletePolicyRequest{Service: "orders"})
		expectFault(t, err, codes.NotFound, "no policy")

		put := must[*meshv1.Policy](t, w, ask, &meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{
			LoadBalancing: meshv1.LoadBalancing_RANDOM, RequestTimeout: durationpb.New(2 * time.Second), Breaker: &meshv1.Breaker{MinimumRequests: 3},
		}})
		if got := must[*meshv1.Policy](t, w, ask, &meshv1.GetPolicyRequest{Service: "orders"}); !proto.Equal(got, put) || got.GetRevision() == 0 {
			t.Errorf("put %v, got %v", put, got)
		}
		next := must[*meshv1.Policy](t, w, ask, &meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{Revision: put.GetRevision()}})
		if next.GetLoadBalancing() != 0 || next.GetBreaker() != nil || next.GetRevision() <= put.GetRevision() {
			t.Errorf("a policy is put whole, and this is left: %v", next)
		}
		_, err = ask(t, w, &meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{Revision: put.GetRevision()}})
		expectFault(t, err, codes.FailedPrecondition, "changed since")
		_, err = ask(t, w, &meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{Revision: -1, RequestTimeout: durationpb.New(-1), Breaker: &meshv1.Breaker{FailurePercent: 101}}})
		expectFault(t, err, codes.InvalidArgument, "the policy is not valid", "revision", "requestTimeout", "breaker.failurePercent")

		gone := must[*meshv1.DeletePolicyResponse](t, w, ask, &meshv1.DeletePolicyRequest{Service: "orders"})
		if gone.GetRevision() <= next.GetRevision() {
			t.Errorf("gone with revision %d", gone.GetRevision())
		}
		_, err = ask(t, w, &meshv1.GetPolicyRequest{Service: "orders"})
		expectFault(t, err, codes.NotFound, "no policy")
	})
}

// all holds a request for every method.
func all() []proto.Message {
	return []proto.Message{
		&meshv1.ListServicesRequest{},
		&meshv1.GetServiceRequest{Service: "orders"},
		&meshv1.ListInstancesRequest{Service: "orders"},
		&meshv1.GetInstanceRequest{Service: "orders", Id: "a"},
		&meshv1.GetPolicyRequest{Service: "orders"},
		&meshv1.RegisterInstanceRequest{Service: "orders", Instance: instance("", "a")},
		&meshv1.RenewInstanceRequest{Service: "orders", Id: "a"},
		&meshv1.DeregisterInstanceRequest{Service: "orders", Id: "a"},
		&meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{}},
		&meshv1.DeletePolicyRequest{Service: "orders"},
	}
}

func TestNothingIsAnsweredBeforeTheStoreWasRead(t *testing.T) {
	for name, face := range map[string]ask{"grpc": askGRPC, "rest": askREST} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for _, request := range all() {
					_, err := face(t, w, request)
					expectFault(t, err, codes.Unavailable, "has not read the store yet")
				}
				// Who is connected is not in the store.
				must[*meshv1.ListSidecarsResponse](t, w, face, &meshv1.ListSidecarsRequest{})
				w.follow()
				must[*meshv1.ListServicesResponse](t, w, face, &meshv1.ListServicesRequest{})
			})
		})
	}
}

func TestWithoutTheStoreReadsAreAnsweredAndWritesAreNot(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		w.register(instance("orders", "a"))
		must[*meshv1.Policy](t, w, ask, &meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{}})
		w.store.SetDown(true)
		defer w.store.SetDown(false)
		for n, request := range all() {
			_, err := ask(t, w, request)
			if n < 5 && err != nil {
				t.Errorf("%T: %v", request, err)
			}
			if n >= 5 {
				expectFault(t, err, codes.Unavailable, store.ErrUnavailable.Error())
			}
		}
	})
}

func TestChangeIsAnsweredWhenItIsInForceHere(t *testing.T) {
	for name, request := range map[string]proto.Message{
		"register":   &meshv1.RegisterInstanceRequest{Service: "orders", Instance: instance("", "b")},
		"deregister": &meshv1.DeregisterInstanceRequest{Service: "orders", Id: "a"},
		"put":        &meshv1.PutPolicyRequest{Service: "orders", Policy: &meshv1.Policy{}},
		"delete":     &meshv1.DeletePolicyRequest{Service: "carts"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.register(instance("orders", "a"))
				must[*meshv1.Policy](t, w, askGRPC, &meshv1.PutPolicyRequest{Service: "carts", Policy: &meshv1.Policy{}})
				w.store.StallWatches(true)
				answered := make(chan error, 1)
				go func() {
					_, err := askGRPC(t, w, request)
					answered <- err
				}()
				synctest.Wait()
				select {
				case err := <-answered:
					t.Fatalf("answered with %v while the mirror has not seen it", err)
				default:
				}
				w.store.StallWatches(false)
				if err := <-answered; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestHeldInstancesAreShownAndLetGoOf(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		list := func() (live, held int) {
			t.Helper()
			all := must[*meshv1.ListInstancesResponse](t, w, ask, &meshv1.ListInstancesRequest{Service: "orders"})
			s := must[*meshv1.Service](t, w, ask, &meshv1.GetServiceRequest{Namespace: "default", Service: "orders"})
			if int(s.GetInstances()) != len(all.GetInstances()) || int(s.GetHeldInstances()) != len(all.GetHeld()) {
				t.Errorf("the service says %v, the list has %d and %d", s, len(all.GetInstances()), len(all.GetHeld()))
			}
			return len(all.GetInstances()), len(all.GetHeld())
		}
		began := time.Now()
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			i := instance("orders", id)
			if id != "e" {
				i.Ttl = durationpb.New(10 * time.Second)
			}
			w.register(i)
		}
		if live, held := list(); live != 5 || held != 0 {
			t.Fatalf("%d live, %d held", live, held)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if live, held := list(); live != 1 || held != 4 {
			t.Fatalf("%d live, %d held; want 1 and 4", live, held)
		}
		first := must[*meshv1.ListInstancesResponse](t, w, ask, &meshv1.ListInstancesRequest{Service: "orders"}).GetHeld()[0]
		lost, until := first.GetLostAt().AsTime(), first.GetHeldUntil().AsTime()
		if lost.Before(began.Add(10*time.Second)) || until.Sub(lost) != 10*time.Minute || first.GetInstance().GetAddress() != "10.0.0.1" {
			t.Errorf("held: %v", first)
		}
		must[*meshv1.DeregisterInstanceResponse](t, w, ask, &meshv1.DeregisterInstanceRequest{Service: "orders", Id: "a"})
		if live, held := list(); live != 1 || held != 3 {
			t.Errorf("after one was deregistered: %d live, %d held; want 1 and 3", live, held)
		}
		_, err := ask(t, w, &meshv1.DeregisterInstanceRequest{Service: "orders", Id: "a"})
		expectFault(t, err, codes.NotFound, "no such instance")
		if n := must[*meshv1.ReleaseInstancesResponse](t, w, ask, &meshv1.ReleaseInstancesRequest{Service: "orders"}).GetReleased(); n != 3 {
			t.Errorf("%d were released, want 3", n)
		}
		if live, held := list(); live != 1 || held != 0 {
			t.Errorf("after the release: %d live, %d held; want 1 and none", live, held)
		}
		_, err = ask(t, w, &meshv1.ReleaseInstancesRequest{Service: "nope"})
		expectFault(t, err, codes.NotFound, "nope")
		_, err = ask(t, w, &meshv1.ReleaseInstancesRequest{Service: "NOPE"})
		expectFault(t, err, codes.InvalidArgument, "not valid", "service")
	})
}
