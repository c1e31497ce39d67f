package play

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// requestTimeout is the client's patience.
	requestTimeout = 5 * time.Second
	// maxInFlight bounds the requests under way. One more is counted as a failure: the
	// mesh did not keep up.
	maxInFlight = 256
	// recent is how far back Recent looks.
	recent = 2 * time.Second
)

// Result is how a request went.
type Result struct {
	At       time.Time
	Took     time.Duration
	Instance string // that answered; "" if none did
	Failure  string // why it failed; "" if it did not
}

// Load sends requests for orders at a steady rate, whether answers come or not.
type Load struct {
	client *http.Client
	url    string
	rate   int

	stop    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	recent []Result        // guarded by mu
	took   []time.Duration // guarded by mu; of the phase's successes
	phase  Tally           // guarded by mu
	total  Tally           // guarded by mu
	flying int             // guarded by mu
}

// Tally counts requests.
type Tally struct {
	Requests   int
	Failures   map[string]int // by why
	ByInstance map[string]int
}

// Failed is the number of failures.
func (t Tally) Failed() int {
	n := 0
	for _, count := range t.Failures {
		n += count
	}
	return n
}

// Share is the part of the requests that an instance answered, 0 to 1.
func (t Tally) Share(instance string) float64 {
	if t.Requests == 0 {
		return 0
	}
	return float64(t.ByInstance[instance]) / float64(t.Requests)
}

func (t *Tally) add(r Result) {
	if t.Failures == nil {
		t.Failures, t.ByInstance = map[string]int{}, map[string]int{}
	}
	t.Requests++
	if r.Failure != "" {
		t.Failures[r.Failure]++
	}
	if r.Instance != "" {
		t.ByInstance[r.Instance]++
	}
}

// StartLoad sends rate requests a second for service through the outbound port of a
// sidecar.
func StartLoad(outbound, service string, rate int) *Load {
	l := &Load{
		client: &http.Client{
			Timeout: requestTimeout,
			Transport: hostTransport{service, &http.Transport{
				MaxIdleConnsPerHost: maxInFlight, MaxConnsPerHost: maxInFlight, IdleConnTimeout: time.Minute,
			}},
		},
		url:  "http://" + outbound,
		rate: rate,
		stop: make(chan struct{}),
	}
	l.running.Go(l.run)
	return l
}

// hostTransport asks for a service by name at the address of a sidecar.
type hostTransport struct {
	host string
	*http.Transport
}

func (t hostTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = t.host
	return t.Transport.RoundTrip(r)
}

func (l *Load) run() {
	ticker := time.NewTicker(time.Second / time.Duration(l.rate))
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
		}
		l.mu.Lock()
		full := l.flying >= maxInFlight
		if !full {
			l.flying++
		}
		l.mu.Unlock()
		if full {
			l.note(Result{At: time.Now(), Failure: fmt.Sprintf("%d requests are unanswered", maxInFlight)})
			continue
		}
		l.running.Go(func() {
			r := l.request(n)
			l.note(r)
			l.mu.Lock()
			l.flying--
			l.mu.Unlock()
		})
	}
}

// request asks for an order, as a client that does not retry.
func (l *Load) request(n int) Result {
	began := time.Now()
	r := Result{}
	r.Instance, r.Failure = l.ask(n)
	r.At = time.Now()
	r.Took = r.At.Sub(began)
	return r
}

func (l *Load) ask(n int) (instance, failure string) {
	q, err := http.NewRequestWithContext(context.Background(), http.MethodGet, fmt.Sprintf("%s/orders/%d", l.url, n), http.NoBody)
	if err != nil {
		return "", err.Error()
	}
	a, err := l.client.Do(q)
	if err != nil {
		return "", "no answer: " + err.Error()
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(a.Body, 64<<10))
	if err != nil {
		return "", "the answer broke off: " + err.Error()
	}
	if a.StatusCode != http.StatusOK {
		reason := a.Header.Get("fairlead-reason")
		if reason == "" {
			reason = "answered by the service"
		}
		return "", fmt.Sprintf("%d (%s)", a.StatusCode, reason)
	}
	var order struct{ Instance string }
	if err := json.Unmarshal(body, &order); err != nil {
		return "", "the answer is no order: " + err.Error()
	}
	return order.Instance, ""
}

func (l *Load) note(r Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase.add(r)
	if r.Failure == "" {
		l.took = append(l.took, r.Took)
	}
	l.total.add(r)
	old := r.At.Add(-recent)
	n := 0
	for n < len(l.recent) && l.recent[n].At.Before(old) {
		n++
	}
	l.recent = append(l.recent[n:], r)
}

// Phase begins to count anew.
func (l *Load) Phase() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase, l.took = Tally{}, nil
}

// Median returns how long a request took that succeeded since the last Phase, half of
// them longer and half of them shorter; 0 if there was none.
func (l *Load) Median() time.Duration {
	l.mu.Lock()
	took := slices.Clone(l.took)
	l.mu.Unlock()
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// Counted returns what was counted since the last Phase.
func (l *Load) Counted() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase.clone()
}

// Total returns what was counted since the start.
func (l *Load) Total() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total.clone()
}

func (t Tally) clone() Tally {
	c := Tally{Requests: t.Requests, Failures: map[string]int{}, ByInstance: map[string]int{}}
	for k, n := range t.Failures {
		c.Failures[k] = n
	}
	for k, n := range t.ByInstance {
		c.ByInstance[k] = n
	}
	return c
}

// Now is how the last two seconds were.
type Now struct {
	Tally
	PerSecond float64
	P50, P99  time.Duration // of those that succeeded
}

// Recent returns how the last two seconds were.
func (l *Load) Recent() Now {
	l.mu.Lock()
	results := slices.Clone(l.recent)
	l.mu.Unlock()
	var n Now
	var took []time.Duration
	since := time.Now().Add(-recent)
	for _, r := range results {
		if r.At.Before(since) {
			continue
		}
		n.add(r)
		if r.Failure == "" {
			took = append(took, r.Took)
		}
	}
	n.PerSecond = float64(n.Requests) / recent.Seconds()
	if slices.Sort(took); len(took) > 0 {
		n.P50, n.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	return n
}

// Stop stops sending and waits for the answers.
func (l *Load) Stop() {
	close(l.stop)
	l.running.Wait()
	l.client.CloseIdleConnections()
}
