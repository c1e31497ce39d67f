package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// interimThenFinal reads interim responses from a connection that speaks HTTP/1.1, and the final one.
func interimThenFinal(t *testing.T, from *bufio.Reader, taken chan<- struct{}) (interim int, final *http.Response) {
	t.Helper()
	for {
		a, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatalf("after %d interim responses: %v", interim, err)
		}
		if a.StatusCode >= 200 {
			return interim, a
		}
		interim++
		select {
		case taken <- struct{}{}:
		default: // nobody waits for it
		}
	}
}

// A host could keep a request for ever, and its client busy, with small heads that are no answer.
func TestInterimResponsesAreBoundedTogether(t *testing.T) {
	const enough = 300 // of the smallest, which an upload that goes on for long may be answered with
	hosts := map[string]func(t *testing.T, n int, taken <-chan struct{}) string{
		"HTTP/1.1": func(t *testing.T, n int, _ <-chan struct{}) string {
			return listener(t, func(nc net.Conn) {
				_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
				if _, err := http.ReadRequest(bufio.NewReader(nc)); err != nil {
					return
				}
				for i := 0; i < n || n < 0; i++ {
					if _, err := io.WriteString(nc, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
						return
					}
				}
				_, _ = io.WriteString(nc, "HTTP/1.1 204 No Content\r\n\r\n")
				_, _ = io.Copy(io.Discard, nc)
			})
		},
		"HTTP/2": func(t *testing.T, n int, taken <-chan struct{}) string {
			addr, _ := hostOf(t, nil, func(h *host) {
				h.each(func(id uint32) {
					for i := 0; i < n || n < 0; i++ {
						h.head(id, false, ":status", "102")
						if !h.flush() {
							return
						}
						select { // only so many may lie unread
						case <-taken:
						case <-time.After(30 * time.Second):
						case <-t.Context().Done():
							return
						}
					}
					h.head(id, true, ":status", "204")
				})
			})
			return addr
		},
	}
	for _, v := range versions {
		for name, n := range map[string]int{"without end": -1, "of a bearable number": enough} {
			t.Run(v.name+", "+name, func(t *testing.T) {
				taken := make(chan struct{}, 10_000)
				r := start(t, []string{hosts[v.name](t, n, taken)}, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = v.protocol })
				nc, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = nc.Close() }()
				_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
				if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				interim, final := interimThenFinal(t, bufio.NewReader(nc), taken)
				failures := r.set.Clusters()[0].Hosts()[0].Status(0).Failures
				if n > 0 {
					if final.StatusCode != 204 || interim != n || failures != 0 {
						t.Errorf("%d behind %d interim responses, and %d failures", final.StatusCode, interim, failures)
					}
					return
				}
				body, _ := io.ReadAll(final.Body)
				if final.StatusCode != 502 || final.Header.Get("Fairlead-Reason") != "upstream_protocol" || !strings.Contains(string(body), "interim responses") {
					t.Errorf("%d %v %q", final.StatusCode, final.Header, body)
				}
				if interim < enough || interim > 2000 {
					t.Errorf("%d interim responses were passed on", interim)
				}
				if failures != 1 {
					t.Errorf("%d failures of the host", failures)
				}
			})
		}
	}
}
