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
// a trace context on each request, a host per backend with a breaker, and metrics.
func verifyFairlead(ctx context.Context, s setting) error {
	trace, _, err := getHTTP1(ctx, s.Listen, "/traceparent")
	if err != nil {
		return err
	}
	if len(trace) == 0 {
		return errors.New("fairlead sends no trace context")
	}
	data, _, err := getHTTP1(ctx, s.Admin, "/clusters?format=json")
	if err != nil {
		return err
	}
	if err := verifyBreakers(data, len(s.Backends)); err != nil {
		return err
	}
	_, _, err = getHTTP1(ctx, s.Admin, "/stats/prometheus")
	return err
}

// verifyBreakers reads the admin port's answer for clusters.
func verifyBreakers(data []byte, backends int) error {
	var clusters []struct {
		Hosts []struct {
			Breaker string `json:"breaker"`
		} `json:"hosts"`
	}
	if err := json.Unmarshal(data, &clusters); err != nil {
		return fmt.Errorf("fairlead's clusters: %w", err)
	}
	closed := 0
	for _, c := range clusters {
		for _, h := range c.Hosts {
			if h.Breaker == "closed" {
				closed++
			}
		}
	}
	if closed != backends {
		return fmt.Errorf("fairlead has %d closed breakers for %d backends", closed, backends)
	}
	return nil
}
