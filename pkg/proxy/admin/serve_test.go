package admin

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve runs a server and returns its address, what ends it, and its result.
func serve(t *testing.T) (address string, stop context.CancelFunc, result <-chan error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(sample().config(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, listener) }()
	t.Cleanup(cancel)
	return listener.Addr().String(), cancel, done
}

// answered is what came back for a request.
type answered struct {
	status int
	body   string
}

// send writes s on a new connection and reads the response.
func send(t *testing.T, address, s string) answered {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.WriteString(conn, s) }()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	// A request that was refused before it was read ends with a reset.
	body, _ := io.ReadAll(response.Body)
	return answered{response.StatusCode, string(body)}
}

func TestServeAnswersUntilItsContextEnds(t *testing.T) {
	address, stop, result := serve(t)
	got := send(t, address, "GET /listeners HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if got.status != http.StatusOK || !strings.HasPrefix(got.body, "outbound::") {
		t.Errorf("%+v", got)
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("connections are still taken")
	}
}

func TestAProfileBeingTakenDoesNotHoldUpTheStop(t *testing.T) {
	address, stop, result := serve(t)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /debug/pprof/trace?seconds=3600 HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// The first byte of the trace says that the handler runs.
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Read(make([]byte, 1)) // may come only when the trace ends
	stop()
	select {
	case err := <-result:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server did not stop")
	}
}

func TestServeReturnsTheErrorOfItsListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	if err := server(t, sample().config()).Serve(t.Context(), listener); err == nil || !strings.HasPrefix(err.Error(), "admin: ") {
		t.Error(err)
	}
}

func TestAnOversizedHeadIsRefused(t *testing.T) {
	address, stop, result := serve(t)
	head := "GET /ready HTTP/1.1\r\nHost: localhost\r\nA: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n"
	if got := send(t, address, head); got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", got.status)
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// endless is a body of program counters that counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "0x1+"[e.read%4]
		e.read++
	}
	return len(p), nil
}

func TestABodyIsReadUpToItsBound(t *testing.T) {
	body := &endless{}
	r := httptest.NewRequest(http.MethodPost, "/debug/pprof/symbol", body)
	r.Host = "localhost"
	server(t, sample().config()).handler.ServeHTTP(httptest.NewRecorder(), r)
	// The reader may look one buffer ahead to see that there is more.
	if body.read < maxBodyBytes || body.read > 2*maxBodyBytes {
		t.Errorf("%d bytes were read", body.read)
	}
}
