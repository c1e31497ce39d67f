package call_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/call"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request(c saga.Call) *coordinator.Request {
	c.Service, c.Path = "orders.shop", "/a?b=c"
	return &coordinator.Request{Saga: "s", Step: "a", Attempt: 3, Key: "s/a/action", Fence: 42, Call: &c}
}

func egress(t *testing.T, address string) *call.Egress {
	t.Helper()
	return tracedEgress(t, address, tracing.Config{})
}

func tracedEgress(t *testing.T, address string, config tracing.Config) *call.Egress {
	t.Helper()
	tracer, err := tracing.Setup(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Shutdown(context.Background()) })
	e := call.NewEgress(address, tracer)
	t.Cleanup(e.Close)
	return e
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestACallSaysWhoseItIsAndWhichAttempt(t *testing.T) {
	var got *http.Request
	var body string
	e := egress(t, serve(t, func(_ http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		got, body = q, string(b)
	}))
	e.Call(t.Context(), request(saga.Call{Headers: map[string]string{"X-Tenant": "a"}, Body: []byte(`{"n":12345678901234567890}`)}))
	if got.Method != "POST" || got.Host != "orders.shop" || got.RequestURI != "/a?b=c" || body != `{"n":12345678901234567890}` || got.ContentLength != int64(len(body)) {
		t.Errorf("%s %s of %s: %q", got.Method, got.RequestURI, got.Host, body)
	}
	for name, want := range map[string]string{"Idempotency-Key": "s/a/action", "Saga-Attempt": "3", "Saga-Fence": "42", "X-Tenant": "a", "Content-Type": "application/json"} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s: %q, not %q", name, v, want)
		}
	}
	e.Call(t.Context(), request(saga.Call{Method: "DELETE"}))
	if got.Method != "DELETE" || got.Header.Get("Content-Type") != "" || len(got.TransferEncoding) > 0 {
		t.Errorf("%s %v", got.Method, got.Header)
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	for name, c := range map[string]struct {
		status         int
		fields         []string
		body           string
		answer         saga.Answer
		result, detail string
	}{
		"done":                            {200, nil, `{"id":1}`, saga.AnswerDone, `{"id":1}`, ""},
		"done without a word":             {204, nil, "", saga.AnswerDone, "", ""},
		"done, with a text":               {200, nil, "ok", saga.AnswerDone, "", ""},
		"done, with too much":             {200, nil, `"` + strings.Repeat("x", saga.MaxResultBytes) + `"`, saga.AnswerDone, "", ""},
		"done, with what is no UTF-8":     {200, nil, "\"\xff\"", saga.AnswerDone, "", ""},
		"not yet":                         {202, nil, "", saga.AnswerPending, "", "202 Accepted"},
		"too early":                       {425, nil, "", saga.AnswerPending, "", "425 Too Early"},
		"done, with what is not UTF-8":    {200, nil, "{\"id\":\"\xff\"}", saga.AnswerDone, "", ""},
		"pending, said twice":             {200, []string{"Saga-Status", "done", "Saga-Status", "pending"}, "{}", saga.AnswerPending, "", "200: {}"},
		"pending, in a list":              {200, []string{"Saga-Status", "done, pending"}, "{}", saga.AnswerPending, "", "200: {}"},
		"pending":                         {200, []string{"Saga-Status", "pending"}, "{}", saga.AnswerPending, "", "200: {}"},
		"refused":                         {409, nil, "none is left\nmore", saga.AnswerRefused, "", "409: none is left"},
		"as the step says":                {404, nil, "", saga.AnswerDone, "", ""},
		"moved":                           {307, []string{"Location", "/else"}, "", saga.AnswerUnknown, "", "307 Temporary Redirect"},
		"failed":                          {500, nil, "", saga.AnswerUnknown, "", "500 Internal Server Error"},
		"the breaker is open":             {503, []string{"Fairlead-Reason", "no_usable_endpoint"}, "", saga.AnswerNotRun, "", "503 Service Unavailable"},
		"there is no instance":            {503, []string{"Fairlead-Reason", "no_endpoints"}, "", saga.AnswerNotRun, "", "503 Service Unavailable"},
		"there is no such service":        {404, []string{"Fairlead-Reason", "unknown_service"}, "", saga.AnswerNotRun, "", "404 Not Found"},
		"the instance's connection broke": {502, []string{"Fairlead-Reason", "upstream_reset"}, "", saga.AnswerUnknown, "", "502 Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			e := egress(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
				n.Add(1)
				for i := 0; i < len(c.fields); i += 2 {
					w.Header().Add(c.fields[i], c.fields[i+1])
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			o := e.Call(t.Context(), request(saga.Call{Statuses: map[string]saga.Answer{"404": saga.AnswerDone}}))
			if o.Answer != c.answer || string(o.Result) != c.result || o.Text != c.detail {
				t.Errorf("%+v", o)
			}
			if n.Load() != 1 {
				t.Errorf("it was called %d times", n.Load())
			}
		})
	}
}

func TestWhatNeverLeftIsKnownNotToHaveRun(t *testing.T) {
	e := egress(t, (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: freeport.For(t)}).String())
	if o := e.Call(t.Context(), request(saga.Call{})); o.Answer != saga.AnswerNotRun || !strings.Contains(o.Text, "refused") {
		t.Errorf("%+v", o)
	}
}

func TestACallWithoutAnAnswerIsUnknownAndNotRepeated(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"the connection ends": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"the answer breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"id":1}`)
		},
		"time is over": func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() },
	} {
		for _, c := range []saga.Call{{}, {Body: []byte("{}")}, {Method: "GET"}, {Method: "HEAD"}, {Method: "OPTIONS"}, {Method: "PUT"}} {
			if c.Method == "HEAD" && name == "the answer breaks off" {
				continue // it has no body
			}
			t.Run(name+" "+c.Method+string(c.Body), func(t *testing.T) {
				var n atomic.Int32
				e := egress(t, serve(t, func(w http.ResponseWriter, q *http.Request) {
					_, _ = io.Copy(io.Discard, q.Body)
					if n.Add(1) > 1 {
						h(w, q)
					}
				}))
				// The second one goes over a connection that was used before, upon whose end net/http would repeat it.
				if o := e.Call(t.Context(), request(c)); o.Answer != saga.AnswerDone {
					t.Fatalf("%+v", o)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				if o := e.Call(ctx, request(c)); o.Answer != saga.AnswerUnknown || o.Text == "" {
					t.Errorf("%+v", o)
				}
				if n.Load() != 2 {
					t.Errorf("it was called %d times", n.Load()-1)
				}
			})
		}
	}
}

func TestAParticipantThatAsksForTimeIsHeard(t *testing.T) {
	for _, c := range []struct {
		status int
		after  string
		want   time.Duration
	}{
		{503, "7", 7 * time.Second},
		{429, "86401", 86401 * time.Second},
		{425, "0", 0},
		{202, "2", 2 * time.Second},
		{500, "1", time.Second},
		{503, "", 0},
		{503, "-1", 0},
		{503, "99999999999999999999", 0},
		{503, "Fri, 31 Dec 1999 23:59:59 GMT", 0},
		{200, "7", 0},
	} {
		e := egress(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.WriteHeader(c.status)
		}))
		if o := e.Call(t.Context(), request(saga.Call{})); o.After != c.want {
			t.Errorf("%d, %q: %v", c.status, c.after, o.After)
		}
	}
}
