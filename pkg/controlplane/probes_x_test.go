package controlplane_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// get asks for a path of the HTTP port.
func get(t *testing.T, addresses controlplane.Addresses, path, host string) (code int, contentType, body string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addresses.HTTP.String()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = host
	a, err := http.DefaultTransport.RoundTrip(q) // which follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, a.Header.Get("Content-Type"), string(text)
}

// serving asks by the gRPC health protocol.
func serving(t *testing.T, addresses controlplane.Addresses) healthv1.HealthCheckResponse_ServingStatus {
	t.Helper()
	conn, err := grpc.NewClient(addresses.GRPC.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	a, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return a.GetStatus()
}

func TestHTTPPortSaysWhatItHas(t *testing.T) {
	addresses := runControlPlane(t)
	register(t, addresses, "orders", "a1", 9000)
	for _, c := range []struct{ path, host, contentType, want string }{
		{"/", "", "text/plain", "/openapi.json"},
		{"/healthz", "", "text/plain", "ok\n"},
		{"/readyz", "", "text/plain", "ready\n"},
		{"/readyz", "localhost:15014", "text/plain", "ready\n"},
		{"/openapi.json", "", "application/json", `"/v1/services"`},
		{"/openapi.json", "", "application/json", `"/v1/sagas/{id}:wait"`},
		{"/openapi.json", "", "application/json", `"sagaDefinition"`},
		{"/openapi.json", "", "application/json", `"name": "Registry"`},
		{"/metrics", "", "text/plain", `fairlead_registry_instances{service="orders.default",usable="true"} 1`},
		{"/metrics", "", "text/plain", `fairlead_api_calls_total{code="OK",method="mesh.v1.Registry/RegisterInstance"} 1`},
		{"/metrics", "", "text/plain", "go_goroutines"},
		{"/v1/services", "", "application/json", `"name":"orders"`},
	} {
		code, contentType, body := get(t, addresses, c.path, c.host)
		if code != http.StatusOK || !strings.HasPrefix(contentType, c.contentType) || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %s with %q in\n%.1000s", c.path, code, contentType, c.contentType, c.want, body)
		}
	}
	if _, _, text := get(t, addresses, "/openapi.json", ""); !json.Valid([]byte(text)) {
		t.Error("/openapi.json is no JSON")
	}
	if got := serving(t, addresses); got != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("by gRPC it is %s", got)
	}
	if code, _, _ := get(t, addresses, "/nowhere", ""); code != http.StatusNotFound {
		t.Errorf("/nowhere: %d", code)
	}
	for _, path := range []string{"//v1/services", "/v1/namespaces/x/services/../..", "/nowhere/../healthz", "/v1"} {
		if code, contentType, body := get(t, addresses, path, ""); code != http.StatusNotFound || contentType != "application/json" {
			t.Errorf("%s: %d %s %q, want 404 as JSON", path, code, contentType, body)
		}
	}
	if code, _, body := get(t, addresses, "/v1/services", "evil.example"); code != http.StatusForbidden {
		t.Errorf("under the name of a web page: %d %q", code, body)
	}
}

// behindForwarder keeps the store of one control plane and returns a configuration of
// another that reaches it through a network that can break.
func behindForwarder(t *testing.T) (controlplane.Addresses, *forwarder, controlplane.Config) {
	t.Helper()
	keeper := loopbackConfig(t)
	keeper.EtcdListen = "127.0.0.1:0"
	keeping, _ := runControlPlaneAt(t, keeper)
	f := forward(t, keeping.Etcd)
	config := loopbackConfig(t)
	config.Etcd.Endpoints = []string{f.address()}
	return keeping, f, config
}

func TestUntilTheStoreWasReadNothingIsSaidOfIt(t *testing.T) {
	keeping, store, config := behindForwarder(t)
	register(t, keeping, "orders", "a1", 9000)
	config.Ready = func(controlplane.Addresses) { store.freeze() } // it listens, and has not begun to read
	addresses, _ := launch(t, config)
	if code, _, body := get(t, addresses, "/readyz", ""); code != http.StatusServiceUnavailable || body != "store: waiting for the first reading of the store\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	if code, _, _ := get(t, addresses, "/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	if got := serving(t, addresses); got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("by gRPC it is %s", got)
	}
	for _, path := range []string{"/v1/services", "/v1/namespaces/default/services/orders", "/v1/namespaces/default/services/orders/policy", "/v1/watch"} {
		if code, _, body := get(t, addresses, path, ""); code != http.StatusServiceUnavailable || !strings.Contains(body, "has not read the store yet") {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	client := dialADS(t, addresses, "early")
	client.subscribe(codec.TypeCluster, "orders.default:http", "never.default:http")
	answered := make(chan string, 2)
	go func() {
		status, reason, _ := shop.through("never", "/")
		answered <- fmt.Sprint(status, " ", reason)
	}()
	go func() {
		r, err := client.stream.Recv()
		answered <- fmt.Sprint(len(r.GetResources()), " ", r.GetRemovedResources(), " ", err)
	}()
	select {
	case said := <-answered:
		store.thaw()
		t.Fatalf("it said %q of what it could not know", said)
	case <-time.After(200 * time.Millisecond):
	}
	store.thaw()
	said := []string{<-answered, <-answered}
	slices.Sort(said)
	if want := []string{"1 [never.default:http] <nil>", "404 unknown_service"}; !slices.Equal(said, want) {
		t.Errorf("when it had read the store it said %q", said)
	}
	eventually(t, "it is ready", func() bool { return ask("http://"+addresses.HTTP.String()+"/readyz") == "ready\n" })
}

func TestStoreThatFallsSilentIsToldAndStopsNobodyFromReading(t *testing.T) {
	keeping, store, config := behindForwarder(t)
	register(t, keeping, "orders", "a1", portOf(app(t, "a1").Listener.Addr()))
	addresses, stop := runControlPlaneAt(t, config)
	store.interrupt()
	store.freeze()
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	if status, reason, body := shop.through("orders", "/"); status != 200 || body != "a1" {
		t.Errorf("%d %s %q", status, reason, body)
	}
	if got := registered(t, addresses, "orders"); got != "a1" {
		t.Errorf("registered: %q", got)
	}
	eventually(t, "the silence is measured", func() bool { return metric(t, addresses, "fairlead_store_silence_seconds") > 0.5 })
	store.thaw()
	register(t, addresses, "orders", "a2", 9000)
	if got := registered(t, addresses, "orders"); got != "a1 a2" {
		t.Errorf("when the store was back: %q", got)
	}
	stop()
}

func TestStopSpreadsTheEndOfTheStreams(t *testing.T) {
	config := loopbackConfig(t)
	config.DrainTime = time.Second
	addresses, stop := runControlPlaneAt(t, config)
	const streams = 20
	ended := make(chan time.Time, streams)
	for i := range streams {
		ads := dialADS(t, addresses, fmt.Sprint("shop-", i))
		ads.subscribe(codec.TypeCluster, "orders.default:http")
		ads.receive() // so that the stream is there
		go func() {
			_, _ = ads.stream.Recv() // only when it ends matters here
			ended <- time.Now()
		}()
	}
	stop()
	first := <-ended
	last := first
	for range streams - 1 {
		if at := <-ended; at.After(last) {
			last = at
		}
	}
	if last.Sub(first) < config.DrainTime/4 {
		t.Errorf("the streams ended within %v: all sidecars would come back at once", last.Sub(first))
	}
}

func TestStopEndsTheStreamsAndLeavesTheInstancesRegistered(t *testing.T) {
	config := loopbackConfig(t)
	addresses, stop := runControlPlaneAt(t, config)
	register(t, addresses, "orders", "a1", 9000)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app(t, "o1").Listener.Addr().String()})
	eventually(t, "both are registered", func() bool { return registered(t, addresses, "orders") == "a1 o1" })
	ads := dialADS(t, addresses, "shop-1")
	ads.subscribe(codec.TypeCluster, "orders.default:http")
	ads.receive()
	watch, err := http.Get("http://" + addresses.HTTP.String() + "/v1/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Body.Close() }()

	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if _, err := ads.stream.Recv(); err == nil || errors.Is(err, context.Canceled) || status.Code(err) != codes.Unavailable && !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
	var last string
	lines := bufio.NewScanner(watch.Body)
	for lines.Scan() {
		last = lines.Text()
	}
	if lines.Err() != nil || !strings.HasPrefix(last, `{"error":`) {
		t.Errorf("the watch ended with %q (%v)", last, lines.Err())
	}
	if _, err := http.Get("http://" + addresses.HTTP.String() + "/healthz"); err == nil {
		t.Error("it still answers")
	}
	config.GRPCAddr, config.HTTPAddr = freeAddress(t), freeAddress(t) // where the sidecar does not find it
	again, _ := runControlPlaneAt(t, config)
	if got := registered(t, again, "orders"); got != "a1 o1" {
		t.Errorf("registered when it is back: %q", got)
	}
}
