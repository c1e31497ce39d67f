package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// maxAnswer bounds an answer: a page of 1,000 sagas, or one with 32 results, has less.
const maxAnswer = 64 << 20

// The pauses before a request is made again double from least to most. A Retry-After may be longer, up to maxRetryAfter.
const (
	leastPause    = 100 * time.Millisecond
	mostPause     = 5 * time.Second
	maxRetryAfter = time.Minute
)

// request is what is asked of control planes.
type request struct {
	op           string
	method, path string // with the query
	body         []byte
	// again says that asking twice is as asking once.
	again bool
	// waits is how long the control plane itself waits before it answers. Such a request is for the one that answered last alone.
	waits time.Duration
	// conflict is what 409 means.
	conflict error
}

// ask returns the answer to a request. It asks again where that does no harm and can help, until ctx ends.
func (c *Client) ask(ctx context.Context, q *request) ([]byte, error) {
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		b, no := c.round(ctx, q)
		switch {
		case no == nil:
			return b, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", no, ctx.Err())
		case !q.again, !no.passes(), c.config.Again != nil && !c.config.Again(no):
			return nil, no
		}
		if sleep(ctx, max(pause, no.RetryAfter)) != nil {
			return nil, fmt.Errorf("%w: %w", no, ctx.Err())
		}
	}
}

// sleep waits for d, and up to a quarter more so that those who wait for the same do not ask at once. It returns the error of ctx if that ends before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d + rand.N(d/4+1)) //nolint:gosec // nobody gains by guessing it
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// round asks the control plane that answered last, and where it has no answer the others in turn. The error is one that may pass, if any is.
func (c *Client) round(ctx context.Context, q *request) ([]byte, *Error) {
	var no *Error
	first := int(c.at.Load())
	for i := range c.bases {
		at := (first + i) % len(c.bases)
		b, err := c.once(ctx, c.bases[at], q)
		elsewhere := q.waits == 0 && err != nil && (errors.Is(err, ErrNoSagas) || errors.Is(err, ErrUnavailable) && (q.again || !err.Sent))
		if !elsewhere {
			c.at.Store(int32(at)) //nolint:gosec // as many as there are addresses
			c.answered.Store(err == nil)
			return b, err
		}
		if no == nil || err.passes() {
			no = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	c.answered.Store(false)
	return nil, no
}

// once asks one control plane once.
func (c *Client) once(ctx context.Context, base string, q *request) (answer []byte, no *Error) {
	no = &Error{Op: q.op, Address: base}
	var connected atomic.Bool
	bounded, cancel := context.WithTimeout(ctx, q.waits+c.config.Timeout)
	defer cancel()
	traced := httptrace.WithClientTrace(bounded, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	r, err := http.NewRequestWithContext(traced, q.method, base+q.path, bytes.NewReader(q.body))
	if err != nil {
		no.Err, no.kind = err, ErrInvalid
		return nil, no
	}
	r.Header.Set("User-Agent", c.config.UserAgent)
	if len(q.body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(r)
	if err == nil {
		no.Status, no.Sent = resp.StatusCode, true
		answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		_ = resp.Body.Close()
	}
	switch {
	case err != nil:
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err // without the URL
		}
		if bounded.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("it did not answer within %v", q.waits+c.config.Timeout)
		}
		no.Status, no.Err, no.Sent, no.kind = 0, err, connected.Load(), ErrUnavailable
	case len(answer) > maxAnswer:
		no.Err, no.kind = fmt.Errorf("it has more than %d bytes", maxAnswer), ErrNoSagas
	case resp.StatusCode != http.StatusOK:
		no.read(resp, answer, q)
	default:
		return answer, nil
	}
	return nil, no
}

// read reads an answer that says no.
func (e *Error) read(resp *http.Response, body []byte, q *request) {
	var told struct {
		Message string `json:"message"`
		Faults  []struct {
			Path string `json:"path"`
			Text string `json:"text"`
		} `json:"faults"`
	}
	if json.Unmarshal(body, &told) == nil {
		e.Message = told.Message
	}
	for _, f := range told.Faults {
		e.Faults = append(e.Faults, saga.Fault{Path: f.Path, Text: f.Text})
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = min(time.Duration(min(seconds, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
	}
	switch status := resp.StatusCode; {
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		e.kind = ErrUnavailable // also of what stands in front of control planes
	case status == http.StatusTooManyRequests:
		e.kind = ErrFull
	case e.Message == "", status == http.StatusNotImplemented:
		e.kind = ErrNoSagas
	case status == http.StatusNotFound:
		e.kind = ErrNotFound
	case status == http.StatusConflict:
		e.kind = q.conflict
	case status >= http.StatusInternalServerError:
		e.kind = ErrUnavailable
	default:
		e.kind = ErrInvalid
	}
}
