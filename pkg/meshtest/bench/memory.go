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

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

const (
	someIdle = 3_000  // connections whose growth is measured
	manyIdle = 10_000 // connections at the end
	// settled is how long a proxy has to give back what it used for the last requests. A sidecar's connections rest
	// when they have been idle for a second, and what they held is given back when the last of them does.
	settled = 3 * time.Second
)

// memorySuite is what stays resident.
func memorySuite() suite {
	return suite{
		name: "memory", title: "Memory", unit: "resident",
		backend:   nginxProgram("http1/backend.conf"),
		generator: "bench",
		proxies: []proxy{
			fairlead(traceBy(getHTTP1), "http1/fairlead.yaml"),
			nginx("http1/nginx.conf"),
			haproxy("http1/haproxy.cfg"),
			envoy("http1/envoy.yaml"),
		},
		subject: "fairlead", reference: "haproxy", right: "200",
		workloads: []workload{
			{name: "start-MB", body: 100, bars: []bar{{must: 25, aim: 20}}},
			{name: "start-anonymous-MB", body: 100, bars: []bar{{must: 10}}},
			{name: "idle-connection-kB", body: 100, bars: []bar{{must: 6, aim: 3}}},
			{name: "idle-10000-MB", body: 100, bars: []bar{{must: 85, aim: 50}}},
		},
		probe:   probeBy(getHTTP1),
		measure: measureMemory(new(net.Dialer)),
	}
}

// memoryTLSSuite is the same over TLS, as far as it costs few minutes.
func memoryTLSSuite() suite {
	return suite{
		name: "memory-tls", title: "Memory, TLS", unit: "resident",
		backend:   nginxProgram("http1/backend.conf"),
		generator: "bench",
		proxies: []proxy{
			fairlead(traceBy(getHTTPS), "tls/fairlead.yaml"),
			nginx("tls/nginx.conf"),
			haproxy("tls/haproxy.cfg"),
			envoy("tls/envoy.yaml"),
		},
		subject: "fairlead", reference: "haproxy", right: "200",
		workloads:    []workload{{name: "tls-start-MB", body: 100}, {name: "tls-idle-connection-kB", body: 100}},
		probe:        probeBy(getHTTPS),
		probeBackend: probeBy(getHTTP1),
		measure:      measureMemoryTLS,
	}
}

// dialer is a way to connect.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// measureMemory looks at the proxy after its first request, with some idle connections, each after a request, and with many.
func measureMemory(by dialer) func(context.Context, *measurement, running) (map[string]float64, int64, error) {
	return func(ctx context.Context, _ *measurement, r running) (map[string]float64, int64, error) {
		at, requests, err := memoryAt(ctx, by, r, settled, 0, someIdle, manyIdle)
		if err != nil {
			return nil, 0, err
		}
		return map[string]float64{
			"start-MB":           float64(at[0].RSS) / 1e6,
			"start-anonymous-MB": float64(at[0].Anonymous) / 1e6,
			"idle-connection-kB": float64(at[1].RSS-at[0].RSS) / someIdle / 1e3,
			"idle-10000-MB":      float64(at[2].RSS) / 1e6,
		}, requests, nil
	}
}

func measureMemoryTLS(ctx context.Context, _ *measurement, r running) (map[string]float64, int64, error) {
	at, requests, err := memoryAt(ctx, &tls.Dialer{Config: clientTLS(nil)}, r, settled, 0, someIdle)
	if err != nil {
		return nil, 0, err
	}
	return map[string]float64{
		"tls-start-MB":           float64(at[0].RSS) / 1e6,
		"tls-idle-connection-kB": float64(at[1].RSS-at[0].RSS) / someIdle / 1e3,
	}, requests, nil
}

// memoryAt returns what the proxy uses with so many idle connections, each after a request and all of them left alone for
// settled, and how many requests there were. The numbers rise. At the end every connection must bring one more response: none was closed meanwhile.
func memoryAt(ctx context.Context, by dialer, r running, settled time.Duration, numbers ...int) (at []measure.Usage, requests int64, err error) {
	var all idleConns
	defer func() { all.close() }()
	for _, n := range numbers {
		for len(all) < n {
			if err := all.open(ctx, by, r.port); err != nil {
				return nil, 0, fmt.Errorf("connection %d: %w", len(all)+1, err)
			}
		}
		select {
		case <-time.After(settled):
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		u, err := r.usage()
		if err != nil {
			return nil, 0, err
		}
		at = append(at, u)
	}
	for i := range all {
		if err := all[i].request(); err != nil {
			return nil, 0, fmt.Errorf("connection %d, after it was idle: %w", i+1, err)
		}
	}
	return at, 2 * int64(len(all)), nil
}

// idleConns are connections that are kept.
type idleConns []idleConn

type idleConn struct{ net.Conn }

// open adds a connection to the port, and makes its first request.
func (all *idleConns) open(ctx context.Context, by dialer, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := by.DialContext(ctx, "tcp", local(port))
	if err != nil {
		return err
	}
	*all = append(*all, idleConn{conn})
	return idleConn{conn}.request()
}

func (all idleConns) close() {
	for _, c := range all {
		_ = c.Close()
	}
}

// request wants a response.
func (c idleConn) request() error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET /100 HTTP/1.1\r\nHost: %s\r\n\r\n", serverName); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReaderSize(c, 1<<10), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
