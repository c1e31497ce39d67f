package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
)

const (
	// maxHeaderBytes bounds the head of an answer, informational ones included.
	maxHeaderBytes = 16 << 10
	// maxQuoted is how much of a failing answer's body goes into the detail.
	maxQuoted = 128
)

// userAgent lets the app tell checks from requests in its log.
const userAgent = "fairlead-health"

// HTTP returns a probe that is well if GET http://address/path is answered with
// a status of 200 to 399: the rule of Kubernetes' httpGet probes. Envoy takes
// 200 only. A redirect is therefore a success and is not followed: it shows that
// the app answers, while its target may be anywhere.
//
// Each check opens a connection of its own, since one that is kept open says
// nothing about whether the app still accepts. It never goes through a proxy,
// whatever the environment says: the app's HTTP_PROXY is likely this sidecar.
//
// address is host:port; path begins with a slash and may have a query. The Host
// field of the request is address.
func HTTP(address, path string) (Probe, error) {
	if err := checkAddress(address); err != nil {
		return nil, fmt.Errorf("http health check: %w", err)
	}
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "#") {
		return nil, fmt.Errorf("http health check: path %q: want a path such as /healthz", path)
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("http health check: path %q: want a path such as /healthz: %w", path, err)
	}
	request.Header.Set("User-Agent", userAgent)
	transport := &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	return func(ctx context.Context) error {
		// The transport itself, not a client: no redirects, no cookies.
		response, err := transport.RoundTrip(request.Clone(ctx))
		if err != nil {
			return plain(err)
		}
		// Without keep-alive, Close closes the connection and reads nothing.
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode >= 200 && response.StatusCode < 400 {
			return nil
		}
		return statusError(response)
	}, nil
}

// statusError quotes the beginning of the body, where apps tend to say what is
// wrong. Reading it is bounded by maxQuoted and by the check's timeout.
func statusError(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxQuoted)) // what came before an error will do
	text := strings.TrimSpace(string(body))
	if text == "" {
		return fmt.Errorf("answered with status %d", response.StatusCode)
	}
	return fmt.Errorf("answered with status %d: %s", response.StatusCode, strconv.Quote(text))
}

// TCP returns a probe that is well if a connection to address, host:port, can
// be opened. It sends nothing and closes the connection at once.
func TCP(address string) (Probe, error) {
	if err := checkAddress(address); err != nil {
		return nil, fmt.Errorf("tcp health check: %w", err)
	}
	return func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return plain(err)
		}
		_ = conn.Close() // the answer is known
		return nil
	}, nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: want host:port: %w", address, err)
	}
	if host == "" || strings.ContainsAny(host, "/?#@ ") {
		return fmt.Errorf("address %q: want host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("address %q: want a port from 1 to 65535", address)
	}
	return nil
}

// plain turns the errors that an app at fault causes most often into words.
func plain(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens there: %w", err)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("closed the connection without an answer: %w", err)
	default:
		return err
	}
}
