package proxy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// dial opens a connection with a bound on everything done to it.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc
}

func TestChunkThatIsMalformedBehindTheHeadIsRefusedWithTheCause(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if _, err := io.Copy(io.Discard, q.Body); err == nil {
			t.Error("half a body was taken for a whole one")
		}
	})
	nc := start(t, []string{addr}, timeout(0)).dial() // nothing else would end the wait for the instance
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	time.Sleep(200 * time.Millisecond) // so that the request is under way
	_, _ = io.WriteString(nc, "zz\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("fairlead-reason") != "bad_request" || !resp.Close {
		t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
	}
}

func TestOwnAnswerDoesNotWaitForABodyThatIsSlow(t *testing.T) {
	r := start(t, []string{deadAddress(t)})
	nc := r.dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
	in := bufio.NewReader(nc)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusServiceUnavailable || err != nil {
		t.Errorf("status %d %q, %v", resp.StatusCode, text, err)
	}
	if resp.Close {
		return // as it may
	}
	_, _ = io.WriteString(nc, "worldGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, err = http.ReadResponse(in, nil); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the next request is answered with %d", resp.StatusCode)
	}
}

func TestInterimResponseThatTheClientDoesNotReadEndsTheExchange(t *testing.T) {
	left := make(chan struct{})
	hints := strings.Repeat("x", 4<<10)
	addr := backend(t, func(w http.ResponseWriter, q *http.Request) {
		defer close(left)
		for q.Context().Err() == nil {
			w.Header().Set("Link", hints)
			w.WriteHeader(http.StatusEarlyHints)
		}
	})
	r := startWith(t, func(c *proxy.Config) { c.StallTimeout = time.Second }, []string{addr}, timeout(0))
	nc := r.dial()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case <-left:
	case <-time.After(30 * time.Second):
		t.Error("it goes on for a client that takes nothing")
	}
}

func TestBrokenResponseIsNotTakenForWholeByAnOldClientThatIsStillSending(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for up, err := l.Accept(); err == nil; up, err = l.Accept() {
			if _, err := http.ReadRequest(bufio.NewReader(up)); err == nil {
				_, _ = io.WriteString(up, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhalf of\r\n")
			}
			_ = up.Close()
		}
	}()
	nc := start(t, []string{l.Addr().String()}).dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello")
	if got, err := io.ReadAll(nc); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q and then %v, want a reset", got, err)
	}
}

func TestIdleConnectionsDoNotShutOthersOut(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := startWith(t, func(c *proxy.Config) { c.MaxConnections = 3 }, []string{backend(t, func(_ http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/wait" {
			entered <- struct{}{}
			<-release
		}
	})})
	// Two say nothing, the older of them for longer; one is in a request.
	oldest := r.dial()
	for r.server.Connections() < 1 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond)
	younger := r.dial()
	busy := r.dial()
	_, _ = io.WriteString(busy, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered

	const simple = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	third := r.dial()
	wantAnswer(t, third, simple)
	wantEnd(t, oldest)
	wantAnswer(t, younger, simple)

	// Where all are in requests, one more is closed.
	for _, nc := range []net.Conn{third, younger} {
		_, _ = io.WriteString(nc, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
		<-entered
	}
	wantEnd(t, r.dial())
	close(release)
	wantAnswer(t, busy, "")
}

// A client of HTTP/2 may take its time to end a connection that it was told is to end, or not care.
func TestIdleConnectionsOfHTTP2MakeRoomWhetherTheirClientsCareOrNot(t *testing.T) {
	const most = 20
	r := startWith(t, func(c *proxy.Config) { c.MaxConnections = most }, nil)
	first := greeted(t, r)
	for range 20 * most {
		greeted(t, r)
		// One that made room is there until its goroutine has seen that.
		if n := r.server.Connections(); n > 2*most {
			t.Fatalf("there are %d connections, and may be %d", n, most)
		}
	}
	code := first.ending()
	if code != "NO_ERROR" {
		t.Errorf("the first one ends with %s", code)
	}
}

// greeted is a client of HTTP/2 whose settings have been acknowledged.
func greeted(t *testing.T, r *rig) *attacker {
	t.Helper()
	a := r.attack()
	a.flush()
	for {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := f.(*h2.SettingsFrame); ok && s.IsAck() {
			return a
		}
	}
}

// wantAnswer sends a request and wants a good answer to the last one.
func wantAnswer(t *testing.T, nc net.Conn, request string) {
	t.Helper()
	_, _ = io.WriteString(nc, request)
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// wantEnd wants the other side to have closed the connection, without a word.
func wantEnd(t *testing.T, nc net.Conn) {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if n, err := nc.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
