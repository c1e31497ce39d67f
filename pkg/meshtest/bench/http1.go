package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// http1Suite is HTTP/1.1 in and out, connections kept on both sides.
func http1Suite() suite {
	bars := []bar{{than: "nginx", must: 1.15, aim: 1}, {than: "haproxy", must: 1.15, aim: 1}, {than: "envoy", must: 0.55, aim: 0.45}}
	return suite{
		name: "http1", title: "HTTP/1.1",
		backend:   nginxProgram("http1/backend.conf"),
		generator: "wrk",
		proxies: []proxy{
			fairlead(traceBy(getHTTP1), "http1/fairlead.yaml"),
			nginx("http1/nginx.conf"),
			haproxy("http1/haproxy.cfg"),
			envoy("http1/envoy.yaml"),
		},
		subject: "fairlead", reference: "nginx", right: "200", unit: perRequest,
		workloads: []workload{
			{name: "32c-100B", connections: 32, streams: 1, body: 100, bars: bars},
			{name: "32c-10kB", connections: 32, streams: 1, body: 10_000, bars: bars},
			{name: "256c-100B", connections: 256, streams: 1, body: 100, bars: bars},
			{name: "256c-10kB", connections: 256, streams: 1, body: 10_000, bars: bars},
		},
		probe: probeBy(getHTTP1),
		load:  runWrk,
	}
}

// probeBy sends the request that the load sends.
func probeBy(get getter) func(ctx context.Context, port int, w workload) (int64, error) {
	return func(ctx context.Context, port int, w workload) (int64, error) {
		body, size, err := get(ctx, port, w.path())
		if err != nil {
			return 0, err
		}
		if len(body) != w.body {
			return 0, fmt.Errorf("the response has %d bytes, not %d", len(body), w.body)
		}
		return size, nil
	}
}

// counter counts the bytes that are read through it.
type counter struct {
	io.Reader
	read int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += int64(n)
	return n, err
}

// getHTTP1 returns the body of a response and the bytes of all of it, head included: so
// wrk counts them.
func getHTTP1(ctx context.Context, port int, path string) ([]byte, int64, error) {
	return getOver(ctx, new(net.Dialer).DialContext, port, path)
}

// getHTTPS is getHTTP1 over TLS.
func getHTTPS(ctx context.Context, port int, path string) ([]byte, int64, error) {
	dialer := tls.Dialer{Config: clientTLS(nil)}
	return getOver(ctx, dialer.DialContext, port, path)
}

func getOver(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), port int, path string) ([]byte, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, 0, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, address); err != nil {
		return nil, 0, err
	}
	counted := counter{Reader: conn}
	response, err := http.ReadResponse(bufio.NewReader(&counted), nil)
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
	return body, counted.read, nil
}
