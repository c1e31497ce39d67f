package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// Config says whom to ask, and how.
type Config struct {
	// Addresses are of control planes that share their sagas, as host:port or as the URL that /v1/sagas is below. The one that answered last is asked first, the others
	// where it has no answer. At least one.
	Addresses []string
	// Timeout is how long an answer may take, beyond what the control plane was asked to wait. Then the next one is asked. Default 10 s.
	Timeout time.Duration
	// Transport makes requests: where TLS, credentials or traces are to be added. It must not repeat a POST. Default: one of its own, through no proxy, that speaks HTTP/1.1, or HTTP/2 over TLS.
	Transport http.RoundTripper
	// UserAgent is what it says of itself. Default fairlead-saga-client.
	UserAgent string
	// Again is told of each failure after which the same is about to be asked again, and may say no: then that is the error. Requests call it at once. Default: always.
	Again func(*Error) bool
}

// Client asks control planes about sagas. It is safe for concurrent use; make one, and keep it.
type Client struct {
	config Config
	bases  []string
	http   *http.Client
	own    *http.Transport // that is closed with the client; nil: it is another's
	at     atomic.Int32    // who answered last
	// answered says that somebody has, the last time.
	answered atomic.Bool
}

// New returns a client, which connects when it is asked something. The error is of an address that is none.
func New(c Config) (*Client, error) {
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.UserAgent = cmp.Or(c.UserAgent, "fairlead-saga-client")
	client := &Client{config: c}
	for _, address := range c.Addresses {
		base, err := baseOf(address)
		if err != nil {
			return nil, err
		}
		client.bases = append(client.bases, base)
	}
	if len(client.bases) == 0 {
		return nil, errors.New("addresses: give one at least, such as 127.0.0.1:15014")
	}
	if c.Transport == nil {
		client.own = &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true}
		c.Transport = client.own
	}
	client.http = &http.Client{Transport: c.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return client, nil
}

// baseOf returns what the paths of the API are appended to.
func baseOf(address string) (string, error) {
	base := address
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("addresses: %q is neither host:port nor a URL of http or https without a query", address)
	}
	return strings.TrimSuffix(base, "/"), nil
}

// Close closes the connections that are idle.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Start starts a saga, and returns where it stands once it is durable: from then on it ends, or is parked, whatever happens. The same again, by its id and content, is the same
// saga. It asks again until there is an answer or ctx ends: give ctx a deadline. Behind an error that is ErrUnavailable the saga may have been started. Errors: ErrInvalid, ErrConflict, ErrFull if ctx
// ends meanwhile, ErrUnavailable, ErrNoSagas.
func (c *Client) Start(ctx context.Context, d *saga.Definition) (*Saga, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("start saga %s: %w: %w", d.ID, ErrInvalid, err)
	}
	return c.start(ctx, "start saga "+d.ID, b)
}

// StartJSON is Start with a definition in JSON, which is sent as it is.
func (c *Client) StartJSON(ctx context.Context, definition []byte) (*Saga, error) {
	return c.start(ctx, "start a saga", definition)
}

func (c *Client) start(ctx context.Context, op string, definition []byte) (*Saga, error) {
	return c.one(ctx, &request{op: op, method: http.MethodPost, path: "/v1/sagas", body: definition, again: true, conflict: ErrConflict})
}

// Get returns where a saga stands. Errors: ErrNotFound, ErrUnavailable, ErrNoSagas.
func (c *Client) Get(ctx context.Context, id string) (*Saga, error) {
	path, err := pathOf(id)
	if err != nil {
		return nil, err
	}
	return c.one(ctx, &request{op: "get saga " + id, method: http.MethodGet, path: path, again: true})
}

// maxWait is how long one request waits, so that a control plane which fell silent is noticed.
const maxWait = 30 * time.Second

// Wait returns a saga once it has ended, or is parked: see Saga.Settled. A control plane that goes away meanwhile is waited for. If ctx ends first, the error matches that of
// ctx, and the saga is as it was seen last, or nil. Errors beside that: as those of Get.
func (c *Client) Wait(ctx context.Context, id string) (*Saga, error) {
	path, err := pathOf(id)
	if err != nil {
		return nil, err
	}
	op := "wait for saga " + id
	var last *Saga
	// Who has not answered yet, or not the last time, is asked without waiting: so it is soon known who does.
	for look := !c.answered.Load(); ; {
		q := &request{op: op, method: http.MethodGet, again: look}
		if !look {
			q.waits = maxWait
			if end, bounded := ctx.Deadline(); bounded {
				q.waits = max(min(time.Until(end), maxWait), 0).Round(time.Millisecond)
			}
		}
		q.path = path + ":wait?timeout=" + q.waits.String()
		asked := time.Now()
		s, err := c.one(ctx, q)
		var no *Error
		switch {
		case err == nil && s.Settled():
			return s, nil
		case err == nil:
			last = s
		case look, ctx.Err() != nil, !errors.As(err, &no), !no.passes() && !errors.Is(no, ErrNoSagas), c.config.Again != nil && !c.config.Again(no):
			return last, err
		}
		if !look && time.Since(asked) < leastPause { // it broke, or does not wait as it was asked to
			_ = sleep(ctx, leastPause)
		}
		if ctx.Err() != nil {
			return last, fmt.Errorf("%s: it has not ended: %w", op, ctx.Err())
		}
		look = err != nil
	}
}

// Query says which sagas to list.
type Query struct {
	// State is of those to list; empty: any.
	State saga.State
	// Label and Value are of one label of those to list; with an empty Label, any saga.
	Label, Value string
	// After is the id behind which to begin.
	After string
	// Page is how many are asked for at once, 1 to 1000; 0 is 1000.
	Page int
}

// List returns sagas by id, page by page as they are asked for: those that are open, and those that ended within the retention time. An error is the last of it: ErrInvalid,
// ErrUnavailable, ErrNoSagas. Sagas that start or end meanwhile may be in it or not.
func (c *Client) List(ctx context.Context, q Query) iter.Seq2[*Summary, error] {
	return func(yield func(*Summary, error) bool) {
		for {
			page, after, err := c.page(ctx, q)
			for i := 0; err == nil && i < len(page); i++ {
				var s *Summary
				if s, err = summaryOf(page[i]); err != nil {
					err = c.strange("list sagas", err)
				} else if !yield(s, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if after == "" {
				return
			}
			q.After = after
		}
	}
}

// page returns one page, and behind what the next begins; empty: there is none.
func (c *Client) page(ctx context.Context, q Query) (page []json.RawMessage, after string, err error) {
	query := url.Values{"limit": {strconv.Itoa(cmp.Or(q.Page, 1000))}}
	for name, value := range map[string]string{"state": string(q.State), "after": q.After} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Label != "" {
		query.Set("label", q.Label+"="+q.Value)
	}
	b, err := c.ask(ctx, &request{op: "list sagas", method: http.MethodGet, path: "/v1/sagas?" + query.Encode(), again: true})
	if err != nil {
		return nil, "", err
	}
	var told struct {
		Sagas []json.RawMessage `json:"sagas"`
		After string            `json:"after"`
	}
	switch err := json.Unmarshal(b, &told); {
	case err != nil:
		return nil, "", c.strange("list sagas", err)
	case told.After != "" && told.After <= q.After: // a list that turns back would have no end
		return nil, "", c.strange("list sagas", fmt.Errorf("it does not get on: behind saga %s comes %s", q.After, told.After))
	}
	return told.Sagas, told.After, nil
}

// Note is who does something to a saga, and why. It is kept with the saga.
type Note struct {
	By   string // saga.MaxNameBytes at the most
	Note string // 1024 bytes at the most
}

// Retry calls what waits at once, with all its attempts before it. A parked saga goes on.
//
// Retry, Skip, Resolve, Resume and Abort are asked once, for twice may not be as once: behind an error that is ErrUnavailable, see with Get whether it was done. They return where
// the saga stands then. Errors: ErrVerb, ErrNotFound, ErrInvalid, ErrUnavailable, ErrNoSagas.
func (c *Client) Retry(ctx context.Context, id string, n Note) (*Saga, error) {
	return c.do(ctx, id, "retry", verb{By: n.By, Note: n.Note})
}

// Skip says that a step does not matter: it is neither done nor undone from here on. For the rest see Retry.
func (c *Client) Skip(ctx context.Context, id, step string, n Note) (*Saga, error) {
	return c.do(ctx, id, "skip", verb{Step: step, By: n.By, Note: n.Note})
}

// Resolve says what became of a step that a person has looked after: saga.StepDone, StepRefused or StepCompensated. For the rest see Retry.
func (c *Client) Resolve(ctx context.Context, id, step string, as saga.StepState, n Note) (*Saga, error) {
	return c.do(ctx, id, "resolve", verb{Step: step, As: as, By: n.By, Note: n.Note})
}

// Resume goes on with a parked saga. For the rest see Retry.
func (c *Client) Resume(ctx context.Context, id string, n Note) (*Saga, error) {
	return c.do(ctx, id, "resume", verb{By: n.By, Note: n.Note})
}

// Abort undoes what was done, as long as the pivot has not happened and cannot have. For the rest see Retry.
func (c *Client) Abort(ctx context.Context, id string, n Note) (*Saga, error) {
	return c.do(ctx, id, "abort", verb{By: n.By, Note: n.Note})
}

// verb is the body of what a person asks for.
type verb struct {
	Step string         `json:"step,omitempty"`
	As   saga.StepState `json:"as,omitempty"`
	By   string         `json:"by,omitempty"`
	Note string         `json:"note,omitempty"`
}

func (c *Client) do(ctx context.Context, id, name string, v verb) (*Saga, error) {
	path, err := pathOf(id)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return c.one(ctx, &request{op: name + " saga " + id, method: http.MethodPost, path: path + ":" + name, body: b, conflict: ErrVerb})
}

// pathOf is the path of a saga. An id that can be none is not sent: a colon or a slash would make it something else.
func pathOf(id string) (string, error) {
	if !saga.IsName(id) {
		return "", fmt.Errorf("%w: %q is no id of a saga: letters, digits, and - _ . in between, %d bytes at the most", ErrInvalid, id, saga.MaxNameBytes)
	}
	return "/v1/sagas/" + id, nil
}

// one asks for a saga.
func (c *Client) one(ctx context.Context, q *request) (*Saga, error) {
	b, err := c.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	s, err := sagaOf(b)
	if err != nil {
		return nil, c.strange(q.op, err)
	}
	return s, nil
}

// strange is of an answer that is not as the API's are.
func (c *Client) strange(op string, err error) error {
	return &Error{Op: op, Address: c.bases[c.at.Load()], Status: http.StatusOK, Err: err, kind: ErrNoSagas}
}
