package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shards is how many there are here.
const shards = 4

type caller func(ctx context.Context, r *coordinator.Request) saga.Outcome

func (f caller) Call(ctx context.Context, r *coordinator.Request) saga.Outcome { return f(ctx, r) }

// replica is one of those that share a store.
type replica struct {
	address  string
	here     *coordinator.Coordinator
	replicas *rpc.Replicas

	sagas  sagav1.SagasClient
	server *grpc.Server
	rest   *httptest.Server
	mu     sync.Mutex
	asked  []string // methods, guarded by mu
	stop   func()   // the coordinator; its ports are still served
}

func (r *replica) count(method string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.asked {
		if strings.HasSuffix(m, "/"+method) {
			n++
		}
	}
	return n
}

// join runs one more replica on a store.
func join(t *testing.T, s store.Store, name string, f caller) *replica {
	t.Helper()
	r := serve(t, s, name, f)
	r.run(t)
	return r
}

// run runs the coordinator.
func (r *replica) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = r.here.Run(ctx) }()
	r.stop = func() { cancel(); <-ran }
	t.Cleanup(r.stop)
}

// serve serves the ports of a replica.
func serve(t *testing.T, s store.Store, name string, f caller) *replica {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{address: l.Addr().String()}
	r.here = coordinator.New(coordinator.Config{Store: s, Caller: f, Name: name, Addr: r.address, Shards: shards, LeaseTTL: 2 * time.Second, Log: slog.New(slog.DiscardHandler)})
	r.replicas = rpc.NewReplicas(r.here)
	r.server = grpc.NewServer(grpc.MaxConcurrentStreams(1000), grpc.UnaryInterceptor(func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		r.mu.Lock()
		r.asked = append(r.asked, info.FullMethod)
		r.mu.Unlock()
		return next(ctx, q)
	}))
	rpc.Register(r.server, r.replicas)
	served := make(chan struct{})
	go func() { defer close(served); _ = r.server.Serve(l) }()
	r.rest = httptest.NewServer(rest.New(r.replicas))
	r.sagas = sagav1.NewSagasClient(dial(t, r.address))
	t.Cleanup(func() {
		r.rest.Close()
		r.replicas.Close()
		r.server.Stop()
		<-served
	})
	return r
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func memory(t *testing.T) *memstore.Store {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// ask makes a request of a replica's REST.
func (r *replica) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, r.rest.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.rest.Client().Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func call(service, path string) *sagav1.Call { return &sagav1.Call{Service: service, Path: path} }

func order(id string) *sagav1.Definition {
	return &sagav1.Definition{Id: id, Labels: map[string]string{"tenant": "t-" + id}, Steps: []*sagav1.StepDefinition{
		{Name: "reserve", Action: call("inventory", "/reserve"), Compensate: call("inventory", "/release"), Retry: &sagav1.Retry{Attempts: 1}},
		{Name: "charge", Action: call("payments", "/charge"), Compensate: call("payments", "/refund"), Retry: &sagav1.Retry{Attempts: 1}},
	}}
}

// until calls f until it does not say that a shard has no owner.
func until[T any](t *testing.T, f func() (T, error)) T {
	t.Helper()
	for {
		v, err := f()
		if err == nil {
			return v
		}
		if status.Code(err) != codes.Unavailable || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func (r *replica) start(t *testing.T, d *sagav1.Definition) *sagav1.Saga {
	t.Helper()
	return until(t, func() (*sagav1.Saga, error) {
		return r.sagas.Start(t.Context(), &sagav1.StartRequest{Saga: d})
	})
}

func (r *replica) wait(t *testing.T, id string) *sagav1.Saga {
	t.Helper()
	s, err := r.sagas.Wait(t.Context(), &sagav1.WaitRequest{Id: id, Timeout: durationpb.New(30 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func done(context.Context, *coordinator.Request) saga.Outcome {
	return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"n":12345678901234567890}`)}
}

func TestAllOfADefinitionCanBeSaidOverGRPC(t *testing.T) {
	s := memory(t)
	bodies := make(chan string, 10)
	r := join(t, s, "one", func(ctx context.Context, q *coordinator.Request) saga.Outcome {
		bodies <- fmt.Sprintf("%s %s %s%s %v %s %s", q.Key, q.Call.Method, q.Call.Service, q.Call.Path, q.Call.Headers, q.Call.Body, q.Call.HTTPAnswer(404))
		return done(ctx, q)
	})
	d := &sagav1.Definition{
		Id: "order-1", Deadline: durationpb.New(90 * time.Second), Labels: map[string]string{"tenant": "a"},
		Steps: []*sagav1.StepDefinition{
			{
				Name: "a", After: &sagav1.After{}, Kind: sagav1.Kind_COMPENSATABLE, Timeout: durationpb.New(1500 * time.Millisecond),
				Action:     &sagav1.Call{Service: "a.shop", Method: "PUT", Path: "/a?${saga.id}", Headers: map[string]string{"X-A": "1"}, Body: []byte(`{"n":  12345678901234567890}`), Statuses: map[string]sagav1.Answer{"404": sagav1.Answer_DONE}},
				Compensate: call("a.shop", "/undo"), Retry: &sagav1.Retry{Attempts: 7, Backoff: durationpb.New(time.Millisecond), Max: durationpb.New(time.Second)},
			},
			{Name: "b", Kind: sagav1.Kind_PIVOT, After: &sagav1.After{Steps: []string{"a"}}, Action: call("b", "/")},
			{Name: "c", Kind: sagav1.Kind_RETRIABLE, After: &sagav1.After{Steps: []string{"b"}}, Action: call("c", "/")},
		},
	}
	r.start(t, d)
	// The same in JSON is the same saga.
	status, body := r.ask(t, "POST", "/v1/sagas", `{"id":"order-1", "deadline":"90s","labels":{"tenant":"a"},"steps":[
 {"name":"a","after":[],"kind":"compensatable","timeout":"1.5s","action":{"service":"a.shop","method":"PUT","path":"/a?${saga.id}","headers":{"X-A":"1"},"body":{"n":12345678901234567890},"statuses":{"404":"done"}},
  "compensate":{"service":"a.shop","path":"/undo"},"retry":{"attempts":7,"backoff":"1ms","max":"1s"}},
 {"name":"b","kind":"pivot","after":["a"],"action":{"service":"b","path":"/"}},
 {"name":"c","kind":"retriable","after":["b"],"action":{"service":"c","path":"/"}}]}`)
	if status != 200 {
		t.Error(status, body)
	}
	got := r.wait(t, "order-1")
	if got.GetState() != sagav1.State_COMPLETED || got.GetLabels()["tenant"] != "a" || got.GetEnded().AsTime().Before(got.GetStarted().AsTime()) || len(got.GetSteps()) != 3 {
		t.Error(got)
	}
	if a := got.GetSteps()[0]; a.GetName() != "a" || a.GetState() != sagav1.Step_DONE || a.GetKind() != sagav1.Kind_COMPENSATABLE || a.GetAttempts() != 1 ||
		string(a.GetResult()) != `{"n":12345678901234567890}` || len(a.GetTimeline()) != 1 || a.GetTimeline()[0].GetAnswer() != sagav1.Answer_DONE || a.GetTimeline()[0].GetAttempt() != 1 {
		t.Error(a)
	}
	if b := <-bodies; b != `order-1/a/action PUT a.shop/a?order-1 map[X-A:1] {"n":12345678901234567890} done` {
		t.Error(b)
	}
}

func TestVerbsAreDoneOverGRPCAndShown(t *testing.T) {
	r := join(t, memory(t), "one", func(_ context.Context, q *coordinator.Request) saga.Outcome {
		if q.Step == "charge" || q.Undo {
			return saga.Outcome{Answer: saga.AnswerUnknown, Text: "500"}
		}
		return saga.Outcome{Answer: saga.AnswerDone}
	})
	ctx := t.Context()
	r.start(t, order("order-1"))
	parked := func(s *sagav1.Saga, err error) {
		t.Helper()
		if err != nil || s.GetState() != sagav1.State_PARKED {
			t.Fatal(s, err)
		}
	}
	parked(r.wait(t, "order-1"), nil)
	if _, err := r.sagas.Retry(ctx, &sagav1.RetryRequest{Id: "order-1", By: "ada"}); err != nil {
		t.Error(err)
	}
	parked(r.wait(t, "order-1"), nil)
	parked(r.sagas.Resolve(ctx, &sagav1.ResolveRequest{Id: "order-1", Step: "charge", As: sagav1.Step_COMPENSATED, By: "ada", Note: "by hand"}))
	parked(r.sagas.Skip(ctx, &sagav1.SkipRequest{Id: "order-1", Step: "reserve", By: "ada"}))
	for _, f := range []func() (*sagav1.Saga, error){
		func() (*sagav1.Saga, error) {
			return r.sagas.Abort(ctx, &sagav1.AbortRequest{Id: "order-1", By: "ada"})
		},
		func() (*sagav1.Saga, error) {
			return r.sagas.Resolve(ctx, &sagav1.ResolveRequest{Id: "order-1", Step: "charge"})
		},
	} {
		if _, err := f(); status.Code(err) != codes.FailedPrecondition {
			t.Error(err)
		}
	}
	s, err := r.sagas.Resume(ctx, &sagav1.ResumeRequest{Id: "order-1", By: "ada"})
	if err != nil || s.GetState() != sagav1.State_COMPENSATED || len(s.GetVerbs()) != 4 {
		t.Fatal(s, err)
	}
	if v := s.GetVerbs()[1]; v.GetVerb() != sagav1.Verb_RESOLVE || v.GetStep() != "charge" || v.GetAs() != sagav1.Step_COMPENSATED || v.GetBy() != "ada" || v.GetNote() != "by hand" || v.GetAt().AsTime().Before(s.GetStarted().AsTime()) {
		t.Error(v)
	}
}

func TestWhatIsWrongIsAStatusWithDetails(t *testing.T) {
	r := join(t, memory(t), "one", done)
	ctx := t.Context()
	r.start(t, order("order-1"))
	r.wait(t, "order-1")
	other := order("order-1")
	other.Steps = other.GetSteps()[:1]
	unknown := order("order-2")
	unknown.Steps[0].Kind, unknown.Steps[1].Action.Statuses = 9, map[string]sagav1.Answer{"7": sagav1.Answer_ANSWER_UNSPECIFIED}
	for _, c := range []struct {
		what   string
		ask    func() (any, error)
		code   codes.Code
		fields string
	}{
		{"nothing", func() (any, error) { return r.sagas.Start(ctx, &sagav1.StartRequest{}) }, codes.InvalidArgument, "id steps"},
		{"values of a newer schema", func() (any, error) { return r.sagas.Start(ctx, &sagav1.StartRequest{Saga: unknown}) }, codes.InvalidArgument,
			`steps[0].kind steps[1].action.statuses["7"] steps[1].action.statuses["7"]`},
		{"other content", func() (any, error) { return r.sagas.Start(ctx, &sagav1.StartRequest{Saga: other}) }, codes.AlreadyExists, ""},
		{"get none", func() (any, error) { return r.sagas.Get(ctx, &sagav1.GetRequest{Id: "none"}) }, codes.NotFound, ""},
		{"get what no saga is called", func() (any, error) { return r.sagas.Get(ctx, &sagav1.GetRequest{Id: strings.Repeat("x", 10_000)}) }, codes.NotFound, ""},
		{"wait for none", func() (any, error) { return r.sagas.Wait(ctx, &sagav1.WaitRequest{Id: "none"}) }, codes.NotFound, ""},
		{"wait too long", func() (any, error) {
			return r.sagas.Wait(ctx, &sagav1.WaitRequest{Id: "order-1", Timeout: durationpb.New(time.Hour)})
		}, codes.InvalidArgument, "timeout"},
		{"retry none", func() (any, error) { return r.sagas.Retry(ctx, &sagav1.RetryRequest{Id: "none"}) }, codes.NotFound, ""},
		{"retry what has ended", func() (any, error) { return r.sagas.Retry(ctx, &sagav1.RetryRequest{Id: "order-1"}) }, codes.FailedPrecondition, ""},
		{"list too many", func() (any, error) { return r.sagas.List(ctx, &sagav1.ListRequest{Limit: 1001}) }, codes.InvalidArgument, "limit"},
		{"list an unknown state", func() (any, error) { return r.sagas.List(ctx, &sagav1.ListRequest{State: 9}) }, codes.InvalidArgument, "state"},
	} {
		_, err := c.ask()
		var fields []string
		for _, d := range status.Convert(err).Details() {
			if bad, ok := d.(*errdetails.BadRequest); ok {
				for _, v := range bad.GetFieldViolations() {
					fields = append(fields, v.GetField())
				}
			}
		}
		if got := strings.Join(fields, " "); status.Code(err) != c.code || got != c.fields {
			t.Errorf("%s: %v, of %s", c.what, err, got)
		}
	}
}

// full is a store that is.
type full struct{ store.Store }

func (full) Size(context.Context) (store.Size, error) {
	return store.Size{Bytes: 100, InUse: 60, Quota: 100}, nil
}

func retryAfter(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

func TestAFullStoreSaysWhenToAskAgainThroughAnyReplica(t *testing.T) {
	s := full{memory(t)}
	one, two := join(t, s, "one", done), join(t, s, "two", done)
	for _, r := range []*replica{one, two} {
		for i := 0; ; i++ { // it is seen to be full within a second
			_, err := r.sagas.Start(t.Context(), &sagav1.StartRequest{Saga: order(fmt.Sprint("order-", i))})
			if status.Code(err) == codes.ResourceExhausted {
				if retryAfter(err) != 10*time.Second {
					t.Error(err)
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if code, body := r.ask(t, "POST", "/v1/sagas", `{"id":"x","steps":[{"name":"a","action":{"service":"a","path":"/"}}]}`); code != 429 || !strings.Contains(body, "too full") {
			t.Error(code, body)
		}
	}
}
