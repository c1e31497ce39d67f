package main

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

// measuredResult is two proxies in three rounds of a machine that gets slower and slower:
// the cost triples, the ratio stays.
func measuredResult() result {
	s := suite{name: "http1", title: "HTTP/1.1", subject: "fairlead", reference: "nginx", unit: perRequest, right: "200",
		proxies:   []proxy{{name: "fairlead", title: "Fairlead"}, {name: "nginx", title: "NGINX"}},
		workloads: []workload{{name: "32c-100B", bars: []bar{{than: "nginx", must: 0.95, aim: 0.8}, {than: "envoy", must: 0.5}, {must: 40}}}}}
	r := result{
		When:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Machine: measure.Machine{Kernel: "6.1", CPU: "a CPU", Cores: 2, LoadAverage: "0.05"},
		Rounds:  3, Seconds: 4, WarmUpSeconds: 1,
		Versions: map[string]string{"fairlead": "sidecar version 1", "nginx": "nginx version: nginx/1.22.1"},
		Skipped:  []skipped{{Suite: "http1", Proxy: "envoy", Why: "envoy is not installed"}},
	}
	for round := range 3 {
		for _, p := range s.proxies {
			cost := 20 * float64(round+1)
			if p.name == "fairlead" {
				cost *= 0.9
			}
			r.Samples = append(r.Samples, sample{Suite: s.name, Workload: "32c-100B", Proxy: p.name, Round: round + 1,
				Load: load{Requests: 100}, Value: cost, RequestsPerSecond: 1e6 / cost, Busy: 1, RSS: 15e6, Anonymous: 6e6})
		}
	}
	r.Suites = []summary{summarize(s, r.Samples)}
	r.Verdicts = verdicts([]suite{s}, r.Suites)
	return r
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	f := measuredResult().Suites[0].Figures[0]
	if f.Value != (measure.Spread{Median: 36, Min: 18, Max: 54}) {
		t.Errorf("cost %+v", f.Value)
	}
	for _, end := range []float64{f.Ratios["nginx"].Min, f.Ratios["nginx"].Median, f.Ratios["nginx"].Max} {
		if end < 0.8999 || end > 0.9001 {
			t.Errorf("ratio %+v", f.Ratios["nginx"])
		}
	}
}

func TestTheTableSaysWhatWasMeasuredAndWhatWasSkipped(t *testing.T) {
	golden(t, "table.md", markdown(measuredResult()))
}

func TestWithoutTheReferenceThereAreNoRatios(t *testing.T) {
	r := measuredResult()
	r.Samples, r.Verdicts = r.Samples[:1], nil
	alone := suite{name: "http1", title: "HTTP/1.1", subject: "fairlead", reference: "nginx", unit: perRequest, right: "200",
		proxies: []proxy{{name: "fairlead", title: "Fairlead"}}, workloads: []workload{{name: "32c-100B"}}}
	r.Suites = []summary{summarize(alone, r.Samples)}
	golden(t, "table-alone.md", markdown(r))
}

func TestConfigurationsAreShownWithTheirCommands(t *testing.T) {
	text, err := configurations(suites())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"GOMAXPROCS=1 sidecar --bootstrap fairlead.yaml", "envoy --concurrency 1", "haproxy -db -f haproxy.cfg",
		"http-reuse always", "keepalive 512;", "outlier_detection:", "HTTP/1.1, the backend of all", "HTTP/2, HAProxy", "Mesh: mutual TLS between two proxies, HAProxy", "Fairlead, 2 of 2",
		"HTTP/2, Envoy (and of gRPC)", "HTTP/1.1, NGINX (and of Added latency at 1,000 requests/s; Memory)", "TLS handshakes, HAProxy (and of Memory, TLS)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestATableOfABusyMachineSaysSo(t *testing.T) {
	for average, want := range map[string]bool{"0.99": false, "1.00": true, "26.79": true, "": false} {
		r := measuredResult()
		r.Machine.LoadAverage = average
		if got := strings.Contains(markdown(r), "was not quiet"); got != want {
			t.Errorf("%q: %t", average, got)
		}
	}
}
