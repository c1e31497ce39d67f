package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
)

const herald = "PROXY TCP4 192.0.2.1 198.51.100.2 1234 80\r\n"

// wantClosed wants the connection to be closed by the server, without an answer.
func wantClosed(t *testing.T, nc net.Conn) {
	t.Helper()
	_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("%d bytes, %v, want the end", n, err)
	}
}

func heraldedRig(t *testing.T, change func(*proxy.Config)) (*rig, *metrics.Registry) {
	t.Helper()
	registry := metrics.New(metrics.Config{})
	r := startWith(t, func(c *proxy.Config) {
		c.ProxyProtocol = true
		c.Unrouted = metrics.NewProxy(registry, reason.Codes()).Destination("test", "unknown")
		change(c)
	}, []string{backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })})
	return r, registry
}

func TestAConnectionBehindItsHeaderSpeaksWhatItLikes(t *testing.T) {
	r, _ := heraldedRig(t, func(*proxy.Config) {})
	t.Run("HTTP/1", func(t *testing.T) {
		c := r.dial()
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, herald+"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "/a" {
			t.Errorf("%q, %v", b, err)
		}
		_ = resp.Body.Close()
	})
	t.Run("HTTP/2", func(t *testing.T) {
		c := r.dial()
		if _, err := io.WriteString(c, herald); err != nil {
			t.Fatal(err)
		}
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://a/b", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "/b" || resp.ProtoMajor != 2 {
			t.Errorf("%q, %v", b, err)
		}
		_ = resp.Body.Close()
	})
}

func TestAConnectionWithoutItsHeaderIsClosedUnanswered(t *testing.T) {
	r, registry := heraldedRig(t, func(c *proxy.Config) { c.PrefaceTimeout = 100 * time.Millisecond })
	for _, first := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "PROXY", "PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n"} {
		c := r.dial()
		if _, err := io.WriteString(c, first); err != nil {
			t.Fatal(err)
		}
		wantClosed(t, c)
		_ = c.Close()
	}
	gone := r.dial() // a check whether somebody listens
	_ = gone.Close()
	for until := time.Now().Add(20 * time.Second); r.server.Connections() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("a connection is left")
		}
	}
	samples, err := registry.Samples()
	if err != nil {
		t.Fatal(err)
	}
	refused := 0.0
	for _, s := range samples {
		for _, l := range s.Labels {
			if s.Name == "fairlead_requests_total" && l.Value == "bad_preface" {
				refused += s.Value
			}
		}
	}
	if refused != 4 {
		t.Errorf("%v are counted as without a header", refused)
	}
}

func TestThoseWhoseHeaderIsWaitedForMakeRoomAndEndWithADrain(t *testing.T) {
	r, _ := heraldedRig(t, func(c *proxy.Config) { c.MaxConnections = 2 })
	first, second, third := r.dial(), r.dial(), r.dial()
	wantClosed(t, first)
	_ = first.Close()
	drained := make(chan int, 1)
	go func() { drained <- r.server.Drain(context.Background()) }()
	for _, c := range []net.Conn{second, third} {
		wantClosed(t, c)
		_ = c.Close()
	}
	if cut := <-drained; cut != 0 {
		t.Errorf("%d had to be cut off", cut)
	}
}
