package proxy_test

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
)

// unlearnt is a router that knows a destination once learnt is closed.
type unlearnt struct {
	proxy.Router
	learnt <-chan struct{}
	why    reason.Reason // of a destination that is not there; None: there is one
}

func (l unlearnt) Route(_, _ []byte, _ int64) (*table.Entry, reason.Reason, bool) {
	return nil, reason.None, true
}

func (l unlearnt) Await(_ context.Context, authority, path []byte) (*table.Entry, reason.Reason) {
	<-l.learnt
	if l.why != reason.None {
		return nil, l.why
	}
	e, why, _ := l.Router.Route(authority, path, 0)
	return e, why
}

// inFlight waits until metrics tell so many requests in flight to each destination.
func inFlight(t *testing.T, want map[string]float64, registries ...*metrics.Registry) {
	t.Helper()
	var got map[string]float64
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		got = map[string]float64{}
		for _, r := range registries {
			samples, err := r.Samples()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range samples {
				if s.Name != "fairlead_requests_in_flight" {
					continue
				}
				for _, l := range s.Labels {
					if l.Name == "destination" {
						got[l.Value] = s.Value
					}
				}
			}
		}
		if maps.Equal(got, want) {
			return
		}
	}
	t.Errorf("in flight are %v, not %v", got, want)
}

func TestARequestIsInFlightWhileItsDestinationIsLearnt(t *testing.T) {
	for name, test := range map[string]struct {
		why    reason.Reason
		status string
		after  float64 // in flight to the destination, while the instance answers
	}{
		"and then to its destination": {reason.None, "HTTP/1.1 200 ", 1},
		"and then in nothing":         {reason.UnknownService, "HTTP/1.1 404 ", 0},
	} {
		t.Run(name, func(t *testing.T) {
			answer := make(chan struct{})
			app := backend(t, func(http.ResponseWriter, *http.Request) { <-answer })
			learnt := make(chan struct{})
			unrouted := metrics.New(metrics.Config{})
			r := startWith(t, func(c *proxy.Config) {
				c.Router = unlearnt{c.Router, learnt, test.why}
				c.Unrouted = metrics.NewProxy(unrouted, reason.Codes()).Destination("test", "unknown")
			}, []string{app})
			got := make(chan string, 1)
			go func() { got <- r.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") }()
			inFlight(t, map[string]float64{"unknown": 1, "c": 0}, unrouted, r.counts)
			close(learnt)
			inFlight(t, map[string]float64{"unknown": 0, "c": test.after}, unrouted, r.counts)
			close(answer)
			if line := <-got; !strings.HasPrefix(line, test.status) {
				t.Errorf("it is answered %.40q", line)
			}
			inFlight(t, map[string]float64{"unknown": 0, "c": 0}, unrouted, r.counts)
		})
	}
}
