package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// sidecar is Fairlead's program with a bootstrap file. Ratio 0 samples nothing but what a
// caller has sampled: each request gets a trace context, none a span. So no collector is called.
func sidecar(config string) program {
	return program{
		binary: "sidecar", config: config,
		env: []string{"GOMAXPROCS=1"},
		args: []string{"--bootstrap", "{config}", "--access-log", "off", "--log-level", "error",
			"--otlp-endpoint", "grpc://127.0.0.1:4317", "--trace-ratio", "0", "--drain-timeout", "1s"},
	}
}

// fairlead is a chain of sidecars.
func fairlead(trace tracer, configs ...string) proxy {
	p := proxy{name: "fairlead", title: "Fairlead", version: []string{"--version"}}
	for _, config := range configs {
		p.chain = append(p.chain, sidecar(config))
	}
	p.verify = func(ctx context.Context, chain []setting) error { return verifyFairlead(ctx, trace, chain) }
	return p
}

// tracer returns the trace context with which a request to the port arrives at the backend.
type tracer func(ctx context.Context, port int) ([]byte, error)

func traceBy(get getter) tracer {
	return func(ctx context.Context, port int) ([]byte, error) {
		body, _, err := get(ctx, port, "/traceparent")
		return body, err
	}
}

// getter returns the body of a response, which was 200, and the bytes of the response, as many
// as the generator of the load counts.
type getter func(ctx context.Context, port int, path string) (body []byte, size int64, err error)

// verifyFairlead asks the running sidecars for what their figures are said to include:
// a trace context on each request, requests balanced over the hosts with a breaker
// for each, and metrics.
func verifyFairlead(ctx context.Context, trace tracer, chain []setting) error {
	parent, err := trace(ctx, chain[0].Listen)
	if err != nil {
		return err
	}
	if len(parent) == 0 {
		return errors.New("it sends no trace context")
	}
	for _, s := range chain {
		clusters, _, err := getHTTP1(ctx, s.Admin, "/clusters?format=json")
		if err != nil {
			return err
		}
		if err := verifyHosts(clusters, len(s.Backends)); err != nil {
			return err
		}
		metrics, _, err := getHTTP1(ctx, s.Admin, "/stats/prometheus")
		if err != nil {
			return err
		}
		if err := verifyMetrics(metrics); err != nil {
			return err
		}
	}
	return nil
}

// hostStatus is what the admin port says of a host.
type hostStatus struct {
	Breaker  string `json:"breaker"`
	Requests uint64 `json:"rq_total"`
	Failures uint64 `json:"rq_error"`
	Idle     int    `json:"cx_idle"` // connections without a request
}

// hostsOf reads the admin port's answer for clusters, of which there is one.
func hostsOf(data []byte) ([]hostStatus, error) {
	var answer struct {
		Clusters []struct {
			Hosts []hostStatus `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("its clusters: %w", err)
	}
	if len(answer.Clusters) != 1 {
		return nil, fmt.Errorf("it has not one cluster: %s", data)
	}
	return answer.Clusters[0].Hosts, nil
}

// verifyHosts reads the admin port's answer for clusters. One backend has at most
// twice the requests of another: they are balanced in turn.
func verifyHosts(data []byte, backends int) error {
	hosts, err := hostsOf(data)
	if err != nil {
		return err
	}
	if len(hosts) != backends {
		return fmt.Errorf("it has not the %d backends in one cluster: %s", backends, data)
	}
	for _, h := range hosts {
		if h.Breaker != "closed" || h.Failures > 0 {
			return fmt.Errorf("a breaker is %q after %d failures", h.Breaker, h.Failures)
		}
		if h.Requests < hosts[0].Requests/2 || h.Requests/2 > hosts[0].Requests {
			return fmt.Errorf("it does not balance: %d requests to one backend, %d to another", hosts[0].Requests, h.Requests)
		}
	}
	return nil
}

// verifyMetrics wants a counter of requests that has counted.
func verifyMetrics(text []byte) error {
	if err := verifyCounted(text, "fairlead_requests_total"); err != nil {
		return errors.New("its metrics have counted no request")
	}
	return nil
}

// verifyCounted wants a counter of the family that has counted.
func verifyCounted(text []byte, family string) error {
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, family+"{") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			return nil
		}
	}
	return fmt.Errorf("its metrics have counted no %s", family)
}
