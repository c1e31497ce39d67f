package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// answering is a server of both protocols; it returns its port.
func answering(t *testing.T) int {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		switch r.URL.Path {
		case "/5":
			_, _ = fmt.Fprint(w, "12345")
		case "/6":
			_, _ = fmt.Fprint(w, "12345")
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

func TestProbeWantsStatusAndBodyAndCountsBytes(t *testing.T) {
	port := answering(t)
	for _, c := range []struct {
		name  string
		get   getter
		bytes string
	}{
		{"HTTP/1.1", getHTTP1, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n12345"},
		{"HTTP/2", getHTTP2, "12345"},
	} {
		probe := probeBy(c.get)
		if n, err := probe(t.Context(), port, workload{body: 5}); err != nil || n != int64(len(c.bytes)) {
			t.Errorf("%s: %d bytes, %v; want %d", c.name, n, err, len(c.bytes))
		}
		if _, err := probe(t.Context(), port, workload{body: 6}); err == nil || !strings.Contains(err.Error(), "5 bytes, not 6") {
			t.Errorf("%s: a short body: %v", c.name, err)
		}
		if _, err := probe(t.Context(), port, workload{body: 7}); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("%s: an error status: %v", c.name, err)
		}
	}
}
