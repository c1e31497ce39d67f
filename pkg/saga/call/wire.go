// Package call makes the calls of sagas, over HTTP and gRPC: through a sidecar, or straight to the instances of a service.
package call

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// maxHead bounds what is read of the head of an answer, and of its trailers.
const maxHead = 64 << 10

// wire makes calls over connections that it keeps. Each call is a span of tracer, below the one that its saga was started in.
type wire struct {
	tracer       *tracing.Tracer
	http1, http2 http.Transport
}

// configure says how long connections lie idle; 0: as long as the other side wants.
func (w *wire) configure(tracer *tracing.Tracer, idle time.Duration) {
	w.tracer = tracer
	for _, t := range []*http.Transport{&w.http1, &w.http2} {
		t.DialContext = (&net.Dialer{Timeout: mesh.DefaultConnectTimeout}).DialContext
		t.DisableCompression = true
		// As many as calls that are often under way at once, or else each burst of them would open connections anew.
		t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = 2048, 512, idle
		t.MaxResponseHeaderBytes = maxHead
		t.Protocols = new(http.Protocols)
	}
	w.http1.Protocols.SetHTTP1(true)
	w.http2.Protocols.SetUnencryptedHTTP2(true)
	// Who is silent is asked whether it is there, or else all calls to come would share its connection.
	w.http2.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}
}

// close closes the connections that are idle.
func (w *wire) close() {
	w.http1.CloseIdleConnections()
	w.http2.CloseIdleConnections()
}

// target is where a call goes.
type target struct {
	address string // host:port
	http2   bool   // it speaks HTTP/2 in the clear, else HTTP/1.1
	sidecar bool   // it is one, whose word is taken for what it has not passed on
	// done is told what the call says about the target.
	done func(breaker.Outcome)
}

// call makes a call once, to the target that find returns; its error says why there is none.
func (w *wire) call(ctx context.Context, r *coordinator.Request, find func() (target, error)) saga.Outcome {
	request, err := newRequest(ctx, r)
	if err != nil {
		return saga.Outcome{Answer: saga.AnswerRefused, Text: err.Error()} // which no attempt will change
	}
	span := w.trace(request, r)
	a := answer{}
	if t, err := find(); err != nil {
		a.err = err
		a.outcome = saga.Outcome{Answer: saga.AnswerNotRun, Text: err.Error()}
	} else {
		a = w.exchange(request, r.Call, &t)
		t.done(a.verdict)
	}
	switch {
	case a.err != nil:
		span.Fail(string(a.outcome.Answer), a.outcome.Text)
	case a.code != "":
		span.SetCall(grpcMethod, a.code, false)
	default:
		span.SetStatus(a.status)
	}
	span.Set(tracing.String(AttrAnswer, string(a.outcome.Answer)))
	span.End(time.Now())
	return a.outcome
}

// answer is what was answered.
type answer struct {
	outcome saga.Outcome
	verdict breaker.Outcome // what it says about who gave it
	err     error           // there was none, and what follows is nothing
	broke   error           // at which it ended before its time
	status  int             // of HTTP
	code    string          // of gRPC, if it was spoken
}

// exchange sends a request, and reads what is answered.
//
// It sends it once: net/http repeats one by itself if its connection ends before the answer, and it has an Idempotency-Key that net/http knows
// by its canonical spelling, or is of a method that only reads, unless it has a body that cannot be had again. Over HTTP/2, it repeats what the
// other side says that it has left out.
func (w *wire) exchange(request *http.Request, call *saga.Call, t *target) (a answer) {
	request.URL.Host = t.address
	transport := &w.http2
	if !t.http2 && call.GRPC == "" {
		transport = &w.http1
		if request.Body == nil && (request.Method == http.MethodGet || request.Method == http.MethodHead || request.Method == http.MethodOptions) {
			request.Body = io.NopCloser(strings.NewReader("")) // of which net/http sends nothing, but which it could not send twice
		}
	}
	var connected atomic.Bool
	ctx := httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	begun := time.Now()
	response, err := transport.RoundTrip(request.WithContext(ctx)) // not of an http.Client, which follows redirects
	if err != nil {
		a = answer{err: err, broke: err, outcome: saga.Outcome{Answer: saga.AnswerUnknown, Text: err.Error()}}
		if !connected.Load() {
			a.outcome.Answer = saga.AnswerNotRun
		}
	} else {
		defer func() { _ = response.Body.Close() }()
		if call.GRPC != "" {
			a = readGRPC(call, response, t.sidecar)
		} else {
			a = readHTTP(call, response, t.sidecar)
		}
	}
	if a.broke != nil {
		a.verdict = judgeBroken(a.broke, time.Since(begun))
	}
	return a
}

// once returns a body that net/http does not know how to read again; nil: there is none.
func once(body []byte) io.Reader {
	if len(body) == 0 {
		return nil
	}
	return io.MultiReader(bytes.NewReader(body))
}

// newRequest returns the request of a call, which has no address yet.
func newRequest(ctx context.Context, r *coordinator.Request) (*http.Request, error) {
	build := newHTTPRequest
	if r.Call.GRPC != "" {
		build = newGRPCRequest
	}
	request, err := build(ctx, r)
	if err != nil {
		return nil, err
	}
	request.Host = r.Call.Service
	for name, value := range r.Call.Headers {
		request.Header.Set(name, value)
	}
	request.Header["idempotency-key"] = []string{r.Key}
	request.Header.Set("Saga-Attempt", strconv.Itoa(r.Attempt))
	request.Header.Set("Saga-Fence", strconv.FormatInt(r.Fence, 10))
	return request, nil
}

func newHTTPRequest(ctx context.Context, r *coordinator.Request) (*http.Request, error) {
	method := r.Call.Method
	if method == "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://mesh"+r.Call.Path, once(r.Call.Body))
	if err != nil {
		return nil, err
	}
	if len(r.Call.Body) > 0 {
		request.ContentLength = int64(len(r.Call.Body))
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Accept", "application/json")
	return request, nil
}

// readHTTP reads what was answered.
func readHTTP(call *saga.Call, response *http.Response, sidecar bool) answer {
	body, broke := io.ReadAll(io.LimitReader(response.Body, saga.MaxResultBytes+1))
	a := answer{status: response.StatusCode, verdict: judge(response), broke: broke}
	o := &a.outcome
	o.Answer = call.HTTPAnswer(response.StatusCode)
	switch {
	case sidecar && neverLeft(response.Header.Get("Fairlead-Reason")):
		o.Answer = saga.AnswerNotRun
	case isPending(response.Header.Values("Saga-Status")):
		o.Answer = saga.AnswerPending
	case broke != nil && o.Answer == saga.AnswerDone:
		*o = saga.Outcome{Answer: saga.AnswerUnknown, Text: fmt.Sprintf("%d, and then: %v", response.StatusCode, broke)}
		return a
	}
	if o.Answer != saga.AnswerDone {
		o.Text = text(response.StatusCode, body)
		o.After = asked(response.Header.Get("Retry-After"), time.Second)
		return a
	}
	if saga.IsResult(body) {
		o.Result = body
	}
	return a
}

// asked returns how long a participant asks to be left alone: a number of units; 0: it does not say.
func asked(number string, unit time.Duration) time.Duration {
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0 // a date, for one
	}
	return time.Duration(n) * unit
}

// isPending reports whether one of the fields says so, each of which may be a list (RFC 9110 §5.3). Of two that differ the careful one counts.
func isPending(fields []string) bool {
	for _, field := range fields {
		for value := range strings.SplitSeq(field, ",") {
			if strings.TrimSpace(value) == "pending" {
				return true
			}
		}
	}
	return false
}

// text says what was answered, for people.
func text(status int, body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), 200)]), "")), "\n")
	if line == "" {
		return fmt.Sprintf("%d %s", status, http.StatusText(status))
	}
	return fmt.Sprintf("%d: %s", status, line)
}

// neverLeft reports whether a sidecar has answered itself, for one of the reasons for which surely nothing of the request has reached an instance (docs/reasons.md).
// Sidecars take the field out of what instances answer.
func neverLeft(reason string) bool {
	switch reason {
	case "connect_failed", "connect_timeout", "control_plane_gone", "no_endpoints", "no_http_port", "no_route", "no_socket", "no_usable_endpoint",
		"not_delivered", "not_learned_in_time", "request_limit", "tls_failed", "too_many_connecting", "too_many_destinations",
		"too_many_waiting", "unknown_service":
		return true
	}
	return false
}

// judge is what an answer says about the instance that gave it, as sidecars judge.
func judge(response *http.Response) breaker.Outcome {
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "":
		return breaker.Ignored // asks to come back later: neither works nor fails
	case status >= 500:
		return breaker.Failure
	case status >= 400:
		return breaker.Ignored // about the request, which another instance would refuse as well
	}
	return breaker.Success
}

// judgeBroken is what the error of a call that took so long says about the instance.
func judgeBroken(err error, took time.Duration) breaker.Outcome {
	switch {
	case errors.Is(err, context.Canceled), // by the coordinator, which ends
		errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL), // it is this machine that has none left
		errors.Is(err, context.DeadlineExceeded) && took < breaker.Default().FairTime:
		return breaker.Ignored
	}
	return breaker.Failure
}
