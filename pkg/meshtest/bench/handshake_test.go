package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// answeringTLS is a server that does full handshakes, and resumes sessions unless it has no tickets.
func answeringTLS(t *testing.T, tickets bool) int {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "12345") }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // listens hangs up on it
	server.TLS = &tls.Config{SessionTicketsDisabled: !tickets}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

func TestHandshakesAreCountedIfTheyAreAsTheyAreToBe(t *testing.T) {
	for _, c := range []struct {
		name             string
		tickets, resumed bool
		want             string
	}{
		{"full", false, false, ""},
		{"full, though it could resume", true, false, ""},
		{"resumed", true, true, ""},
		{"full instead of resumed", false, true, "one was resumed: false"},
	} {
		var out bytes.Buffer
		err := loadHandshakes(t.Context(), []string{"-target", local(answeringTLS(t, c.tickets)), "-connections", "2", fmt.Sprintf("-resumed=%t", c.resumed)}, &out)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v; want %q", c.name, err, c.want)
			}
			continue
		}
		var l load
		if err != nil || json.Unmarshal(out.Bytes(), &l) != nil || l.Requests != 2 || l.check(0, 0) != nil {
			t.Errorf("%s: %+v, %v", c.name, l, err)
		}
	}
}

func TestAProxyIsProbedOverTLS(t *testing.T) {
	if n, err := probeHandshake(t.Context(), answeringTLS(t, true), workload{}); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := probeHandshake(t.Context(), answering(t), workload{}); err == nil {
		t.Error("a server in the clear passes")
	}
}

func TestHandshakesPerCPUSecondAreMoreWhereOneCostsLess(t *testing.T) {
	if got := handshakeSuite().value(500_000, load{Requests: 1000}); got != 2000 {
		t.Error(got)
	}
}
