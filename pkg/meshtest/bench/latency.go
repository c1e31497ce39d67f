package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// latencySuite is requests that begin at fixed times, whatever becomes of those before. The time without a proxy,
// in the same round, is taken off.
func latencySuite() suite {
	bars := []bar{{than: "envoy", must: 1}, {than: "haproxy", aim: 1}}
	return suite{
		name: "latency", title: "Added latency at 1,000 requests/s", unit: "added µs",
		backend:   nginxProgram("http1/backend.conf"),
		generator: "bench",
		proxies: []proxy{
			{name: "direct", title: "no proxy (all of it)"},
			fairlead(traceBy(getHTTP1), "http1/fairlead.yaml"),
			nginx("http1/nginx.conf"),
			haproxy("http1/haproxy.cfg"),
			envoy("http1/envoy.yaml"),
		},
		subject: "fairlead", reference: "haproxy", baseline: "direct", right: "200",
		workloads: []workload{{name: "p50", body: 100, bars: bars}, {name: "p99", body: 100, bars: bars}, {name: "p99.9", body: 100, bars: bars}},
		probe:     probeBy(getHTTP1),
		measure:   measureLatency,
	}
}

// measureLatency takes twice as long as other samples: of 1,000 requests one makes the last percentile.
func measureLatency(ctx context.Context, m *measurement, r running) (map[string]float64, int64, error) {
	_, cores := m.cores(r.suite)
	var seen latencies
	for _, d := range []time.Duration{m.warmUp, 2 * m.duration} {
		err := m.tools.runRole(ctx, cores, &seen, latencyLoad, "-port", strconv.Itoa(r.port), "-path", "/100",
			"-response", strconv.FormatInt(r.responseBytes, 10), "-duration", d.String())
		if err != nil {
			return nil, 0, err
		}
	}
	return map[string]float64{"p50": seen.P50, "p99": seen.P99, "p99.9": seen.P999}, seen.Requests, nil
}

// latencies are from the time at which a request was to begin until its response was whole, in microseconds.
type latencies struct {
	Requests int64   `json:"requests"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	P999     float64 `json:"p999_us"`
}

// latenciesOf takes at least one.
func latenciesOf(all []time.Duration) latencies {
	slices.Sort(all)
	return latencies{Requests: int64(len(all)), P50: quantile(all, 0.5), P99: quantile(all, 0.99), P999: quantile(all, 0.999)}
}

// quantile is the least of the sorted values that so large a share of them does not exceed (nearest rank), in microseconds.
func quantile(sorted []time.Duration, share float64) float64 {
	rank := int(math.Ceil(share * float64(len(sorted))))
	return float64(sorted[max(rank, 1)-1].Nanoseconds()) / 1e3
}

// latencyWork is an open loop: request n begins n/rate seconds after the first, if a connection is free; if not, it
// begins late, and the time that it waited counts, so that slow responses do not hide the requests that they hold up.
type latencyWork struct {
	port        int
	path        string
	connections int   // at least 1
	rate        int   // requests per second, at least 1
	response    int64 // bytes of each
	duration    time.Duration
}

// due is when request n is to begin, from the beginning of the first.
func (w latencyWork) due(n int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(w.rate)
}

// loadLatency works as its flags say, and writes the latencies as JSON.
func loadLatency(_ context.Context, args []string, out io.Writer) error {
	var w latencyWork
	set := flag.NewFlagSet(latencyLoad, flag.ContinueOnError)
	set.SetOutput(io.Discard) // the error says it
	set.IntVar(&w.port, "port", 0, "")
	set.StringVar(&w.path, "path", "/", "")
	set.IntVar(&w.connections, "connections", 32, "")
	set.IntVar(&w.rate, "rate", 1000, "")
	set.Int64Var(&w.response, "response", 0, "")
	set.DurationVar(&w.duration, "duration", time.Second, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	all, err := w.run()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(latenciesOf(all))
}
