package metrics

import (
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// values returns the samples of a family as "label values" → value.
func values(t *testing.T, r *Registry, family string) map[string]float64 {
	t.Helper()
	samples, err := r.Samples()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, s := range samples {
		if s.Name != family {
			continue
		}
		var labels []string
		for _, l := range s.Labels {
			labels = append(labels, l.Name+"="+l.Value)
		}
		got[strings.Join(labels, " ")] = s.Value
	}
	return got
}

func expect(t *testing.T, r *Registry, family string, want map[string]float64) {
	t.Helper()
	if got := values(t, r, family); !maps.Equal(got, want) {
		t.Errorf("%s\n got %v\nwant %v", family, got, want)
	}
}

func TestRequestsAreCountedBySourceDestinationCodeAndReason(t *testing.T) {
	r := New(Config{})
	p := NewProxy(r, []string{"none", "no_host"})
	orders := p.Destination("client.default", "orders.default")
	for range 3 {
		orders.Begin()
	}
	orders.Done(200, 0, 2*time.Millisecond, 10, 100)
	orders.Done(503, 1, 500*time.Microsecond, 0, 20)
	const ok = "code=200 destination=orders.default reason=none source=client.default"
	const failed = "code=503 destination=orders.default reason=no_host source=client.default"
	expect(t, r, "fairlead_requests_total", map[string]float64{ok: 1, failed: 1})
	expect(t, r, "fairlead_request_duration_seconds_count", map[string]float64{ok: 1, failed: 1})
	expect(t, r, "fairlead_request_duration_seconds_sum", map[string]float64{ok: 0.002, failed: 0.0005})
	expect(t, r, "fairlead_request_bytes_total", map[string]float64{ok: 10, failed: 0})
	expect(t, r, "fairlead_response_bytes_total", map[string]float64{ok: 100, failed: 20})
	expect(t, r, "fairlead_requests_in_flight", map[string]float64{"destination=orders.default source=client.default": 1})
}

func TestARequestThatIsHandedOverIsInFlightOnce(t *testing.T) {
	r := New(Config{})
	p := NewProxy(r, []string{"none"})
	unknown, orders := p.Destination("client", "unknown"), p.Destination("client", "orders")
	unknown.Begin()
	unknown.HandOver(orders)
	const inFlight, ofUnknown, ofOrders = "fairlead_requests_in_flight", "destination=unknown source=client", "destination=orders source=client"
	expect(t, r, inFlight, map[string]float64{ofUnknown: 0, ofOrders: 1})
	orders.Done(200, 0, 0, 0, 0)
	expect(t, r, inFlight, map[string]float64{ofUnknown: 0, ofOrders: 0})
}

func TestCodesAndReasonsOutsideTheirTablesAreCounted(t *testing.T) {
	r := New(Config{})
	h := NewProxy(r, []string{"none"}).Destination("a", "b")
	for _, code := range []int{0, -1, 99, 600, 999} {
		h.Done(code, 0, 0, 0, 0)
	}
	h.Done(100, 0, 0, 0, 0)
	h.Done(599, 0, -time.Second, 0, 0)
	h.Done(200, 1, 0, 0, 0)
	h.Done(200, -1, 0, 0, 0)
	expect(t, r, "fairlead_requests_total", map[string]float64{
		"code=0 destination=b reason=none source=a":              5,
		"code=100 destination=b reason=none source=a":            1,
		"code=599 destination=b reason=none source=a":            1,
		"code=other destination=other reason=other source=other": 2,
	})
}

func TestBucketsAgreeWithTheBoundsThatAreExposed(t *testing.T) {
	bounds := DurationBuckets()
	if len(bounds)+1 != bucketCount {
		t.Fatalf("%d bounds, %d buckets", len(bounds), bucketCount)
	}
	for i, bound := range bounds {
		d := time.Duration(bound * float64(time.Second))
		if got := bucketOf(d); got != i {
			t.Errorf("%v is in bucket %d, want %d", d, got, i)
		}
		if got := bucketOf(d + 1); got != i+1 {
			t.Errorf("%v is in bucket %d, want %d", d+1, got, i+1)
		}
	}
}

func TestPairsPastTheCapShareOther(t *testing.T) {
	r := New(Config{MaxSeries: 4}) // two pairs
	p := NewProxy(r, []string{"none"})
	for i := range 100 {
		h := p.Destination("s", fmt.Sprintf("host-%d", i))
		h.Begin()
		h.Done(200, 0, 0, 0, 0)
	}
	expect(t, r, "fairlead_requests_total", map[string]float64{
		"code=200 destination=host-0 reason=none source=s":    1,
		"code=200 destination=host-1 reason=none source=s":    1,
		"code=200 destination=other reason=none source=other": 98,
	})
	p.Remove("s", "host-0")
	if p.Destination("s", "late") == p.others {
		t.Error("the room of a removed pair is not used")
	}
	if p.Destination("s", "later") != p.others {
		t.Error("more pairs than the cap")
	}
}

func TestSeriesPastTheCapAreCountedAsOtherAndSumsStayRight(t *testing.T) {
	const limit = 10
	r := New(Config{MaxSeries: limit})
	h := NewProxy(r, []string{"none"}).Destination("s", "d")
	for range 2 {
		for code := 100; code < 600; code++ {
			h.Done(code, 0, time.Millisecond, 1, 1)
		}
	}
	got := values(t, r, "fairlead_requests_total")
	if len(got) != limit+1 {
		t.Errorf("%d series, want %d and one of other", len(got), limit)
	}
	var sum float64
	for _, v := range got {
		sum += v
	}
	if sum != 1000 {
		t.Errorf("they count %v requests, want 1000", sum)
	}
}

func TestRemovedPairsVanishAndTheirRequestsInFlightDoNoHarm(t *testing.T) {
	r := New(Config{MaxSeries: 4})
	p := NewProxy(r, []string{"none"})
	for i := range 10 {
		d := fmt.Sprintf("d%d", i)
		h := p.Destination("s", d)
		h.Begin()
		p.Destination("s", d).Done(200, 0, 0, 0, 0)
		h.Begin()
		p.Remove("s", d)
		p.Remove("s", d)
		h.Done(200, 0, 0, 0, 0) // known series: gone with the pair
		h.Done(503, 0, 0, 0, 0) // new series: nowhere to go but other
	}
	expect(t, r, "fairlead_requests_total", map[string]float64{
		"code=other destination=other reason=other source=other": 10,
	})
	if p.series != 0 || len(p.pairs) != 0 {
		t.Errorf("%d series and %d pairs are left", p.series, len(p.pairs))
	}
}

func TestConcurrentRequestsAreAllCounted(t *testing.T) {
	r := New(Config{})
	p := NewProxy(r, []string{"none", "x"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			h := p.Destination("s", "d")
			for i := range 1000 {
				h.Begin()
				h.Done(100+i%500, i%2, time.Millisecond, 1, 1)
			}
			values(t, r, "fairlead_requests_total")
		})
	}
	wg.Wait()
	var sum float64
	for _, v := range values(t, r, "fairlead_requests_total") {
		sum += v
	}
	if sum != 8000 {
		t.Errorf("counted %v of 8000", sum)
	}
	expect(t, r, "fairlead_requests_in_flight", map[string]float64{"destination=d source=s": 0})
}

func TestFamiliesPastTheCapFallToOther(t *testing.T) {
	r := New(Config{MaxSeries: 2})
	v := r.CounterVec("fairlead_things_total", "Things.", "kind", "host")
	for _, kind := range []string{"a", "b", "c", "d", "a"} {
		v.With(kind, "h").Inc()
	}
	expect(t, r, "fairlead_things_total", map[string]float64{
		"host=h kind=a": 2, "host=h kind=b": 1, "host=other kind=other": 2,
	})
}

func TestHistogramsCountByBucketAndPastTheCapFallToOther(t *testing.T) {
	r := New(Config{MaxSeries: 1})
	v := r.HistogramVec("fairlead_sizes", "Sizes.", []float64{1, 10}, "kind")
	for _, size := range []float64{1, 2, 100} {
		v.With("a").Observe(size)
	}
	v.With("b").Observe(5)
	v.With("c").Observe(6)
	expect(t, r, "fairlead_sizes_count", map[string]float64{"kind=a": 3, "kind=other": 2})
	expect(t, r, "fairlead_sizes_sum", map[string]float64{"kind=a": 103, "kind=other": 11})
	scrape := httptest.NewRecorder()
	r.Handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{`kind="a",le="1"} 1`, `kind="a",le="10"} 2`, `kind="a",le="+Inf"} 3`} {
		if !strings.Contains(scrape.Body.String(), "fairlead_sizes_bucket{"+line) {
			t.Errorf("%s is not in\n%s", line, scrape.Body)
		}
	}
}

func TestFamiliesOfOneSeriesAreReadAtEachScrape(t *testing.T) {
	r := New(Config{})
	count, gauge := uint64(5), 6.5
	r.CounterFunc("fairlead_cf_total", "CF.", func() uint64 { return count })
	r.GaugeFunc("fairlead_gf", "GF.", func() float64 { return gauge })
	expect(t, r, "fairlead_cf_total", map[string]float64{"": 5})
	expect(t, r, "fairlead_gf", map[string]float64{"": 6.5})
	count, gauge = 7, -1
	expect(t, r, "fairlead_cf_total", map[string]float64{"": 7})
	expect(t, r, "fairlead_gf", map[string]float64{"": -1})
}

func TestLiveStateIsReadAtEachScrapeWithinTheCap(t *testing.T) {
	r := New(Config{MaxSeries: 2})
	hosts := []string{"a", "b", "c", "d", "a"}
	r.Collect("fairlead_hosts", "Hosts.", KindGauge, []string{"host"}, func(emit Emit) {
		for _, h := range hosts {
			emit(1, h)
		}
	})
	r.Collect("fairlead_seen_total", "Seen.", KindCounter, nil, func(emit Emit) { emit(7) })
	expect(t, r, "fairlead_hosts", map[string]float64{"host=a": 2, "host=b": 1, "host=other": 2})
	expect(t, r, "fairlead_seen_total", map[string]float64{"": 7})
	hosts = []string{"c"}
	expect(t, r, "fairlead_hosts", map[string]float64{"host=c": 1})
}

func TestHostileLabelValuesBecomeValidAndBounded(t *testing.T) {
	r := New(Config{})
	v := r.CounterVec("fairlead_v_total", "V.", "l")
	v.With("\xff\xfe").Inc()
	v.With(strings.Repeat("é", 1000)).Inc()
	NewProxy(r, []string{"none"}).Destination("\xc3", "x\ny\"").Done(200, 0, 0, 0, 0)
	for labels := range values(t, r, "fairlead_v_total") {
		if len(labels) > maxLabelValue+len("l=") || strings.ContainsRune(labels[2:], '\xff') {
			t.Errorf("label %q", labels)
		}
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if want := `destination="x\ny\"",reason="none",source="` + "\uFFFD"; !strings.Contains(w.Body.String(), want) {
		t.Errorf("no %s in\n%s", want, w.Body.String())
	}
}

func TestLiteralOtherDoesNotClashWithTheSeriesOfTheCap(t *testing.T) {
	r := New(Config{MaxSeries: 2})
	p := NewProxy(r, []string{"none"})
	p.Destination(Other, Other).Done(200, 0, 0, 0, 0)
	p.Destination("a", "a")
	p.Destination("b", "b").Done(200, 0, 0, 0, 0)
	expect(t, r, "fairlead_requests_total", map[string]float64{
		"code=200 destination=other reason=none source=other": 2,
	})
}

func TestHandlerSpeaksTextAndOpenMetrics(t *testing.T) {
	r := New(Config{Runtime: true})
	NewProxy(r, []string{"none"}).Destination("s", "d").Done(200, 0, 3*time.Millisecond, 0, 0)
	for accept, want := range map[string][]string{
		"": {
			`fairlead_requests_total{code="200",destination="d",reason="none",source="s"} 1`,
			`fairlead_request_duration_seconds_bucket{code="200",destination="d",reason="none",source="s",le="0.0025"} 0`,
			`fairlead_request_duration_seconds_bucket{code="200",destination="d",reason="none",source="s",le="0.005"} 1`,
			`fairlead_request_duration_seconds_bucket{code="200",destination="d",reason="none",source="s",le="+Inf"} 1`,
			"# TYPE fairlead_requests_in_flight gauge", "go_goroutines ", "process_open_fds ", "go_build_info",
		},
		"application/openmetrics-text; version=1.0.0": {"# TYPE fairlead_requests counter", "# EOF"},
	} {
		req := httptest.NewRequest("GET", "/metrics", nil)
		req.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, req)
		lines := strings.Split(w.Body.String(), "\n")
		for _, line := range want {
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, line) }) {
				t.Errorf("Accept %q: no line %q in\n%s", accept, line, w.Body.String())
			}
		}
	}
}

func TestRegistriesOfOneProcessAreApart(t *testing.T) {
	a, b := New(Config{}), New(Config{})
	NewProxy(a, []string{"none"}).Destination("s", "d").Done(200, 0, 0, 0, 0)
	NewProxy(b, []string{"none"})
	expect(t, b, "fairlead_requests_total", map[string]float64{})
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	r := New(Config{})
	h := NewProxy(r, []string{"none", "x"}).Destination("s", "d")
	h.Done(200, 0, 0, 0, 0)
	c := r.CounterVec("fairlead_c_total", "C.").With()
	d := r.HistogramVec("fairlead_d_seconds", "D.", DurationBuckets()).With()
	if n := testing.AllocsPerRun(1000, func() {
		h.Begin()
		h.Done(200, 0, 3*time.Millisecond, 10, 100)
		c.Inc()
		d.Observe(0.003)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCallsAreCountedByWhatTheirTrailersSaid(t *testing.T) {
	r := New(Config{MaxSeries: 4})
	p := NewProxy(r, []string{"none"}).GRPC([]string{"OK", "CANCELLED", "UNKNOWN"})
	orders, users := p.Destination("a", "orders"), p.Destination("a", "users")
	for _, status := range []int{0, 0, 1, -1, 3} {
		orders.Call(status)
	}
	const family = "fairlead_grpc_calls_total"
	expect(t, r, family, map[string]float64{"destination=orders grpc_status=OK source=a": 2, "destination=orders grpc_status=CANCELLED source=a": 1})
	for range 2 {
		for status := range 3 {
			users.Call(status)
		}
	}
	const other = "destination=other grpc_status=other source=other"
	expect(t, r, family, map[string]float64{
		"destination=orders grpc_status=OK source=a": 2, "destination=orders grpc_status=CANCELLED source=a": 1,
		"destination=users grpc_status=OK source=a": 2, "destination=users grpc_status=CANCELLED source=a": 2, other: 2,
	})
	p.Remove("a", "orders") // which makes room
	p.Destination("a", "items").Call(2)
	expect(t, r, family, map[string]float64{
		"destination=items grpc_status=UNKNOWN source=a": 1,
		"destination=users grpc_status=OK source=a":      2, "destination=users grpc_status=CANCELLED source=a": 2, other: 2,
	})
	if allocs := testing.AllocsPerRun(100, func() { users.Call(0) }); allocs > 0 {
		t.Errorf("%v allocations per call", allocs)
	}
}
