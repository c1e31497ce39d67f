package controlplane_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
)

// scrape returns the values of the metrics of sagas, by name and labels.
func scrape(t *testing.T, ask func(method, path, body string) (int, string)) map[string]float64 {
	t.Helper()
	_, text := ask("GET", "/metrics", "")
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(name, "fairlead_saga") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all[name] = v
	}
	return all
}

func expectSagas(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if g, ok := got[name]; !ok || g != v {
			t.Errorf("%s is %v (%v), want %v", name, g, ok, v)
		}
	}
}

func TestMetricsSayWhereSagasStandAndWhatCameOfTheirCalls(t *testing.T) {
	called := &steps{hold: make(chan struct{})}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	ask, stop := startSagas(t, config)
	const parked = `{"id":"parked","steps":[
 {"name":"a","action":{"service":"orders.shop","path":"/a"},"compensate":{"service":"orders.shop","path":"/break"},"retry":{"attempts":1}},
 {"name":"b","action":{"service":"orders.shop","path":"/refuse"}}]}`
	for _, definition := range []string{sagaOf("done", "/a", "/later"), sagaOf("undone", "/a", "/refuse"), sagaOf("held", "/a", "/hold"), parked} {
		if status, body := ask("POST", "/v1/sagas", definition); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	for _, id := range []string{"done", "undone", "parked"} {
		ask("GET", "/v1/sagas/"+id+":wait?timeout=20s", "")
	}
	eventually(t, "the saga that is held is", func() bool { return strings.Contains(called.String(), "held/s1/action") })
	stands := map[string]float64{
		`fairlead_sagas{state="running"}`: 1, `fairlead_sagas{state="compensating"}`: 0, `fairlead_sagas{state="parked"}`: 1,
		`fairlead_sagas{state="completed"}`: 1, `fairlead_sagas{state="compensated"}`: 1, `fairlead_saga_shards`: 8,
	}
	got := scrape(t, ask)
	expectSagas(t, got, stands)
	expectSagas(t, got, map[string]float64{
		`fairlead_saga_calls_total{answer="done",kind="action"}`: 5, `fairlead_saga_calls_total{answer="pending",kind="action"}`: 1,
		`fairlead_saga_calls_total{answer="refused",kind="action"}`: 2, `fairlead_saga_calls_total{answer="unknown",kind="action"}`: 0,
		`fairlead_saga_calls_total{answer="not_run",kind="action"}`:  0,
		`fairlead_saga_calls_total{answer="done",kind="compensate"}`: 1, `fairlead_saga_calls_total{answer="unknown",kind="compensate"}`: 1,
		`fairlead_saga_call_duration_seconds_count{answer="done",kind="action"}`:        5,
		`fairlead_saga_call_duration_seconds_count{answer="unknown",kind="compensate"}`: 1,
		`fairlead_saga_refused_starts_total`:                                            0,
	})
	batches, ops := got["fairlead_saga_batch_operations_count"], got["fairlead_saga_batch_operations_sum"]
	if batches < 1 || ops < batches || got["fairlead_saga_commit_duration_seconds_count"] != batches || got["fairlead_saga_commit_duration_seconds_sum"] <= 0 {
		t.Errorf("%v batches of %v operations in all: %v", batches, ops, got)
	}

	// One that takes over counts what it finds, and a person's word moves a saga.
	stop()
	egress.CloseClientConnections()
	ask, _ = startSagas(t, config)
	eventually(t, "all is counted that was there before", func() bool {
		got = scrape(t, ask)
		for name, v := range stands {
			if got[name] != v {
				return false
			}
		}
		return true
	})
	for _, verb := range []struct{ name, body string }{{"resolve", `{"step":"a","as":"compensated"}`}, {"resume", `{}`}} {
		if status, body := ask("POST", "/v1/sagas/parked:"+verb.name, verb.body); status != 200 {
			t.Fatalf("%s: %d %s", verb.name, status, body)
		}
	}
	if _, body := ask("GET", "/v1/sagas/parked:wait?timeout=20s", ""); stateOf(t, body) != "compensated" {
		t.Error(body)
	}
	close(called.hold)
	ask("GET", "/v1/sagas/held:wait?timeout=20s", "")
	expectSagas(t, scrape(t, ask), map[string]float64{
		`fairlead_sagas{state="running"}`: 0, `fairlead_sagas{state="parked"}`: 0, `fairlead_sagas{state="completed"}`: 2, `fairlead_sagas{state="compensated"}`: 2,
	})
}

func TestCallsThatNeverLeftAreCountedAsNotRun(t *testing.T) {
	egress := httptest.NewServer(http.NotFoundHandler())
	egress.Close() // nobody listens there any more
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	ask, _ := startSagas(t, config)
	ask("POST", "/v1/sagas", `{"id":"a","steps":[{"name":"a","action":{"service":"orders.shop","path":"/a"},"retry":{"attempts":2,"backoff":"1ms"}}]}`)
	if _, body := ask("GET", "/v1/sagas/a:wait?timeout=20s", ""); stateOf(t, body) != "compensated" {
		t.Error(body)
	}
	expectSagas(t, scrape(t, ask), map[string]float64{`fairlead_saga_calls_total{answer="not_run",kind="action"}`: 2})
}

func TestSagasThatAFullStoreRefusesAreCounted(t *testing.T) {
	etcd, err := etcdembed.Start(t.Context(), etcdembed.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", QuotaBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = etcd.Stop() })
	for i := range 10 {
		if _, err := etcd.Store().Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(fmt.Sprint(store.Root, "other/", i), make([]byte, 500<<10))}}); err != nil {
			t.Fatal(err)
		}
	}
	egress := httptest.NewServer(&steps{})
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress, config.SagaEtcdEndpoints = egress.Listener.Addr().String(), []string{"http://" + etcd.Listen()}
	ask, _ := startSagas(t, config)
	n := 0
	eventually(t, "a saga is refused", func() bool {
		n++
		status, _ := ask("POST", "/v1/sagas", sagaOf(fmt.Sprint("order-", n), "/a"))
		return status == http.StatusTooManyRequests
	})
	expectSagas(t, scrape(t, ask), map[string]float64{"fairlead_saga_refused_starts_total": 1})
	ask("POST", "/v1/sagas", sagaOf("another", "/a"))
	expectSagas(t, scrape(t, ask), map[string]float64{"fairlead_saga_refused_starts_total": 2})
}
