package health

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// app answers every connection to the address that it returns with answer,
// which may take as long as it likes; its connection is closed at the end of
// the test at the latest.
func app(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				answer(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return listener.Addr().String()
}

// raw reads a request head and writes s.
func raw(s string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, s)
	}
}

// hang never answers.
func hang(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// endless writes s, then blocks of x until the other side goes away.
func endless(s string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, err := io.WriteString(conn, s)
		for block := strings.Repeat("x", 32<<10); err == nil; {
			_, err = io.WriteString(conn, block)
		}
	}
}

// refused returns an address that nobody listens on.
func refused(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	return listener.Addr().String()
}

// ask gives the probe two seconds, far more than any answer on loopback takes.
func ask(t *testing.T, probe Probe, err error) error {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return probe(ctx)
}

func TestHTTPStatusDecides(t *testing.T) {
	var status atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || r.URL.RawQuery != "full=1" {
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	for code, well := range map[int]bool{
		200: true, 204: true, 299: true, 301: true, 302: true, 304: true, 399: true,
		400: false, 404: false, 429: false, 500: false, 503: false, 599: false,
	} {
		status.Store(int64(code))
		probe, err := HTTP(server.Listener.Addr().String(), "/healthz?full=1")
		if err := ask(t, probe, err); (err == nil) != well {
			t.Errorf("%d: %v", code, err)
		} else if !well && !strings.Contains(err.Error(), strconv.Itoa(code)) {
			t.Errorf("%d: %q does not say so", code, err)
		}
	}
}

func TestHTTPFailureQuotesTheBeginningOfTheBody(t *testing.T) {
	address := app(t, endless("HTTP/1.1 503 Service Unavailable\r\n\r\ndatabase \x1b[31mgone\n"))
	probe, err := HTTP(address, "/")
	err = ask(t, probe, err)
	if err == nil || !strings.HasPrefix(err.Error(), `answered with status 503: "database \x1b[31mgone\nxxx`) {
		t.Fatalf("%v", err)
	}
	if len(err.Error()) > 4*maxQuoted {
		t.Errorf("%d bytes", len(err.Error()))
	}
}

func TestHTTPOpensAConnectionPerCheck(t *testing.T) {
	var opened atomic.Int64
	address := app(t, func(conn net.Conn) {
		opened.Add(1)
		raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(conn)
		hang(conn)
	})
	probe, err := HTTP(address, "/")
	for range 3 {
		if err := ask(t, probe, err); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("%d connections for 3 checks", n)
	}
}

func TestHTTPIgnoresTheProxyOfTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://"+refused(t))
	t.Setenv("http_proxy", "http://"+refused(t))
	probe, err := HTTP(app(t, raw("HTTP/1.1 200 OK\r\n\r\n")), "/")
	if err := ask(t, probe, err); err != nil {
		t.Error(err)
	}
}

func TestHTTPSurvivesAnHostileApp(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(net.Conn)
		want   string // in the error; "": well
	}{
		"body without end":            {endless("HTTP/1.1 200 OK\r\n\r\n"), ""},
		"head without end":            {endless("HTTP/1.1 200 OK\r\nA: "), "exceeded"},
		"informational without end":   {raw("HTTP/1.1 100 Continue\r\n\r\n" + strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: "+strings.Repeat("x", 1000)+"\r\n\r\n", 100)), "exceeded"},
		"upgrade nobody asked for":    {raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "101"},
		"garbage":                     {raw("\x00\xff\x1b[2J garbage\r\n\r\n"), "malformed"},
		"closed without an answer":    {raw(""), "closed the connection"},
		"half a head":                 {raw("HTTP/1.1 200 OK\r\nA: b\r\n"), "closed the connection"},
		"no answer":                   {hang, "deadline exceeded"},
		"an error whose body hangs":   {func(c net.Conn) { raw("HTTP/1.1 500 No\r\n\r\nwait")(c); hang(c) }, `500: "wait"`},
		"a body shorter than it says": {raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			probe, err := HTTP(app(t, c.answer), "/")
			if err != nil {
				t.Fatal(err)
			}
			timeout := 2 * time.Second
			if strings.Contains(name, "hangs") || name == "no answer" {
				timeout = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			err = probe(ctx)
			if c.want == "" && err != nil {
				t.Error(err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestHTTPOverIPv6(t *testing.T) {
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6 loopback")
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}}
	server.Start()
	defer server.Close()
	probe, err := HTTP(listener.Addr().String(), "/")
	if err := ask(t, probe, err); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}

func TestTCPIsWellIfAConnectionOpens(t *testing.T) {
	probe, err := TCP(app(t, hang))
	if err := ask(t, probe, err); err != nil {
		t.Error(err)
	}
}

func TestProbesSayThatNothingListens(t *testing.T) {
	address := refused(t)
	for name, make := range map[string]func() (Probe, error){
		"http": func() (Probe, error) { return HTTP(address, "/") },
		"tcp":  func() (Probe, error) { return TCP(address) },
	} {
		probe, err := make()
		if err := ask(t, probe, err); err == nil || !strings.Contains(err.Error(), "nothing listens") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProbesRefuseWhatIsNoAddressOrPath(t *testing.T) {
	for _, address := range []string{"", "8080", "localhost", ":8080", "localhost:", "localhost:http", "localhost:0", "localhost:65536", "http://localhost:80", "a@b:80", "::1:80"} {
		if _, err := TCP(address); err == nil {
			t.Errorf("TCP took %q", address)
		}
		if _, err := HTTP(address, "/"); err == nil {
			t.Errorf("HTTP took %q", address)
		}
	}
	for _, path := range []string{"", "healthz", "@evil", "/a b\n", "/%zz", "/a#b"} {
		if _, err := HTTP("localhost:80", path); err == nil {
			t.Errorf("HTTP took the path %q", path)
		}
	}
}
