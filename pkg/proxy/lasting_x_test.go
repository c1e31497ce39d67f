package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// counted is a client of a version that counts the connections it makes.
func (v version) counted(t *testing.T) (c *http.Client, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	transport := &http.Transport{Protocols: v.only(), DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		n++
		mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestConnectionEndsWithItsLastRequestAndNoneFails(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			r := startWith(t, func(c *proxy.Config) { c.MaxRequestsPerConnection = 5 },
				[]string{backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) })})
			c, connections := v.counted(t)
			for n := range 50 {
				if a, _ := do(t, c, newRequest(t, "GET", "http://"+r.addr, nil)); a.StatusCode != 200 || a.Close != (v.name == "HTTP/1.1" && n%5 == 4) {
					t.Fatalf("request %d: %d, close %t", n, a.StatusCode, a.Close)
				}
			}
			// HTTP/2 goes on until the client has heard of the end.
			if n := connections(); n < 3 || n > 10 || v.name == "HTTP/1.1" && n != 10 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestConnectionThatIsTooOldEndsAndNoRequestFails(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			r := startWith(t, func(c *proxy.Config) { c.MaxConnectionDuration = 300 * time.Millisecond },
				[]string{backend(t, func(http.ResponseWriter, *http.Request) {})})
			c, connections := v.counted(t)
			for began := time.Now(); time.Since(began) < patience && connections() < 3; {
				if a, _ := do(t, c, newRequest(t, "GET", "http://"+r.addr, nil)); a.StatusCode != 200 {
					t.Fatal(a.Status)
				}
				time.Sleep(5 * time.Millisecond)
			}
			if n := connections(); n < 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}
