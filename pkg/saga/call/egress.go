// Package call makes the calls of sagas over HTTP.
package call

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// Egress makes calls through a sidecar's port for outgoing requests, which finds the instances, balances, and breaks circuits. It is
// safe for concurrent use.
type Egress struct {
	address   string
	tracer    *tracing.Tracer
	transport http.Transport
}

// NewEgress returns calls through the sidecar at an address, host:port. Each is a span of tracer, below the one that its saga was started in.
func NewEgress(address string, tracer *tracing.Tracer) *Egress {
	return &Egress{address: address, tracer: tracer, transport: http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: 64,
	}}
}

// Close closes the connections that are idle.
func (e *Egress) Close() { e.transport.CloseIdleConnections() }

// Call implements coordinator.Caller. It makes the call once: net/http repeats one by itself if its connection ends before the answer, and it has
// an Idempotency-Key that net/http knows by its canonical spelling, or a body that can be had again.
func (e *Egress) Call(ctx context.Context, r *coordinator.Request) saga.Outcome {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	request, err := e.request(ctx, r)
	if err != nil {
		return saga.Outcome{Answer: saga.AnswerRefused, Text: err.Error()} // which no attempt will change
	}
	span := e.trace(request, r)
	response, err := e.transport.RoundTrip(request) // not of an http.Client, which follows redirects
	var o saga.Outcome
	switch {
	case err != nil && !connected.Load():
		o = saga.Outcome{Answer: saga.AnswerNotRun, Text: err.Error()}
	case err != nil:
		o = saga.Outcome{Answer: saga.AnswerUnknown, Text: err.Error()}
	default:
		o = outcome(r.Call, response)
		_ = response.Body.Close()
		span.SetStatus(response.StatusCode)
	}
	span.Set(tracing.String(AttrAnswer, string(o.Answer)))
	if err != nil {
		span.Fail(string(o.Answer), o.Text)
	}
	span.End(time.Now())
	return o
}

func (e *Egress) request(ctx context.Context, r *coordinator.Request) (*http.Request, error) {
	method := r.Call.Method
	if method == "" {
		method = http.MethodPost
	}
	var body io.Reader
	if len(r.Call.Body) > 0 {
		body = io.MultiReader(bytes.NewReader(r.Call.Body)) // which net/http does not know how to read again
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+e.address+r.Call.Path, body)
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

// outcome reads what was answered.
func outcome(call *saga.Call, response *http.Response) saga.Outcome {
	body, err := io.ReadAll(io.LimitReader(response.Body, saga.MaxResultBytes+1))
	o := saga.Outcome{Answer: call.HTTPAnswer(response.StatusCode)}
	switch {
	case neverLeft(response.Header.Get("Fairlead-Reason")):
		o.Answer = saga.AnswerNotRun
	case response.Header.Get("Saga-Status") == "pending":
		o.Answer = saga.AnswerPending
	case err != nil && o.Answer == saga.AnswerDone:
		return saga.Outcome{Answer: saga.AnswerUnknown, Text: fmt.Sprintf("%d, and then: %v", response.StatusCode, err)}
	}
	if o.Answer != saga.AnswerDone {
		o.Text = text(response.StatusCode, body)
		return o
	}
	if len(body) <= saga.MaxResultBytes && json.Valid(body) {
		o.Result = body
	}
	return o
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
	case "connect_failed", "connect_timeout", "control_plane_gone", "no_endpoints", "no_route", "no_socket", "no_usable_endpoint",
		"not_delivered", "not_learned_in_time", "request_limit", "tls_failed", "too_many_connecting", "too_many_destinations",
		"too_many_waiting", "unknown_service":
		return true
	}
	return false
}
