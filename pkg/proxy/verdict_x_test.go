package proxy_test

import (
	"net/http"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func TestAGoodStatusWhoseBodyBreaksOffIsAFailureOfTheInstance(t *testing.T) {
	r := start(t, []string{answerBroken(t)}, func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 3, MaxEjectionPercent: 100}
	})
	for range 3 {
		r.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	if s := r.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != 3 || s.Breaker.State != breaker.Open {
		t.Errorf("%d failures, the breaker is %s", s.Failures, s.Breaker.State)
	}
}

func TestEachAttemptCountsForItsOwnInstance(t *testing.T) {
	const n = 12 // requests, of which each other goes to the one that resets first
	dead, seen := dying(t)
	r := start(t, []string{dead, backend(t, func(http.ResponseWriter, *http.Request) {})}, withBreaker)
	for range n {
		if resp, _ := r.do("GET", "/", nil); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	for _, h := range r.set.Clusters()[0].Hosts() {
		s := h.Status(0)
		switch {
		case s.Endpoint.Instance == "i0" && (seen.Load() == 0 || s.Failures != uint64(seen.Load()) || s.Requests != s.Failures || s.Breaker.ConsecutiveFailures != int(seen.Load())):
			t.Errorf("the one that resets saw %d: %d requests, %d failures, %+v", seen.Load(), s.Requests, s.Failures, *s.Breaker)
		case s.Endpoint.Instance == "i1" && (s.Requests != n || s.Failures != 0):
			t.Errorf("the other has %d requests, %d failures", s.Requests, s.Failures)
		}
	}
}
