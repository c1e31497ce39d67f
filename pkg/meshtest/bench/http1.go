package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

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

// probeHTTP1 sends the request that the load sends, so that the bytes of the
// response, head included, are those of the load's responses.
func probeHTTP1(ctx context.Context, port int, w workload) (int64, error) {
	body, size, err := getHTTP1(ctx, port, w.path())
	if err != nil {
		return 0, err
	}
	if len(body) != w.body {
		return 0, fmt.Errorf("the response has %d bytes, not %d", len(body), w.body)
	}
	return size, nil
}

// getHTTP1 returns the body of a response and the bytes of all of it.
func getHTTP1(ctx context.Context, port int, path string) ([]byte, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
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

// verifyFairlead asks the running sidecar for what its figures are said to include:
// a trace context on each request, requests balanced over the backends with a breaker
// for each, and metrics.
func verifyFairlead(ctx context.Context, s setting) error {
	trace, _, err := getHTTP1(ctx, s.Listen, "/traceparent")
	if err != nil {
		return err
	}
	if len(trace) == 0 {
		return errors.New("it sends no trace context")
	}
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
	return verifyMetrics(metrics)
}

// verifyHosts reads the admin port's answer for clusters. One backend has at most
// twice the requests of another: they are balanced in turn.
func verifyHosts(data []byte, backends int) error {
	var answer struct {
		Clusters []struct {
			Hosts []struct {
				Breaker  string `json:"breaker"`
				Requests uint64 `json:"rq_total"`
				Failures uint64 `json:"rq_error"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return fmt.Errorf("its clusters: %w", err)
	}
	if len(answer.Clusters) != 1 || len(answer.Clusters[0].Hosts) != backends {
		return fmt.Errorf("it has not the %d backends in one cluster: %s", backends, data)
	}
	hosts := answer.Clusters[0].Hosts
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
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "fairlead_requests_total{") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			return nil
		}
	}
	return errors.New("its metrics have counted no request")
}
