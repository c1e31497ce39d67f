package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
)

// inbound runs the sidecar of an application, and returns the address for its peers.
func inbound(t *testing.T, app string) string {
	t.Helper()
	return inboundWith(t, app)
}

// inboundWith is inbound with changes to the cluster that is the application.
func inboundWith(t *testing.T, app string, options ...option) string {
	t.Helper()
	r := startWith(t, func(c *proxy.Config) {
		cluster := c.Router.(staticRouter).routes.Match([]byte("app"), []byte("/")).Cluster
		c.Router = table.NewInbound(cluster, "app.default", metrics.NewProxy(metrics.New(metrics.Config{Logger: c.Log}), reason.Codes()))
	}, []string{app}, append(options, withoutBreaker)...)
	return r.addr
}

func withoutBreaker(c *mesh.Cluster, _ *mesh.Route) { c.Breaker = mesh.Breaker{Disabled: true} }

func behindSidecars(c *mesh.Cluster, _ *mesh.Route) {
	for i := range c.Static.Endpoints {
		c.Static.Endpoints[i].Sidecar = true
	}
}

const peerFailure = "fairlead-peer-failure"

// An application that dies under load resets what it was sent, and goes on taking
// connections for a moment: its sidecar cannot tell that from an odd request.
func TestApplicationThatGivesNoAnswerIsReplacedByAnotherWhereThatIsSafe(t *testing.T) {
	for _, c := range []struct {
		method string
		body   string
		app    func(t *testing.T) (string, *atomic.Int64)
		reason string // "" is: another answered
	}{
		{"GET", "", dying, ""},
		{"PUT", "x", dying, ""},
		{"POST", "x", dying, "upstream_reset"},
		{"GET", "", gone, ""},
		{"POST", "x", gone, ""},
	} {
		t.Run(c.method, func(t *testing.T) {
			bad, seen := c.app(t)
			var good atomic.Int64
			works := backend(t, func(w http.ResponseWriter, _ *http.Request) {
				good.Add(1)
				_, _ = io.WriteString(w, "ok")
			})
			r := start(t, []string{inbound(t, bad), inbound(t, works)}, behindSidecars, withoutBreaker)
			const rounds = 10
			failed := int64(0)
			for range rounds {
				resp, text := r.do(c.method, "/", strings.NewReader(c.body))
				if resp.Header.Get(peerFailure) != "" {
					t.Errorf("the client sees what sidecars tell each other: %v", resp.Header)
				}
				if resp.StatusCode == http.StatusOK {
					continue
				}
				failed++
				if got := resp.Header.Get("fairlead-reason"); got != c.reason {
					t.Errorf("status %d, reason %q, want %q: %s", resp.StatusCode, got, c.reason, text)
				}
			}
			if seen.Load() > rounds {
				t.Errorf("the application that fails was sent %d requests of %d", seen.Load(), rounds)
			}
			if c.reason == "" && good.Load() != rounds {
				t.Errorf("%d answered by the other, of %d", good.Load(), rounds)
			}
			if c.reason != "" && (failed == 0 || failed+good.Load() != rounds) {
				t.Errorf("%d failed and %d reached the other, of %d", failed, good.Load(), rounds)
			}
		})
	}
}

// dying is an application that resets every connection that a request comes on.
func dying(t *testing.T) (string, *atomic.Int64) { return resetter(t, 1<<40) }

// gone is one that nobody listens for.
func gone(t *testing.T) (string, *atomic.Int64) { return deadAddress(t), new(atomic.Int64) }

func TestSidecarTellsOnlyItsPeersThatTheApplicationGaveNoAnswer(t *testing.T) {
	app, _ := dying(t)
	r := &rig{t: t, addr: inbound(t, app)}
	if resp, _ := r.do("GET", "/", nil); resp.Header.Get(peerFailure) != "" {
		t.Errorf("told to a client that is no sidecar: %v", resp.Header)
	}
	asPeer := func(q *http.Request) { q.Header.Set("fairlead-peer", "1") }
	if resp, _ := r.do("GET", "/", nil, asPeer); resp.Header.Get(peerFailure) != "upstream_reset" {
		t.Errorf("not told to a peer: %v", resp.Header)
	}
}

func TestOnlyASidecarIsBelievedThatARequestWasNotDelivered(t *testing.T) {
	for _, c := range []struct {
		name     string
		endpoint func(t *testing.T, app string) string
		option   option
	}{
		{"an application beside a sidecar", inbound, behindSidecars},
		{"an application without one", func(_ *testing.T, app string) string { return app }, withoutBreaker},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen atomic.Int64
			liar := backend(t, func(w http.ResponseWriter, _ *http.Request) {
				seen.Add(1)
				w.Header().Set(peerFailure, "not_delivered")
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			r := start(t, []string{c.endpoint(t, liar)}, c.option)
			resp, _ := r.do("POST", "/", strings.NewReader("x"))
			if resp.StatusCode != http.StatusServiceUnavailable || seen.Load() != 1 {
				t.Errorf("status %d, delivered %d times", resp.StatusCode, seen.Load())
			}
			if resp.Header.Get(peerFailure) != "" {
				t.Errorf("the lie was passed on: %v", resp.Header)
			}
		})
	}
}

func TestResponseMayBeSilentLongerThanAClientMayStall(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(2 * time.Second)
		_, _ = io.WriteString(w, "last")
	})
	r := startWith(t, func(c *proxy.Config) { c.StallTimeout = 500 * time.Millisecond }, []string{addr}, timeout(0))
	if resp, text := r.do("GET", "/", nil); resp.StatusCode != http.StatusOK || text != "first last" {
		t.Errorf("status %d %q", resp.StatusCode, text)
	}
}

func TestClientThatLeavesASilentResponseEndsIt(t *testing.T) {
	left := make(chan struct{})
	addr := backend(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
		close(left)
	})
	r := start(t, []string{addr}, timeout(0))
	resp, err := r.client().Get("http://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	select {
	case <-left:
	case <-time.After(30 * time.Second):
		t.Error("the instance still answers nobody")
	}
}
