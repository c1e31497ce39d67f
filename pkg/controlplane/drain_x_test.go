package controlplane_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// post is through for a request that may not be sent twice.
func (b beside) post(host string) (status int, reason, body string) {
	return b.send(http.MethodPost, host, "/", strings.NewReader("order"))
}

// steadily calls again and again from several clients, until the returned function
// is called, which returns how many calls there were.
func steadily(t *testing.T, clients int, call func() (status int, reason, body string)) (asked *atomic.Int64, end func()) {
	t.Helper()
	asked = new(atomic.Int64)
	over := make(chan struct{})
	var asking sync.WaitGroup
	for range clients {
		asking.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if status, reason, body := call(); status != http.StatusOK {
					t.Errorf("%d %s %q", status, reason, body)
				}
				asked.Add(1)
			}
		})
	}
	var once sync.Once
	end = func() {
		once.Do(func() {
			close(over)
			asking.Wait()
		})
	}
	t.Cleanup(end)
	return asked, end
}

func TestSidecarThatStopsDrainsSoThatNoRequestFailsOrIsSentTwice(t *testing.T) {
	addresses := runControlPlane(t)
	var instances []beside
	for _, id := range []string{"o1", "o2"} {
		instances = append(instances, runSidecar(t, addresses.GRPC.String(), sidecar.Workload{
			Service: "orders", InstanceID: id, AppAddr: app(t, id).Listener.Addr().String(), HealthPath: "/health",
		}))
	}
	eventually(t, "both are registered and well", func() bool { return registered(t, addresses, "orders") == "o1 o2" })
	var access lockedbuf.Buffer
	shop := runSidecarWith(t, sidecar.Config{
		ControlPlane: addresses.GRPC.String(), Workload: sidecar.Workload{Service: "shop"}, AccessLog: &access, AccessLogFormat: accesslog.JSON,
	})
	// What the API says, the caller learns a moment later.
	var o1, o2 atomic.Int64
	asked, end := steadily(t, 4, func() (int, string, string) {
		status, reason, body := shop.post("orders")
		switch body {
		case "o1":
			o1.Add(1)
		case "o2":
			o2.Add(1)
		}
		return status, reason, body
	})
	eventually(t, "requests are under way to both", func() bool { return o1.Load() >= 10 && o2.Load() >= 10 })
	instances[0].stop()
	if got := registered(t, addresses, "orders"); got != "o2" {
		t.Errorf("registered when the sidecar has ended: %q", got)
	}
	before := asked.Load()
	eventually(t, "requests go on", func() bool { return asked.Load() > before+50 })
	end()
	shop.stop() // which writes out the log

	seen := sentOnce(t, &access)
	if int64(seen["o1"]) != o1.Load() || int64(seen["o2"]) != o2.Load() || o1.Load()+o2.Load() != asked.Load() {
		t.Errorf("%d requests, in the log by instance: %v", asked.Load(), seen)
	}
}

// sentOnce counts the requests of an access log by instance, and finds those that were sent twice.
func sentOnce(t *testing.T, access *lockedbuf.Buffer) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for line := range strings.Lines(access.String()) {
		var e struct {
			Instance string
			Retries  int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Retries != 0 {
			t.Errorf("sent twice: %s", line)
		}
		seen[e.Instance]++
	}
	return seen
}

func TestSidecarThatStopsBeforeItHasFoundAControlPlaneThatCameBackDrainsAllTheSame(t *testing.T) {
	dir := t.TempDir()
	addresses, stop := runControlPlaneAt(t, controlplane.Config{DataDir: dir, GRPCAddr: freeAddress(t), HTTPAddr: freeAddress(t)})
	var log lockedbuf.Buffer
	leaver := runSidecarWith(t, sidecar.Config{ControlPlane: addresses.GRPC.String(), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Workload: sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app(t, "o1").Listener.Addr().String()}})
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o2", AppAddr: app(t, "o2").Listener.Addr().String()})
	eventually(t, "both are registered and well", func() bool { return registered(t, addresses, "orders") == "o1 o2" })
	stop()
	eventually(t, "o1 asks for it seldom", func() bool { return strings.Count(log.String(), `msg="not registered"`) > 4 })
	again, _ := runControlPlaneAt(t, controlplane.Config{DataDir: dir, GRPCAddr: addresses.GRPC.String(), HTTPAddr: addresses.HTTP.String()})
	var access lockedbuf.Buffer
	shop := runSidecarWith(t, sidecar.Config{
		ControlPlane: again.GRPC.String(), Workload: sidecar.Workload{Service: "shop"}, AccessLog: &access, AccessLogFormat: accesslog.JSON,
	})
	asked, end := steadily(t, 4, func() (int, string, string) { return shop.post("orders") })
	eventually(t, "requests are under way", func() bool { return asked.Load() > 20 })
	leaver.stop()
	if got := registered(t, again, "orders"); got != "o2" {
		t.Errorf("registered when the sidecar has ended: %q", got)
	}
	before := asked.Load()
	eventually(t, "requests go on", func() bool { return asked.Load() > before+50 })
	end()
	shop.stop() // which writes out the log
	if seen := sentOnce(t, &access); seen["o1"] == 0 {
		t.Errorf("nothing was sent to the instance that left: %v", seen)
	}
}

func TestRequestUnderWayIsFinishedWhileItsInstanceDrains(t *testing.T) {
	addresses := runControlPlane(t)
	begun, held := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			close(begun)
			<-held
		}
		_, _ = io.WriteString(w, "done")
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(release)
	o1 := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: slow.Listener.Addr().String()})
	eventually(t, "it is registered and well", func() bool { return registered(t, addresses, "orders") == "o1" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	answer := make(chan string, 1)
	go func() {
		status, reason, body := shop.through("orders", "/held")
		answer <- fmt.Sprint(status, reason, body)
	}()
	select {
	case <-begun:
	case got := <-answer:
		t.Fatalf("the request did not get to the application: %s", got)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		o1.stop()
	}()
	eventually(t, "new requests have nowhere to go", func() bool {
		status, reason, _ := shop.through("orders", "/")
		return status == 503 && (reason == "no_usable_endpoint" || reason == "no_endpoints")
	})
	select {
	case <-stopped:
		t.Error("the sidecar has ended under a request")
	case <-time.After(100 * time.Millisecond):
	}
	release()
	if got := <-answer; got != "200done" {
		t.Errorf("the request under way: %s", got)
	}
	<-stopped
}

// A peer that does not say that it has applied the drain holds it up for a bound.
func TestDrainDoesNotWaitForEverForAPeerThatSaysNothing(t *testing.T) {
	addresses := runControlPlane(t)
	o1 := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app(t, "o1").Listener.Addr().String()})
	eventually(t, "it is registered and well", func() bool { return registered(t, addresses, "orders") == "o1" })
	silent := dialADS(t, addresses, "silent")
	silent.subscribe(codec.TypeEndpoints, "orders.default:http")
	silent.receive()
	began := time.Now()
	o1.stop()
	if took := time.Since(began); took < time.Second || took > 6*time.Second {
		t.Errorf("it stopped after %v", took)
	}
	if got := registered(t, addresses, "orders"); got != "" {
		t.Errorf("registered: %q", got)
	}
}
