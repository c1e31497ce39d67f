package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// http2Suite is HTTP/2 in and out, in the clear and with prior knowledge. The backend is
// HAProxy: it answers at a third of what NGINX takes, so the load's core is less of a limit.
func http2Suite() suite {
	many := []bar{{than: "haproxy", must: 1.3, aim: 0.9}, {than: "envoy", must: 0.4, aim: 0.2}}
	one := []bar{{than: "haproxy", must: 1.15, aim: 1}, {than: "envoy", must: 0.7, aim: 0.6}}
	return suite{
		name: "http2", title: "HTTP/2",
		backend:   haproxyProgram("http2/backend.cfg"),
		generator: "h2load",
		proxies: []proxy{
			fairlead(traceBy(getHTTP2), "http2/fairlead.yaml"),
			haproxy("http2/haproxy.cfg"),
			envoy("http2/envoy.yaml"),
		},
		subject: "fairlead", reference: "haproxy", right: "200", unit: perRequest,
		workloads: []workload{
			{name: "4x32-100B", connections: 4, streams: 32, body: 100, bars: many},
			{name: "16x1-100B", connections: 16, streams: 1, body: 100, bars: one},
			{name: "4x32-10kB", connections: 4, streams: 32, body: 10_000, bars: many},
			{name: "16x1-10kB", connections: 16, streams: 1, body: 10_000, bars: one},
		},
		probe: probeBy(getHTTP2),
		load:  runH2load,
	}
}

// getHTTP2 returns the body of a response, and its bytes without the head, whose compressed
// size depends on the connection's past.
func getHTTP2(ctx context.Context, port int, path string) ([]byte, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	transport := http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, 0, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, 0, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("%s: %s", path, response.Status)
	}
	return body, int64(len(body)), nil
}
