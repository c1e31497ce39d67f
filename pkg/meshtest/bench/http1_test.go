package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestProbeWantsStatusAndBodyAndCountsBytes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	wire := "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n12345"
	if n, err := probeHTTP1(t.Context(), port, workload{body: 5}); err != nil || n != int64(len(wire)) {
		t.Errorf("%d bytes, %v; want %d", n, err, len(wire))
	}
	if _, err := probeHTTP1(t.Context(), port, workload{body: 6}); err == nil || !strings.Contains(err.Error(), "5 bytes, not 6") {
		t.Errorf("a short body: %v", err)
	}
	if _, err := probeHTTP1(t.Context(), port, workload{body: 7}); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("an error status: %v", err)
	}
}

func TestFairleadIsMeasuredOnlyWithItsBreakersAndBalancing(t *testing.T) {
	host := func(breaker string, requests, failures int) string {
		return fmt.Sprintf(`{"breaker":%q,"rq_total":%d,"rq_error":%d}`, breaker, requests, failures)
	}
	for _, c := range []struct{ name, a, b, want string }{
		{"as it should be", host("closed", 1000, 0), host("closed", 1001, 0), ""},
		{"no breaker", host("", 1000, 0), host("closed", 1000, 0), `a breaker is ""`},
		{"an open breaker", host("closed", 1000, 0), host("open", 1000, 9), `a breaker is "open" after 9 failures`},
		{"one backend idle", host("closed", 2000, 0), host("closed", 3, 0), "it does not balance"},
		{"the other one", host("closed", 3, 0), host("closed", 2000, 0), "it does not balance"},
	} {
		err := verifyHosts([]byte(`{"cluster_statuses":[{"host_statuses":[`+c.a+","+c.b+`]}]}`), 2)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, data := range []string{"", "{}", `{"cluster_statuses":[{"host_statuses":[]}]}`} {
		if err := verifyHosts([]byte(data), 2); err == nil {
			t.Errorf("%q passes", data)
		}
	}
}

func TestFairleadIsMeasuredOnlyWithMetrics(t *testing.T) {
	if err := verifyMetrics([]byte("# TYPE fairlead_requests_total counter\nfairlead_requests_total{code=\"200\"} 5\n")); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "# TYPE fairlead_requests_total counter\n", "fairlead_requests_total{code=\"200\"} 0\n"} {
		if err := verifyMetrics([]byte(text)); err == nil {
			t.Errorf("%q passes", text)
		}
	}
}
