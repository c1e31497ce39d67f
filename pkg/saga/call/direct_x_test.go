package call_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/call"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// registry is what is known of services, and whom it tells of changes.
type registry struct {
	direct *call.Direct
	log    lockedbuf.Buffer

	mu       sync.Mutex
	services map[mesh.ServiceName]translate.Service // guarded by mu
}

func direct(t *testing.T, services ...translate.Service) *registry {
	t.Helper()
	tracer, err := tracing.Setup(t.Context(), tracing.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Shutdown(context.Background()) })
	r := &registry{services: map[mesh.ServiceName]translate.Service{}}
	r.direct = call.NewDirect(func(name mesh.ServiceName) (translate.Service, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		s, known := r.services[name]
		return s, known
	}, tracer, slog.New(slog.NewTextHandler(&r.log, nil)))
	t.Cleanup(r.direct.Close)
	for _, s := range services {
		r.put(s)
	}
	return r
}

func (r *registry) put(s translate.Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.services[s.Name] = s
	r.direct.Changed(s, true)
}

func (r *registry) remove(name mesh.ServiceName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.services, name)
	r.direct.Changed(translate.Service{Name: name}, false)
}

func (r *registry) call(t *testing.T, service string) saga.Outcome {
	t.Helper()
	return r.direct.Call(t.Context(), requestTo(service))
}

func requestTo(service string) *coordinator.Request {
	return &coordinator.Request{Saga: "s", Step: "a", Attempt: 1, Key: "s/a/action", Fence: 1, Call: &saga.Call{Service: service, Path: "/"}}
}

// at is an instance at an address; of its ports the first is there.
func at(id, address string, ports ...translate.Port) translate.Instance {
	a := netip.MustParseAddrPort(address)
	if len(ports) == 0 {
		ports = []translate.Port{{Name: "http", Protocol: mesh.ProtocolHTTP}}
	}
	ports[0].Number = a.Port()
	return translate.Instance{ID: id, Address: a.Addr(), Ports: ports, Weight: 1}
}

// serviceOf is a service of such instances.
func serviceOf(name, namespace string, instances ...translate.Instance) translate.Service {
	s := translate.Service{Name: mesh.ServiceName{Name: name, Namespace: namespace}, Instances: instances}
	for _, i := range instances {
		s.Ports = append(s.Ports, i.Ports...)
	}
	return s
}

// nobody is an address at which nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: freeport.For(t)}).String()
}

// says is an instance that says its name, and counts its calls.
func says(t *testing.T, name string, status int) (address string, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "%q", name)
	}), calls
}

func TestServicesHaveTheNamesThatSidecarsKnow(t *testing.T) {
	home, _ := says(t, "home", 200)
	shop, _ := says(t, "shop", 200)
	extra, _ := says(t, "extra", 200)
	e := at("o1", extra, translate.Port{Name: "extra", Protocol: mesh.ProtocolHTTP})
	s := serviceOf("orders", "shop", at("o2", shop), e)
	s.Ports = append([]translate.Port{{Name: "tcp", Number: 1, Protocol: mesh.ProtocolTCP}}, s.Ports...)
	r := direct(t, serviceOf("orders", "default", at("o1", home)), s)
	for name, want := range map[string]string{
		"orders": "home", "orders.default": "home", "orders.shop": "shop", "Orders.Shop.": "shop", "orders.shop.svc": "shop", "orders.shop.svc.cluster.local": "shop",
		"orders.shop:http": "shop", "orders.shop:extra": "extra", fmt.Sprintf("orders.shop:%d", e.Ports[0].Number): "extra",
	} {
		if o := r.call(t, name); o.Answer != saga.AnswerDone || string(o.Result) != fmt.Sprintf("%q", want) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestWhatHasNoInstanceIsKnownNotToHaveRun(t *testing.T) {
	address, calls := says(t, "a", 200)
	unwell, drains := at("o1", address), at("o2", address)
	unwell.Health, drains.Health = mesh.HealthUnhealthy, mesh.HealthDraining
	tcp := serviceOf("tcp", "default", at("o1", address, translate.Port{Name: "tcp", Protocol: mesh.ProtocolTCP}))
	empty := serviceOf("empty", "default", at("o1", address))
	empty.Instances = nil
	r := direct(t, tcp, empty, serviceOf("unwell", "default", unwell, drains), serviceOf("gone", "default", at("o1", nobody(t))))
	for name, want := range map[string]string{
		"orders":     "service orders.default was never registered",
		"tcp":        "service tcp.default has no HTTP port",
		"tcp:tcp":    "port tcp of service tcp.default is no HTTP port",
		"empty":      "service empty.default has no instances",
		"empty:grpc": "service empty.default has no port grpc",
		"unwell":     "service unwell.default: no instance is healthy and has its breaker closed",
		"gone":       "refused",
	} {
		if o := r.call(t, name); o.Answer != saga.AnswerNotRun || !strings.Contains(o.Text, want) {
			t.Errorf("%s: %+v", name, o)
		}
	}
	if calls.Load() > 0 {
		t.Error("it was called")
	}
	if n := r.direct.Services(); n != 4 {
		t.Errorf("something is kept of %d services", n)
	}
}

func TestAnInstanceThatFailsGetsNoCallsUntilItIsRegisteredAnew(t *testing.T) {
	for name, dead := range map[string]func(*testing.T) string{
		"it is gone":     nobody,
		"it answers 500": func(t *testing.T) string { address, _ := says(t, "", 500); return address },
		"its connections break": func(t *testing.T) string {
			return serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		},
		"it breaks off its answer": func(t *testing.T) string { return serve(t, breakOff) },
	} {
		t.Run(name, func(t *testing.T) {
			works, _ := says(t, "works", 200)
			s := serviceOf("orders", "default", at("bad", dead(t)), at("good", works))
			r := direct(t, s)
			count := func() (failed int) {
				for range 60 {
					if r.call(t, "orders").Answer != saga.AnswerDone {
						failed++
					}
				}
				return failed
			}
			if n := count(); n != 5 {
				t.Errorf("%d calls failed before the breaker opened", n)
			}
			r.put(s) // which changes nothing
			if n := count(); n != 0 {
				t.Errorf("%d calls failed though the breaker is open", n)
			}
			r.put(serviceOf("orders", "default", at("good", works)))
			r.put(s)
			if n := count(); n != 5 {
				t.Errorf("%d calls failed before the breaker of the new instance opened", n)
			}
			if n := strings.Count(r.log.String(), `msg="breaker changed" cluster=orders.default:http instance=bad`); n != 2 {
				t.Errorf("it is said %d times: %s", n, r.log.String())
			}
		})
	}
}

// breakOff promises more than it answers.
func breakOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, "{")
}

func TestWhatIsNoFaultOfTheInstanceOpensNoBreaker(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"it refuses":               func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(409) },
		"it asks to come later":    func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "1"); w.WriteHeader(503) },
		"it is asked for too much": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			count := func(w http.ResponseWriter, q *http.Request) { calls.Add(1); h(w, q) }
			r := direct(t, serviceOf("orders", "default", at("o1", serve(t, count)), at("o2", serve(t, count))))
			for range 50 {
				r.call(t, "orders")
			}
			if calls.Load() != 50 {
				t.Errorf("it was called %d times", calls.Load())
			}
		})
	}
}

func TestPoliciesOfAServiceAreHeeded(t *testing.T) {
	bad, failed := says(t, "", 500)
	good, _ := says(t, "good", 200)
	instances := []translate.Instance{at("bad", bad), at("good", good)}
	for name, c := range map[string]struct {
		policy translate.Policy
		calls  int32 // that get to the one that fails, of 40
	}{
		"one failure is enough":     {translate.Policy{LB: mesh.LBRoundRobin, Breaker: mesh.Breaker{ConsecutiveFailures: 1}}, 1},
		"no breaker":                {translate.Policy{LB: mesh.LBRoundRobin, Breaker: mesh.Breaker{Disabled: true}}, 20},
		"one of two is panic":       {translate.Policy{LB: mesh.LBRoundRobin, Breaker: mesh.Breaker{ConsecutiveFailures: 1, PanicPercent: 100}}, 20},
		"what is none is told":      {translate.Policy{LB: mesh.LBRoundRobin, Breaker: mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 101}}, 0},
		"three failures, weighted":  {translate.Policy{LB: mesh.LBWeightedRoundRobin, Breaker: mesh.Breaker{ConsecutiveFailures: 3}}, 3},
		"chance, and two failures":  {translate.Policy{LB: mesh.LBRandom, Breaker: mesh.Breaker{ConsecutiveFailures: 2}}, 2},
		"the default, two failures": {translate.Policy{Breaker: mesh.Breaker{ConsecutiveFailures: 2}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := serviceOf("orders", "default", instances...)
			s.Policy = c.policy
			r := direct(t, s)
			failed.Store(0)
			for range 40 {
				o := r.call(t, "orders")
				if c.policy.Breaker.MaxEjectionPercent > 100 && (o.Answer != saga.AnswerNotRun || !strings.Contains(o.Text, "share is 101 %")) {
					t.Fatalf("%+v", o)
				}
			}
			if n := failed.Load(); n != c.calls {
				t.Errorf("%d of 40 calls got to the one that fails, not %d", n, c.calls)
			}
		})
	}
}

func TestTheOnlyInstanceIsTriedThoughItFails(t *testing.T) {
	bad, calls := says(t, "", 500)
	r := direct(t, serviceOf("orders", "default", at("o1", bad)))
	for range 20 {
		r.call(t, "orders")
	}
	if calls.Load() != 20 {
		t.Errorf("it was called %d times", calls.Load())
	}
}

func TestTheLessBusyInstanceIsCalled(t *testing.T) {
	came, goOn := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	slow := func(_ http.ResponseWriter, _ *http.Request) {
		if first.CompareAndSwap(false, true) {
			close(came)
			<-goOn
		}
	}
	busy := make(map[string]*atomic.Int32)
	var instances []translate.Instance
	for _, id := range []string{"o1", "o2"} {
		n := new(atomic.Int32)
		busy[id] = n
		instances = append(instances, at(id, serve(t, func(w http.ResponseWriter, q *http.Request) { n.Add(1); slow(w, q) })))
	}
	r := direct(t, serviceOf("orders", "default", instances...))
	var running sync.WaitGroup
	running.Go(func() { r.call(t, "orders") })
	<-came
	for range 20 {
		r.call(t, "orders")
	}
	close(goOn)
	running.Wait()
	if a, b := busy["o1"].Load(), busy["o2"].Load(); min(a, b) != 1 || max(a, b) != 20 {
		t.Errorf("%d and %d calls", a, b)
	}
}

func TestAPortOfHTTP2IsCalledInIt(t *testing.T) {
	for protocol, want := range map[mesh.Protocol]string{mesh.ProtocolHTTP: "HTTP/1.1", mesh.ProtocolHTTP2: "HTTP/2.0", mesh.ProtocolGRPC: "HTTP/2.0"} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			body, _ := io.ReadAll(q.Body)
			_, _ = fmt.Fprintf(w, "%q", q.Proto+" "+q.Host+" "+string(body))
		}))
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		t.Cleanup(server.Close)
		r := direct(t, serviceOf("orders", "default",
			at("o1", server.Listener.Addr().String(), translate.Port{Name: "http", Protocol: protocol}), at("gone", nobody(t), translate.Port{Name: "gone", Protocol: protocol})))
		q := requestTo("orders:http")
		q.Call.Body = []byte("1")
		if o := r.direct.Call(t.Context(), q); string(o.Result) != fmt.Sprintf("%q", want+" orders:http 1") {
			t.Errorf("%v: %+v", protocol, o)
		}
		if o := r.call(t, "orders:gone"); o.Answer != saga.AnswerNotRun {
			t.Errorf("%v: %+v", protocol, o)
		}
	}
}

func TestOnlyASidecarIsBelievedThatNothingWasPassedOn(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Fairlead-Reason", "not_delivered")
		w.WriteHeader(503)
	})
	alone, beside := at("o1", address), at("o2", "127.0.0.1:1")
	beside.Inbound = netip.MustParseAddrPort(address).Port()
	r := direct(t, serviceOf("alone", "default", alone), serviceOf("beside", "default", beside))
	if o := r.call(t, "alone"); o.Answer != saga.AnswerUnknown {
		t.Errorf("%+v", o)
	}
	if o := r.call(t, "beside"); o.Answer != saga.AnswerNotRun {
		t.Errorf("%+v", o)
	}
}

func TestNothingIsKeptOfAServiceThatIsGone(t *testing.T) {
	address, _ := says(t, "a", 200)
	s := serviceOf("orders", "default", at("o1", address))
	r := direct(t, s)
	if o := r.call(t, "orders"); o.Answer != saga.AnswerDone || r.direct.Services() != 1 {
		t.Errorf("%+v, of %d", o, r.direct.Services())
	}
	r.remove(s.Name)
	if o := r.call(t, "orders"); o.Answer != saga.AnswerNotRun || r.direct.Services() != 0 {
		t.Errorf("%+v, of %d", o, r.direct.Services())
	}
	r.put(s)
	if o := r.call(t, "orders"); o.Answer != saga.AnswerDone {
		t.Errorf("%+v", o)
	}
}

func TestCallsAndChangesAtTheSameTime(t *testing.T) {
	one, _ := says(t, "one", 200)
	two, _ := says(t, "two", 500)
	r := direct(t)
	all := []translate.Service{
		serviceOf("orders", "default", at("o1", one)), serviceOf("orders", "default", at("o1", one), at("o2", two)), serviceOf("orders", "default", at("o2", two)),
	}
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for range 200 {
				r.call(t, "orders")
			}
		})
	}
	for i := range 600 {
		r.put(all[i%3])
		if i%50 == 0 {
			r.remove(all[0].Name)
		}
	}
	running.Wait()
	r.put(all[0])
	if o := r.call(t, "orders"); o.Answer != saga.AnswerDone {
		t.Errorf("%+v", o)
	}
}
