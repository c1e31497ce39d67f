package call_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/call"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

// participant is a service of gRPC that notes how it is called.
type participant struct {
	sagav1.UnimplementedParticipantServer
	answer func(context.Context, *sagav1.CallRequest) (*sagav1.CallResponse, error)

	mu     sync.Mutex
	calls  []*sagav1.CallRequest // guarded by mu
	fields metadata.MD           // guarded by mu; of the last call
	until  time.Time             // guarded by mu; the deadline of the last call
}

func (p *participant) Call(ctx context.Context, q *sagav1.CallRequest) (*sagav1.CallResponse, error) {
	p.mu.Lock()
	p.calls = append(p.calls, q)
	p.fields, _ = metadata.FromIncomingContext(ctx)
	p.until, _ = ctx.Deadline()
	p.mu.Unlock()
	return p.answer(ctx, q)
}

func (p *participant) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

// serveGRPC serves a participant with grpc-go.
func serveGRPC(t *testing.T, answer func(context.Context, *sagav1.CallRequest) (*sagav1.CallResponse, error)) (string, *participant) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &participant{answer: answer}
	server := grpc.NewServer()
	sagav1.RegisterParticipantServer(server, p)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	return l.Addr().String(), p
}

// serveH2 serves HTTP/2 in the clear by hand.
func serveH2(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// callers are both ways to an address.
func callers(t *testing.T, address string) map[string]coordinator.Caller {
	t.Helper()
	r := direct(t, serviceOf("orders", "default", at("o1", address, translate.Port{Name: "grpc", Protocol: mesh.ProtocolGRPC})))
	return map[string]coordinator.Caller{"through a sidecar": egress(t, address), "without": r.direct}
}

func grpcRequest(c saga.Call) *coordinator.Request {
	c.Service, c.GRPC = "orders", "reserve"
	return &coordinator.Request{Saga: "s", Step: "a", Attempt: 3, Key: "s/a/action", Fence: 42, Call: &c}
}

func TestACallOverGRPCSaysWhoseItIsAndWhichAttempt(t *testing.T) {
	address, p := serveGRPC(t, func(context.Context, *sagav1.CallRequest) (*sagav1.CallResponse, error) {
		return &sagav1.CallResponse{Result: []byte(`{"id":1}`)}, nil
	})
	for name, caller := range callers(t, address) {
		for _, undo := range []bool{false, true} {
			q := grpcRequest(saga.Call{Headers: map[string]string{"X-Tenant": "a"}, Body: []byte(`{"n":12345678901234567890}`)})
			q.Undo, q.Trace = undo, sampled
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if o := caller.Call(ctx, q); o.Answer != saga.AnswerDone || string(o.Result) != `{"id":1}` || o.Text != "" {
				t.Errorf("%s: %+v", name, o)
			}
			cancel()
			want := &sagav1.CallRequest{
				Saga: "s", Step: "a", Operation: "reserve", Kind: sagav1.CallRequest_ACTION, Attempt: 3, Fence: 42, IdempotencyKey: "s/a/action",
				Body: []byte(`{"n":12345678901234567890}`),
			}
			if undo {
				want.Kind = sagav1.CallRequest_COMPENSATE
			}
			if got := p.calls[len(p.calls)-1]; !proto.Equal(got, want) {
				t.Errorf("%s: %v", name, got)
			}
			for field, want := range map[string]string{
				"idempotency-key": "s/a/action", "saga-attempt": "3", "saga-fence": "42", "x-tenant": "a", "traceparent": sampled, ":authority": "orders",
			} {
				if got := p.fields.Get(field); len(got) != 1 || got[0] != want {
					t.Errorf("%s: %s: %q", name, field, got)
				}
			}
			if len(p.fields.Get("content-length")) > 0 || p.until.IsZero() {
				t.Errorf("%s: %v until %v", name, p.fields, p.until)
			}
		}
	}
	if n := p.count(); n != 4 {
		t.Errorf("%d calls", n)
	}
}

func TestWhatAStatusOfGRPCMeans(t *testing.T) {
	refused := map[codes.Code]bool{
		codes.InvalidArgument: true, codes.NotFound: true, codes.AlreadyExists: true, codes.PermissionDenied: true, codes.Unauthenticated: true,
		codes.FailedPrecondition: true, codes.Aborted: true, codes.OutOfRange: true, codes.Unimplemented: true,
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		address, _ := serveGRPC(t, func(_ context.Context, q *sagav1.CallRequest) (*sagav1.CallResponse, error) {
			if string(q.GetBody()) == "1" {
				return &sagav1.CallResponse{Pending: true}, status.Error(code, "")
			}
			return &sagav1.CallResponse{}, status.Error(code, "50 % are left\nmore")
		})
		want := saga.AnswerUnknown
		switch {
		case code == codes.OK:
			want = saga.AnswerDone
		case refused[code]:
			want = saga.AnswerRefused
		}
		name := saga.GRPCCode(int(code))
		for way, caller := range callers(t, address) {
			text := name + ": 50 % are left"
			if code == codes.OK {
				text = ""
			}
			if o := caller.Call(t.Context(), grpcRequest(saga.Call{})); o.Answer != want || o.Text != text || o.Result != nil {
				t.Errorf("%s, %s: %+v", name, way, o)
			}
			if o := caller.Call(t.Context(), grpcRequest(saga.Call{Body: []byte("1")})); code == codes.OK && o.Answer != saga.AnswerPending || code != codes.OK && o.Text != name {
				t.Errorf("%s, %s, not yet: %+v", name, way, o)
			}
			for _, says := range []saga.Answer{saga.AnswerDone, saga.AnswerRefused, saga.AnswerUnknown, saga.AnswerPending} {
				if o := caller.Call(t.Context(), grpcRequest(saga.Call{Statuses: map[string]saga.Answer{name: says}})); o.Answer != says {
					t.Errorf("%s is %s, %s: %+v", name, says, way, o)
				}
			}
		}
	}
}

func TestResultsOverGRPCAreKeptAsThoseOfHTTP(t *testing.T) {
	for result, kept := range map[string]bool{
		`{"id":1}`: true,
		"":         false,
		"no JSON":  false,
		"\"\xff\"": false,
		`"` + strings.Repeat("x", saga.MaxResultBytes-2) + `"`: true,
		`"` + strings.Repeat("x", saga.MaxResultBytes) + `"`:   false,
		`"` + strings.Repeat("x", 3<<20) + `"`:                 false,
	} {
		address, _ := serveGRPC(t, func(context.Context, *sagav1.CallRequest) (*sagav1.CallResponse, error) {
			return &sagav1.CallResponse{Result: []byte(result)}, nil
		})
		for way, caller := range callers(t, address) {
			o := caller.Call(t.Context(), grpcRequest(saga.Call{}))
			if o.Answer != saga.AnswerDone || kept && string(o.Result) != result || !kept && o.Result != nil {
				t.Errorf("%.20s, %s: %s %.20s %s", result, way, o.Answer, o.Result, o.Text)
			}
		}
	}
}

func TestWhatIsNoAnswerOverGRPCIsUnknownAndNotRepeated(t *testing.T) {
	ok := func(w http.ResponseWriter, body, code string) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, body)
		w.Header().Set("Grpc-Status", code)
	}
	for name, c := range map[string]struct {
		h      http.HandlerFunc
		answer saga.Answer
		text   string
	}{
		"done":                   {func(w http.ResponseWriter, _ *http.Request) { ok(w, "\x00\x00\x00\x00\x00", "0") }, saga.AnswerDone, ""},
		"no message":             {func(w http.ResponseWriter, _ *http.Request) { ok(w, "", "0") }, saga.AnswerUnknown, "no message"},
		"no status":              {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "\x00\x00\x00\x00\x00") }, saga.AnswerUnknown, "no status"},
		"two messages":           {func(w http.ResponseWriter, _ *http.Request) { ok(w, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "0") }, saga.AnswerUnknown, "not one message"},
		"it is compressed":       {func(w http.ResponseWriter, _ *http.Request) { ok(w, "\x01\x00\x00\x00\x00", "0") }, saga.AnswerUnknown, "compressed"},
		"less than it says":      {func(w http.ResponseWriter, _ *http.Request) { ok(w, "\x00\x00\x00\x00\x05a", "0") }, saga.AnswerUnknown, "breaks off"},
		"much less than it says": {func(w http.ResponseWriter, _ *http.Request) { ok(w, "\x00\xff\xff\xff\xffa", "0") }, saga.AnswerUnknown, "not one message"},
		"another message":        {func(w http.ResponseWriter, _ *http.Request) { ok(w, "\x00\x00\x00\x00\x01\xff", "0") }, saga.AnswerUnknown, "no saga.v1.CallResponse"},
		"a status that is none":  {func(w http.ResponseWriter, _ *http.Request) { ok(w, "", "x") }, saga.AnswerUnknown, "UNKNOWN"},
		"a status of HTTP":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, saga.AnswerRefused, "UNIMPLEMENTED: 404 Not Found"},
		"another one":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, saga.AnswerUnknown, "UNAVAILABLE: 503 Service Unavailable"},
		"it ends":                {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, saga.AnswerUnknown, ""},
		"time is over":           {func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }, saga.AnswerUnknown, ""},
		"it breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "\x00\x00\x00\x00\x00")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, saga.AnswerUnknown, "breaks off"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			n := 0
			address := serveH2(t, func(w http.ResponseWriter, q *http.Request) {
				_, _ = io.Copy(io.Discard, q.Body)
				mu.Lock()
				n++
				first := n%2 == 1
				mu.Unlock()
				if first { // so that the next one goes over a connection that was used
					ok(w, "\x00\x00\x00\x00\x00", "0")
					return
				}
				c.h(w, q)
			})
			for way, caller := range callers(t, address) {
				if o := caller.Call(t.Context(), grpcRequest(saga.Call{})); o.Answer != saga.AnswerDone {
					t.Fatalf("%s: %+v", way, o)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				if o := caller.Call(ctx, grpcRequest(saga.Call{})); o.Answer != c.answer || !strings.Contains(o.Text, c.text) || o.Answer != saga.AnswerDone && o.Text == "" {
					t.Errorf("%s: %+v", way, o)
				}
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			if n != 4 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestASidecarsOwnAnswerOverGRPCIsKnownNotToHaveRun(t *testing.T) {
	for reason, want := range map[string]saga.Answer{"no_endpoints": saga.AnswerNotRun, "unknown_service": saga.AnswerNotRun, "upstream_reset": saga.AnswerUnknown} {
		address := serveH2(t, func(w http.ResponseWriter, _ *http.Request) {
			for name, value := range map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "14", "Grpc-Message": "it is away", "Fairlead-Reason": reason} {
				w.Header().Set(name, value)
			}
		})
		ways := callers(t, address)
		if o := ways["through a sidecar"].Call(t.Context(), grpcRequest(saga.Call{})); o.Answer != want || o.Text != "UNAVAILABLE: it is away" {
			t.Errorf("%s: %+v", reason, o)
		}
		if o := ways["without"].Call(t.Context(), grpcRequest(saga.Call{})); o.Answer != saga.AnswerUnknown {
			t.Errorf("%s, which no sidecar says: %+v", reason, o)
		}
	}
	for way, caller := range callers(t, nobody(t)) {
		if o := caller.Call(t.Context(), grpcRequest(saga.Call{})); o.Answer != saga.AnswerNotRun {
			t.Errorf("%s: %+v", way, o)
		}
	}
}

func TestStatusesOfGRPCOpenBreakersAsInSidecars(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		bad, failing := serveGRPC(t, func(context.Context, *sagav1.CallRequest) (*sagav1.CallResponse, error) {
			return &sagav1.CallResponse{}, status.Error(code, "")
		})
		good, _ := serveGRPC(t, func(context.Context, *sagav1.CallRequest) (*sagav1.CallResponse, error) {
			return &sagav1.CallResponse{}, nil
		})
		port := func() translate.Port { return translate.Port{Name: "grpc", Protocol: mesh.ProtocolGRPC} }
		s := serviceOf("orders", "default", at("bad", bad, port()), at("good", good, port()))
		s.Policy = translate.Policy{LB: mesh.LBRoundRobin, Breaker: mesh.Breaker{ConsecutiveFailures: 2}}
		r := direct(t, s)
		for range 10 {
			r.direct.Call(t.Context(), grpcRequest(saga.Call{}))
		}
		want := 5
		switch code {
		case codes.Unknown, codes.Internal, codes.Unavailable, codes.DataLoss:
			want = 2
		}
		if n := failing.count(); n != want {
			t.Errorf("%v: called %d times, not %d", code, n, want)
		}
	}
}

func TestAParticipantOverGRPCThatAsksForTimeIsHeardAndOpensNoBreaker(t *testing.T) {
	busy := func(ctx context.Context, _ *sagav1.CallRequest) (*sagav1.CallResponse, error) {
		if err := grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "1500")); err != nil {
			return nil, err
		}
		return nil, status.Error(codes.Unavailable, "")
	}
	one, first := serveGRPC(t, busy)
	two, second := serveGRPC(t, busy)
	port := func() translate.Port { return translate.Port{Name: "grpc", Protocol: mesh.ProtocolGRPC} }
	r := direct(t, serviceOf("orders", "default", at("o1", one, port()), at("o2", two, port())))
	for range 20 {
		if o := r.direct.Call(t.Context(), grpcRequest(saga.Call{})); o.Answer != saga.AnswerUnknown || o.After != 1500*time.Millisecond {
			t.Fatalf("%+v", o)
		}
	}
	if n := first.count() + second.count(); n != 20 {
		t.Errorf("%d calls", n)
	}
}

func TestACallOverGRPCIsASpanThatHasItsStatus(t *testing.T) {
	spans, err := otlptest.Start(otlptest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = spans.Close() }()
	address, p := serveGRPC(t, func(context.Context, *sagav1.CallRequest) (*sagav1.CallResponse, error) {
		return nil, status.Error(codes.Aborted, "")
	})
	e := tracedEgress(t, address, tracing.Config{ServiceName: "controlplane", OTLPEndpoint: spans.HTTPEndpoint(), FlushInterval: time.Millisecond})
	q := grpcRequest(saga.Call{})
	q.Trace = sampled
	e.Call(t.Context(), q)
	if _, err := spans.WaitForCount(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	s := spans.Trace(traceID)[0]
	for name, want := range map[string]string{"rpc.method": "saga.v1.Participant/Call", "rpc.response.status_code": "ABORTED", "rpc.system.name": "grpc", call.AttrAnswer: "refused"} {
		if s.Attributes[name] != want {
			t.Errorf("%s is %q, not %q", name, s.Attributes[name], want)
		}
	}
	if got := p.fields.Get("traceparent"); len(got) != 1 || got[0] != fmt.Sprintf("00-%s-%s-01", traceID, s.SpanID) {
		t.Errorf("%q", got)
	}
}
