package meshctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
)

// api is the control plane's API of sagas.
type api struct {
	address string
	timeout time.Duration
	client  *http.Client
}

func (s *sagas) dial() *api {
	return &api{string(s.address), s.timeout, &http.Client{
		Transport:     &http.Transport{MaxResponseHeaderBytes: 64 << 10}, // by no proxy, as gRPC
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (a *api) close() { a.client.CloseIdleConnections() }

type request struct {
	method, path string
	body         []byte
	// again says that asking twice is as asking once.
	again bool
}

// refusal is an answer that says no, or not now.
type refusal struct {
	status  int
	message string
	wait    time.Duration
}

func (r *refusal) Error() string {
	lines := strings.Split(strings.TrimSpace(r.message), "\n")
	for i, line := range lines {
		lines[i] = plain(line)
	}
	if len(lines) == 1 {
		return lines[0]
	}
	return "the control plane refused:\n  " + strings.Join(lines, "\n  ")
}

// after is how long to wait before asking again; 0 if it is not said.
func (r *refusal) after() time.Duration {
	if r == nil {
		return 0
	}
	return r.wait
}

// ask returns the answer to a request. While the saga's shard has no owner it asks again, where that does no harm, until the timeout is over.
func (a *api) ask(ctx context.Context, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	for {
		b, err := a.once(ctx, r, a.timeout)
		var no *refusal
		if !errors.As(err, &no) || no.status != http.StatusServiceUnavailable {
			return b, err
		}
		if !r.again {
			return nil, fmt.Errorf("%w; see with meshctl saga show whether it was done, before you repeat it", err)
		}
		if pause(ctx, no.wait) != nil {
			return nil, err
		}
	}
}

// once asks once.
func (a *api) once(ctx context.Context, r request, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, r.method, "http://"+a.address+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("User-Agent", "meshctl/"+flags.Version())
	if len(r.body) > 0 {
		q.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(q)
	if err != nil {
		return nil, a.explain(ctx, err, timeout)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, a.explain(ctx, err, timeout)
	case len(b) > maxAnswer:
		return nil, fmt.Errorf("the control plane at %s answered with more than %d bytes", a.address, maxAnswer)
	case resp.StatusCode == http.StatusOK:
		return b, nil
	}
	var told struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &told) != nil || told.Message == "" {
		return nil, fmt.Errorf("what listens at %s answers %q, and so does not serve sagas: is --control-plane-http right?", a.address, resp.Status)
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	wait := min(max(time.Duration(seconds)*time.Second, minPause), maxPause)
	return nil, &refusal{resp.StatusCode, told.Message, wait}
}

// explain puts into words that there was no answer.
func (a *api) explain(ctx context.Context, err error, timeout time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the control plane at %s did not answer within %v", a.address, timeout)
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // without the URL
	}
	return fmt.Errorf("the control plane at %s cannot be reached (%s): does it run, and is --control-plane-http right?", a.address, plain(err.Error()))
}

// strange is of an answer that is not as the API's are.
func (s *sagas) strange(err error) error {
	return fmt.Errorf("what listens at %s answers otherwise than a control plane does (%s): is --control-plane-http right?", s.address, plain(err.Error()))
}

// pause waits, or returns the error of ctx if that ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
