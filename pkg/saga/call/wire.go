// Package call makes the calls of sagas over HTTP: through a sidecar, or straight to the instances of a service.
package call

import (
	"bytes"
	"context"
	"encoding/json"
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
		t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = 1024, 64, idle
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
	var o saga.Outcome
	t, err := find()
	if err != nil {
		o = saga.Outcome{Answer: saga.AnswerNotRun, Text: err.Error()}
	} else {
		var verdict breaker.Outcome
		var status int
		o, verdict, status, err = w.exchange(request, r.Call, &t)
		t.done(verdict)
		if status != 0 {
			span.SetStatus(status)
		}
	}
	span.Set(tracing.String(AttrAnswer, string(o.Answer)))
	if err != nil {
		span.Fail(string(o.Answer), o.Text)
	}
	span.End(time.Now())
	return o
}

// exchange sends a request, and reads what is answered. An error says that there was no answer, status 0.
//
// It sends it once: net/http repeats one by itself if its connection ends before the answer, and it has an Idempotency-Key that net/http knows
// by its canonical spelling, or is of a method that only reads, unless it has a body that cannot be had again. Over HTTP/2, it repeats what the
// other side says that it has left out.
func (w *wire) exchange(request *http.Request, call *saga.Call, t *target) (o saga.Outcome, verdict breaker.Outcome, status int, err error) {
	request.URL.Host = t.address
	transport := &w.http2
	if !t.http2 {
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
		o = saga.Outcome{Answer: saga.AnswerUnknown, Text: err.Error()}
		if !connected.Load() {
			o.Answer = saga.AnswerNotRun
		}
		return o, broken(err, time.Since(begun)), 0, err
	}
	defer func() { _ = response.Body.Close() }()
	o, broke := outcome(call, response, t.sidecar)
	if broke != nil {
		return o, broken(broke, time.Since(begun)), response.StatusCode, nil
	}
	return o, judge(response), response.StatusCode, nil
}

// newRequest returns the request of a call, which has no address yet.
func newRequest(ctx context.Context, r *coordinator.Request) (*http.Request, error) {
	method := r.Call.Method
	if method == "" {
		method = http.MethodPost
	}
	var body io.Reader
	if len(r.Call.Body) > 0 {
		body = io.MultiReader(bytes.NewReader(r.Call.Body)) // which net/http does not know how to read again
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://mesh"+r.Call.Path, body)
	if err != nil {
		return nil, err
	}
	request.Host = r.Call.Service
	if body != nil {
		request.ContentLength = int64(len(r.Call.Body))
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Accept", "application/json")
	for name, value := range r.Call.Headers {
		request.Header.Set(name, value)
	}
	request.Header["idempotency-key"] = []string{r.Key}
	request.Header.Set("Saga-Attempt", strconv.Itoa(r.Attempt))
	request.Header.Set("Saga-Fence", strconv.FormatInt(r.Fence, 10))
	return request, nil
}

// outcome reads what was answered. broke is the error at which the answer ended before its time.
func outcome(call *saga.Call, response *http.Response, sidecar bool) (o saga.Outcome, broke error) {
	body, broke := io.ReadAll(io.LimitReader(response.Body, saga.MaxResultBytes+1))
	o.Answer = call.HTTPAnswer(response.StatusCode)
	switch {
	case sidecar && neverLeft(response.Header.Get("Fairlead-Reason")):
		o.Answer = saga.AnswerNotRun
	case response.Header.Get("Saga-Status") == "pending":
		o.Answer = saga.AnswerPending
	case broke != nil && o.Answer == saga.AnswerDone:
		return saga.Outcome{Answer: saga.AnswerUnknown, Text: fmt.Sprintf("%d, and then: %v", response.StatusCode, broke)}, broke
	}
	if o.Answer != saga.AnswerDone {
		o.Text = text(response.StatusCode, body)
		return o, broke
	}
	if len(body) <= saga.MaxResultBytes && json.Valid(body) {
		o.Result = body
	}
	return o, nil
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

// broken is what the error of a call that took so long says about the instance.
func broken(err error, took time.Duration) breaker.Outcome {
	switch {
	case errors.Is(err, context.Canceled), // by the coordinator, which ends
		errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL), // it is this machine that has none left
		errors.Is(err, context.DeadlineExceeded) && took < breaker.Default().FairTime:
		return breaker.Ignored
	}
	return breaker.Failure
}
