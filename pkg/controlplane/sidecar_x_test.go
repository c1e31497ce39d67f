package controlplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// beside is a running sidecar.
type beside struct {
	addresses sidecar.Addresses
	stop      func() // tells it to stop, and waits
}

// runSidecar runs one until the test ends or it is stopped.
func runSidecar(t *testing.T, controlPlane string, w sidecar.Workload) beside {
	t.Helper()
	return runSidecarWith(t, sidecar.Config{ControlPlane: controlPlane, Workload: w})
}

// runSidecarWith is runSidecar with more to say.
func runSidecarWith(t *testing.T, config sidecar.Config) beside {
	t.Helper()
	ready := make(chan sidecar.Addresses, 1)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	config.InboundAddr, config.OutboundAddr, config.AdminAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	config.Ready = func(a sidecar.Addresses) { ready <- a }
	go func() { ended <- sidecar.Run(ctx, config) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	select {
	case a := <-ready:
		return beside{addresses: a, stop: stop}
	case err := <-ended:
		ended <- nil
		t.Fatalf("the sidecar did not start: %v", err)
		return beside{}
	}
}

// through asks for a path of a service through the sidecar.
func (b beside) through(host, path string) (status int, reason, body string) {
	return b.send(http.MethodGet, host, path, http.NoBody)
}

func (b beside) send(method, host, path string, content io.Reader) (status int, reason, body string) {
	q, err := http.NewRequest(method, "http://"+b.addresses.Listeners[sidecar.Outbound].String()+path, content)
	if err != nil {
		return 0, "", err.Error()
	}
	q.Host = host
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, "", err.Error()
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, "", err.Error()
	}
	return a.StatusCode, a.Header.Get("fairlead-reason"), string(text)
}

// cluster is what the admin port says of one.
type cluster struct {
	Name   string
	Policy string            `json:"lb_policy"`
	Hosts  []json.RawMessage `json:"host_statuses"`
}

// clusters lists those that the sidecar knows, by its admin port.
func (b beside) clusters(t *testing.T) []cluster {
	t.Helper()
	var list struct {
		Clusters []cluster `json:"cluster_statuses"`
	}
	if err := json.Unmarshal([]byte(ask("http://"+b.addresses.Admin.String()+"/clusters?format=json")), &list); err != nil {
		t.Fatal(err)
	}
	return list.Clusters
}

func app(t *testing.T, name string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			select {
			case <-time.After(5 * time.Second):
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	return s
}

// registered lists the instances of a service that take requests, by the API: the
// data planes are being told of them when it returns.
func registered(t *testing.T, addresses controlplane.Addresses, service string) string {
	t.Helper()
	a, err := http.Get("http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/" + service + "/instances")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = a.Body.Close() }()
	var list struct {
		Instances []struct{ ID, Status string }
	}
	if err := json.NewDecoder(a.Body).Decode(&list); err != nil {
		return err.Error()
	}
	var ids []string
	for _, i := range list.Instances {
		if i.Status == "HEALTHY" || i.Status == "STATUS_UNSPECIFIED" {
			ids = append(ids, i.ID)
		}
	}
	return strings.Join(ids, " ")
}

func TestInstanceAtAnOutboundPortIsRefusedAndDoesNotMultiplyRequests(t *testing.T) {
	addresses := runControlPlane(t)
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	other := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "other"})
	port := shop.addresses.Listeners[sidecar.Outbound].(*net.TCPAddr).Port
	call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances",
		fmt.Sprintf(`{"id":"o1","address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, port))
	for name, caller := range map[string]beside{"the sidecar itself": shop, "another, which calls that one": other} {
		if status, reason, body := caller.through("orders", "/"); status != 508 || !strings.Contains(body, "(loop)") {
			t.Errorf("%s: %d %s %q", name, status, reason, body)
		}
	}
}

func TestInstancesAtOutboundPortsThatLeadToEachOtherAreFoundOut(t *testing.T) {
	addresses := runControlPlane(t)
	var all []beside
	for _, service := range []string{"shop", "other"} {
		b := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: service})
		call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances",
			fmt.Sprintf(`{"id":%q,"address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, service, b.addresses.Listeners[sidecar.Outbound].(*net.TCPAddr).Port))
		all = append(all, b)
	}
	for _, b := range all {
		if status, reason, body := b.through("orders", "/"); status != 508 || !strings.Contains(body, "(loop)") {
			t.Errorf("%d %s %q", status, reason, body)
		}
	}
}

func TestServiceIsLearntWhenItIsFirstCalled(t *testing.T) {
	addresses := runControlPlane(t)
	api := "http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/"
	register := func(service, id string, port int) {
		call(t, http.MethodPost, api+service+"/instances", fmt.Sprintf(`{"id":%q,"address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, id, port))
	}
	register("orders", "a1", app(t, "a1").Listener.Addr().(*net.TCPAddr).Port)
	register("empty", "a1", 1)
	call(t, http.MethodDelete, api+"empty/instances/a1", "")
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})

	var asking sync.WaitGroup
	for range 20 { // they share the one subscription
		asking.Go(func() {
			if status, reason, body := shop.through("orders", "/"); status != 200 || body != "a1" {
				t.Errorf("%d %s %q", status, reason, body)
			}
		})
	}
	asking.Wait()
	for _, c := range []struct {
		host, reason string
		status       int
	}{
		{"orders.default", "", 200},
		{"ORDERS.default.svc.cluster.local.:http", "", 200},
		{"never", "unknown_service", 404},
		{"orders.other", "unknown_service", 404},
		{"orders:nope", "unknown_service", 404},
		{"empty", "no_endpoints", 503},
		{"10.0.0.1", "not_a_mesh_name", 404},
	} {
		if status, reason, body := shop.through(c.host, "/"); status != c.status || reason != c.reason {
			t.Errorf("%s: %d %s %q", c.host, status, reason, body)
		}
	}
	register("empty", "a2", app(t, "a2").Listener.Addr().(*net.TCPAddr).Port)
	eventually(t, "the first instance of a known service is called", func() bool {
		_, _, body := shop.through("empty", "/")
		return body == "a2"
	})
}

func TestPolicyReachesTheSidecarAndItsEndRestoresTheDefaults(t *testing.T) {
	addresses := runControlPlane(t)
	orders := "http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/orders"
	call(t, http.MethodPost, orders+"/instances", fmt.Sprintf(
		`{"id":"a1","address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, app(t, "a1").Listener.Addr().(*net.TCPAddr).Port))
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	policyOf := func() string {
		_, _, _ = shop.through("orders", "/") // so that it is known
		list := shop.clusters(t)
		if len(list) != 1 {
			return fmt.Sprint(len(list), " clusters")
		}
		return list[0].Policy
	}
	if got := policyOf(); got != "LEAST_REQUEST" {
		t.Errorf("by default %s", got)
	}
	call(t, http.MethodPut, orders+"/policy", `{"loadBalancing":"RANDOM","requestTimeout":"0.2s"}`)
	eventually(t, "the policy is in force", func() bool { return policyOf() == "RANDOM" })
	eventually(t, "the request timeout is in force", func() bool {
		status, reason, _ := shop.through("orders", "/slow")
		return status == 504 && reason == "request_timeout"
	})
	call(t, http.MethodDelete, orders+"/policy", "")
	eventually(t, "the defaults are in force", func() bool {
		return policyOf() == "LEAST_REQUEST" && strings.Contains(ask("http://"+shop.addresses.Admin.String()+"/config_dump"), `"timeout": "15s"`)
	})
}

func TestAStreamEndsOnTheConfigurationThatItBeganWith(t *testing.T) {
	goOn := make(chan struct{})
	streaming := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/stream" {
			return
		}
		_, _ = io.WriteString(w, "begun ")
		w.(http.Flusher).Flush()
		<-goOn
		_, _ = io.WriteString(w, "ended")
	}))
	defer streaming.Close()
	addresses := runControlPlane(t)
	orders := "http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/orders"
	call(t, http.MethodPost, orders+"/instances", fmt.Sprintf(
		`{"id":"a1","address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, streaming.Listener.Addr().(*net.TCPAddr).Port))
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	var streams []io.ReadCloser
	for _, over2 := range []bool{false, true} {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(!over2)
		transport.Protocols.SetUnencryptedHTTP2(over2)
		defer transport.CloseIdleConnections()
		q, err := http.NewRequest(http.MethodGet, "http://"+shop.addresses.Listeners[sidecar.Outbound].String()+"/stream", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		q.Host = "orders"
		resp, err := transport.RoundTrip(q)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		defer func() { _ = resp.Body.Close() }()
		streams = append(streams, resp.Body)
	}
	call(t, http.MethodPut, orders+"/policy", `{"loadBalancing":"RANDOM","requestTimeout":"0.05s"}`)
	eventually(t, "the policy is in force", func() bool { list := shop.clusters(t); return len(list) == 1 && list[0].Policy == "RANDOM" })
	call(t, http.MethodDelete, orders+"/instances/a1", "")
	eventually(t, "the instance is gone", func() bool {
		_, reason, _ := shop.through("orders", "/")
		return reason == "no_endpoints"
	})
	close(goOn)
	for _, stream := range streams {
		if all, err := io.ReadAll(stream); string(all) != "begun ended" || err != nil {
			t.Errorf("%q, %v", all, err)
		}
	}
}

func TestPanicThresholdOfAPolicyLetsRequestsThroughWhereBreakersWouldNot(t *testing.T) {
	addresses := runControlPlane(t)
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer failing.Close()
	orders := "http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/orders"
	call(t, http.MethodPost, orders+"/instances", fmt.Sprintf(
		`{"id":"a1","address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, failing.Listener.Addr().(*net.TCPAddr).Port))
	const breaker = `{"breaker":{"consecutiveFailures":1,"maxEjectionPercent":100,"openTime":"60s"%s}}`
	call(t, http.MethodPut, orders+"/policy", fmt.Sprintf(breaker, ""))
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	eventually(t, "its only instance is ejected", func() bool {
		status, reason, _ := shop.through("orders", "/")
		return status == 503 && reason == "no_usable_endpoint"
	})
	call(t, http.MethodPut, orders+"/policy", fmt.Sprintf(breaker, `,"panicThresholdPercent":100`))
	eventually(t, "the instance answers", func() bool {
		status, reason, _ := shop.through("orders", "/")
		return status == 500 && reason == ""
	})
}

func TestControlPlaneThatComesBackFindsEverybodyRegistered(t *testing.T) {
	dir := t.TempDir()
	addresses, stop := runControlPlaneAt(t, controlplane.Config{DataDir: dir, GRPCAddr: freeAddress(t), HTTPAddr: freeAddress(t)})
	for _, id := range []string{"o1", "o2"} {
		runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: id, AppAddr: app(t, id).Listener.Addr().String()})
	}
	eventually(t, "both are registered and well", func() bool { return registered(t, addresses, "orders") == "o1 o2" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	if status, reason, body := shop.through("orders", "/"); status != 200 {
		t.Fatal(status, reason, body)
	}
	stop()
	for range 10 {
		if status, reason, body := shop.through("orders", "/"); status != 200 {
			t.Errorf("without the control plane: %d %s %q", status, reason, body)
		}
	}
	if status, reason, _ := shop.through("never-called-before", "/"); status != 503 || reason != "control_plane_gone" {
		t.Errorf("a service that was not called before: %d %s", status, reason)
	}
	again, _ := runControlPlaneAt(t, controlplane.Config{DataDir: dir, GRPCAddr: addresses.GRPC.String(), HTTPAddr: addresses.HTTP.String()})
	for range 20 { // from the first moment on, and while they come back
		if got := registered(t, again, "orders"); got != "o1 o2" {
			t.Fatalf("registered: %q", got)
		}
		time.Sleep(100 * time.Millisecond)
	}
	eventually(t, "the sidecars are connected", func() bool { return rejected(t, "http://"+again.HTTP.String(), "o2.orders.default") == "" })
}

func TestSidecarIsTheHTTPProxyOfItsApplication(t *testing.T) {
	addresses := runControlPlane(t)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app(t, "o1").Listener.Addr().String()})
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "orders") == "o1" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop", InstanceID: "s1"})
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: shop.addresses.Listeners[sidecar.Outbound].String()})}
	defer transport.CloseIdleConnections()
	for _, host := range []string{"orders", "orders.default", "orders.default.svc.cluster.local", "orders:http"} {
		q, err := http.NewRequest(http.MethodGet, "http://orders/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		q.URL.Host = host // a port may have a name
		a, err := transport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(a.Body)
		_ = a.Body.Close()
		if a.StatusCode != http.StatusOK || string(body) != "o1" {
			t.Errorf("http://%s/: %d %q", host, a.StatusCode, body)
		}
	}
}

func TestInstanceMayHaveAnIPv6Address(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine:", err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: app(t, "six").Config.Handler, ReadHeaderTimeout: time.Minute}}
	s.Start()
	defer s.Close()
	addresses := runControlPlane(t)
	call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances",
		fmt.Sprintf(`{"id":"a1","address":"::1","ports":[{"name":"http","number":%d}],"ttl":"60s"}`, portOf(l.Addr())))
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop", InstanceID: "s1"})
	if status, reason, body := shop.through("orders", "/"); status != http.StatusOK || body != "six" {
		t.Errorf("%d %s %q", status, reason, body)
	}
}
