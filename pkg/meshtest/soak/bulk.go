package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// bulkResident bounds the resident memory of a sidecar through which large bodies went: that of
// one that has just started, and buffers, which do not grow with bodies.
const bulkResident = 64 << 20

// bulk is what large bodies did.
type bulk struct {
	Kind  string           `json:"kind"`
	Bytes int64            `json:"bytes"`
	Took  time.Duration    `json:"took"`
	Peak  map[string]int64 `json:"peak"` // resident, of each sidecar since its start, in bytes
}

// carryBulk lets bodies of so many bytes go down and up through two sidecars, in each version of
// HTTP.
func carryBulk(ctx context.Context, w *world, bytes int64) ([]bulk, []string, error) {
	var all []bulk
	var faults []string
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		client := httpClient(version == "HTTP/2", nil)
		defer client.CloseIdleConnections()
		for _, up := range []bool{false, true} {
			b := bulk{Kind: version + " down", Bytes: bytes, Peak: map[string]int64{}}
			method, path, body := http.MethodGet, fmt.Sprintf("/bytes?n=%d", bytes), io.Reader(nil)
			if up {
				b.Kind = version + " up"
				method, path, body = http.MethodPost, "/sink", io.LimitReader(new(pattern), bytes)
			}
			began := time.Now()
			if err := carry(ctx, client, method, "http://"+w.clients[0].outbound+path, body, bytes); err != nil {
				return all, faults, fmt.Errorf("%s: %w", b.Kind, err)
			}
			b.Took = time.Since(began)
			for _, s := range append([]sidecar{w.clients[0]}, w.kept...) {
				peak, err := memory(s.process.ID(), "VmHWM")
				if err != nil {
					return all, faults, err
				}
				b.Peak[s.name] = peak
				if peak > bulkResident {
					faults = append(faults, fmt.Sprintf("%s: %d bytes in bodies: %s was at %d bytes resident, more than %d", b.Kind, bytes, s.name, peak, bulkResident))
				}
			}
			all = append(all, b)
		}
	}
	return all, faults, nil
}

// carry sends a request and wants a body of so many bytes, or a sink that has counted them.
func carry(ctx context.Context, client *http.Client, method, url string, body io.Reader, bytes int64) error {
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	r.Host = steady
	a, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("%s (%s)", a.Status, a.Header.Get("fairlead-reason"))
	}
	if method == http.MethodPost {
		var n int64
		if _, err := fmt.Fscan(a.Body, &n); err != nil || n != bytes {
			return fmt.Errorf("%d bytes arrived, %w", n, err)
		}
		return nil
	}
	n, err := io.Copy(io.Discard, a.Body)
	if err == nil && n != bytes {
		err = fmt.Errorf("%d bytes came", n)
	}
	return err
}
