package controlplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
)

// steps is what sagas call, where a sidecar's port for outgoing requests is: it answers for all services.
type steps struct {
	mu    sync.Mutex
	calls []string // service, path, key
	trace []string // traceparent
	hold  chan struct{}
}

func (s *steps) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.calls = append(s.calls, fmt.Sprintf("%s%s %s", r.Host, r.URL.Path, r.Header.Get("Idempotency-Key")))
	s.trace = append(s.trace, r.Header.Get("traceparent"))
	hold := s.hold
	s.mu.Unlock()
	switch {
	case r.URL.Path == "/break":
		http.Error(w, "it is broken", http.StatusInternalServerError)
	case r.URL.Path == "/later" && r.Header.Get("Saga-Attempt") == "1":
		w.WriteHeader(http.StatusAccepted)
	case r.URL.Path == "/refuse":
		http.Error(w, "none is left", http.StatusConflict)
	case r.URL.Path == "/hold" && hold != nil:
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}
}

func (s *steps) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, ", ")
}

// traces returns the traceparent of each call.
func (s *steps) traces() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.trace)
}

func startSagas(t *testing.T, config controlplane.Config) (ask func(method, path, body string) (int, string), stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan controlplane.Addresses, 1)
	config.Ready = func(a controlplane.Addresses) { ready <- a }
	config.DrainTime = time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- controlplane.Run(ctx, config) }()
	var addresses controlplane.Addresses
	select {
	case addresses = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return func(method, path, body string) (int, string) {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), method, "http://"+addresses.HTTP.String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		q.Close = true
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			resp, err := http.DefaultClient.Do(q.Clone(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) { // while its shards have no owner yet
				return resp.StatusCode, string(b)
			}
			q.Body = io.NopCloser(strings.NewReader(body))
		}
	}, stop
}

func sagaOf(id string, paths ...string) string {
	var steps []string
	for i, path := range paths {
		steps = append(steps, fmt.Sprintf(`{"name":"s%d","action":{"service":"orders.shop","path":%q},"compensate":{"service":"orders.shop","path":"/undo%d"}}`, i, path, i))
	}
	return fmt.Sprintf(`{"id":%q,"steps":[%s]}`, id, strings.Join(steps, ","))
}

func stateOf(t *testing.T, body string) string {
	t.Helper()
	var s struct{ State string }
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return s.State
}

func TestSagasAreCoordinatedOnAStoreOfTheirOwnAndGoOnAfterARestart(t *testing.T) {
	called := &steps{hold: make(chan struct{})}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	ask, stop := startSagas(t, config)
	if status, body := ask("GET", "/v1/sagas", ""); status != 200 || body != "{\"sagas\":[]}\n" {
		t.Errorf("before the first: %d %s", status, body)
	}
	if status, body := ask("GET", "/v1/sagas/order-1", ""); status != 404 {
		t.Errorf("before the first: %d %s", status, body)
	}
	for id, paths := range map[string][]string{"done": {"/a", "/b"}, "undone": {"/a", "/refuse"}, "held": {"/a", "/hold"}} {
		if status, body := ask("POST", "/v1/sagas", sagaOf(id, paths...)); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	for id, want := range map[string]string{"done": "completed", "undone": "compensated"} {
		if _, body := ask("GET", "/v1/sagas/"+id+":wait?timeout=20s", ""); stateOf(t, body) != want {
			t.Errorf("%s: %s", id, body)
		}
	}
	if !strings.Contains(called.String(), "orders.shop/undo0 undone/s0/compensate") {
		t.Error(called)
	}
	stop()
	close(called.hold)
	ask, _ = startSagas(t, config)
	_, body := ask("GET", "/v1/sagas/held:wait?timeout=30s", "")
	if stateOf(t, body) != "completed" || strings.Count(called.String(), "held/s0/action") != 1 || strings.Count(called.String(), "held/s1/action") != 2 {
		t.Errorf("%s after %s", body, called)
	}
	if _, body := ask("GET", "/v1/sagas/done", ""); stateOf(t, body) != "completed" {
		t.Error(body)
	}
}

// answers is an instance that counts its calls.
func answers(t *testing.T, status *atomic.Int32) (port int, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(s.Close)
	return portOf(s.Listener.Addr()), calls
}

func TestWithoutASidecarTheInstancesThatAreRegisteredAreCalled(t *testing.T) {
	ask, _ := startSagas(t, loopbackConfig(t))
	saga := func(id string) (state, body string) {
		t.Helper()
		if status, body := ask("POST", "/v1/sagas", fmt.Sprintf(`{"id":%q,"steps":[{"name":"a","action":{"service":"orders.shop","path":"/"},"retry":{"attempts":20,"backoff":"1ms","max":"5ms"}}]}`, id)); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		_, body = ask("GET", "/v1/sagas/"+id+":wait?timeout=20s", "")
		return stateOf(t, body), body
	}
	if state, body := saga("none"); state != "compensated" || !strings.Contains(body, "orders.shop was never registered") {
		t.Errorf("without a service: %s", body)
	}
	var well, unwell atomic.Int32
	well.Store(200)
	unwell.Store(200)
	good, goodCalls := answers(t, &well)
	bad, badCalls := answers(t, &unwell)
	register := func(id string, port int, status string) {
		t.Helper()
		if status, body := ask("POST", "/v1/namespaces/shop/services/orders/instances",
			fmt.Sprintf(`{"id":%q,"address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s","status":%q}`, id, port, status)); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	register("good", good, "HEALTHY")
	register("bad", bad, "HEALTHY")
	for i := range 10 {
		if state, body := saga(fmt.Sprintf("both-%d", i)); state != "completed" {
			t.Fatal(body)
		}
	}
	if goodCalls.Load() == 0 || badCalls.Load() == 0 {
		t.Errorf("%d and %d calls", goodCalls.Load(), badCalls.Load())
	}
	unwell.Store(500)
	badCalls.Store(0)
	for i := range 30 {
		if state, body := saga(fmt.Sprintf("one-%d", i)); state != "completed" {
			t.Fatal(body)
		}
	}
	if n := badCalls.Load(); n != 5 {
		t.Errorf("the one that fails was called %d times before its breaker opened", n)
	}
	register("good", good, "DRAINING")
	if state, body := saga("open"); state != "compensated" || !strings.Contains(body, "no instance is healthy and has its breaker closed") {
		t.Error(body)
	}
	if status, body := ask("DELETE", "/v1/namespaces/shop/services/orders/instances/bad", ""); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	unwell.Store(200)
	register("bad", bad, "HEALTHY")
	if state, body := saga("anew"); state != "completed" {
		t.Error(body)
	}
}

func TestAParticipantThatAsksForTimeIsNotCalledBefore(t *testing.T) {
	ask, _ := startSagas(t, loopbackConfig(t))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Saga-Attempt") == "1" {
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	if status, body := ask("POST", "/v1/namespaces/shop/services/orders/instances",
		fmt.Sprintf(`{"id":"o1","address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, portOf(s.Listener.Addr()))); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := ask("POST", "/v1/sagas", `{"id":"a","steps":[{"name":"a","action":{"service":"orders.shop","path":"/"},"retry":{"backoff":"1ms","max":"1h"}}]}`); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	var told struct{ Steps []struct{ Next time.Time } }
	eventually(t, "it has been called", func() bool {
		_, body := ask("GET", "/v1/sagas/a", "")
		return strings.Contains(body, "503") && json.Unmarshal([]byte(body), &told) == nil
	})
	if d := time.Until(told.Steps[0].Next); d < 30*time.Minute || d > time.Hour+time.Second {
		t.Errorf("it is called again in %v, though it asks for two hours and may have one", d)
	}
	if status, body := ask("POST", "/v1/sagas/a:retry", `{"by":"me"}`); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if _, body := ask("GET", "/v1/sagas/a:wait?timeout=20s", ""); stateOf(t, body) != "completed" {
		t.Error(body)
	}
}

func TestReplicasNeedAStoreOfTheirSagasThatTheyShare(t *testing.T) {
	etcd, err := etcdembed.Start(t.Context(), etcdembed.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = etcd.Stop() })
	config := loopbackConfig(t)
	config.DataDir, config.Etcd.Endpoints = "", []string{"http://" + etcd.Listen()}
	ask, _ := startSagas(t, config)
	if status, body := ask("POST", "/v1/sagas", sagaOf("a", "/a")); status != http.StatusNotImplemented || !strings.Contains(body, "--saga-etcd-endpoints") {
		t.Errorf("%d %s", status, body)
	}
}
