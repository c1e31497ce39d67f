package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// refuser is an instance that answers a request's head with 413 at once, and reads no
// more until the channel is closed.
func refuser(t *testing.T, until <-chan struct{}) string {
	return listener(t, func(nc net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(nc)); err == nil {
			_, _ = io.WriteString(nc, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			<-until
		}
	})
}

// wantStatus reads an answer without a body.
func wantStatus(t *testing.T, in *bufio.Reader, status int) {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != status {
		t.Fatalf("status %d", resp.StatusCode)
	}
}

// An instance may answer before it has the whole body: what is on the way is waited for.
func TestAnswerBeforeTheEndOfTheBodyLeavesTheConnectionToTheNextRequest(t *testing.T) {
	r := start(t, []string{listener(t, func(nc net.Conn) {
		for in := bufio.NewReader(nc); ; {
			q, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, q.Body)
		}
	})})
	for range 20 { // this machine may be slower than the grace
		nc := r.dial()
		in := bufio.NewReader(nc)
		_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(nc, "world")
		wantStatus(t, in, 200)
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, err := http.ReadResponse(in, nil); err == nil {
			_ = resp.Body.Close()
			return
		}
	}
	t.Error("the connection ends each time")
}

// What a client goes on to send behind an answer that did not say that the connection ends is read
// away, for there may be a next request behind it.
func TestNextRequestIsAnsweredBehindALargeBodyThatTheInstanceDidNotWant(t *testing.T) {
	body := strings.Repeat("x", 3_000_000)
	for _, out := range versions {
		for _, framing := range []string{"Content-Length: 3000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n2DC6C0\r\n"} {
			nc := start(t, []string{out.backend(t, func(w http.ResponseWriter, q *http.Request) {
				if q.Method == "POST" {
					w.Header().Set("Connection", "close") // or HTTP/1.1 would read the body away
					_ = http.NewResponseController(w).EnableFullDuplex()
				}
				w.Header().Set("Content-Length", "2")
				_, _ = io.WriteString(w, "ok")
			})}, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol }).dial()
			in := bufio.NewReader(nc)
			answered := func() {
				a, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatalf("to %s: %v", out.name, err)
				}
				if b, err := io.ReadAll(a.Body); string(b) != "ok" || err != nil || a.Close {
					t.Fatalf("to %s: %d %q, %v, close %t", out.name, a.StatusCode, b, err, a.Close)
				}
			}
			_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\n"+framing+"x")
			answered()
			rest := body[1:]
			if strings.Contains(framing, "chunked") {
				rest += "\r\n0\r\n\r\n"
			}
			go func() { _, _ = io.WriteString(nc, rest+"GET / HTTP/1.1\r\nHost: a\r\n\r\n") }()
			answered()
		}
	}
}

func TestAnswerReachesAClientWhoseBodyTheInstanceDoesNotTake(t *testing.T) {
	answered := make(chan struct{})
	nc := start(t, []string{refuser(t, answered)}).dial()
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
		for p := make([]byte, 64<<10); ; {
			if _, err := nc.Write(p); err != nil {
				return
			}
		}
	}()
	defer func() { close(answered); _ = nc.Close(); <-sending }()
	wantStatus(t, bufio.NewReader(nc), 413)
}

// A client that sends on behind an instance's answer must not lose it to a reset
// (RFC 9112 §9.6).
func TestClientThatIsStillSendingIsNotResetBehindAnInstancesAnswer(t *testing.T) {
	answered := make(chan struct{})
	nc := start(t, []string{refuser(t, answered)}).dial()
	defer close(answered)
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 1000))
	in := bufio.NewReader(nc)
	wantStatus(t, in, 413)
	if _, err := io.WriteString(nc, strings.Repeat("x", 300_000)); err != nil {
		t.Errorf("sending on: %v", err)
	}
	_ = nc.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Errorf("the connection ended with %v", err)
	}
}

func TestWhatCameWithAMalformedChunkIsPassedOn(t *testing.T) {
	r := start(t, []string{speaker(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")}, withoutBreaker)
	if got := r.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.Contains(got, "hello") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("%q", got)
	}
}

func TestClientOfHTTP10GetsNoInterimResponse(t *testing.T) {
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
	for name, pieces := range map[string][]string{"at once": {hints + ok}, "before": {hints, ok}} {
		got := start(t, []string{speaker(t, pieces...)}).raw("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") || strings.Contains(got, " 103 ") || !strings.HasSuffix(got, "ok") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestConnectionThatTheInstanceMeansToEndIsNotUsedAgain(t *testing.T) {
	var second atomic.Bool
	r := start(t, []string{listener(t, func(nc net.Conn) {
		for in, n := bufio.NewReader(nc), 0; ; n++ {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			if n > 0 {
				second.Store(true)
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		}
	})})
	for range 3 {
		if resp, got := r.do("GET", "/", nil); resp.StatusCode != 200 || got != "ok" || resp.Close {
			t.Errorf("status %d, %q, close %t", resp.StatusCode, got, resp.Close)
		}
	}
	if second.Load() {
		t.Error("it was used again")
	}
}

// The head said that the connection goes on, before there was a drain.
func TestDrainInTheMiddleOfAResponseEndsItsConnectionBehindIt(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	r := start(t, []string{backend(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		close(begun)
		<-release
		_, _ = io.WriteString(w, "two")
	})})
	nc := r.dial()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	in := bufio.NewReader(nc)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan int)
	go func() { drained <- r.server.Drain(context.Background()) }()
	refused(t, r)
	close(release)
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.Close || string(got) != "onetwo" || err != nil {
		t.Errorf("%q, %v, close %t", got, err, resp.Close)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection does not end: %v", err)
	}
	_ = nc.Close()
	<-drained
}

// silent is an address that takes no connection and refuses none: its queue is full.
func silent(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}).String()
	for range 16 {
		nc, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = nc.Close() })
	}
	t.Skip("the kernel queues without bound")
	return ""
}

func TestTimeoutOfARequestEndsItsWaitForAConnection(t *testing.T) {
	r := start(t, []string{silent(t)}, timeout(200*time.Millisecond),
		func(c *mesh.Cluster, _ *mesh.Route) { c.ConnectTimeout = time.Minute })
	resp, _ := r.do("GET", "/", nil)
	if resp.StatusCode != 504 || resp.Header.Get("fairlead-reason") != "request_timeout" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestLogTellsTheBytesOfABodyThatCameBehindItsHead(t *testing.T) {
	o := observe(t, unchanged, []string{backend(t, size)})
	nc := o.dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhel")
	time.Sleep(50 * time.Millisecond) // so that the request is under way
	_, _ = io.WriteString(nc, "lo")
	time.Sleep(50 * time.Millisecond)
	_, _ = io.WriteString(nc, "world")
	if _, err := io.ReadAll(nc); err != nil {
		t.Fatal(err)
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["bytes_in"] != 10.0 {
		t.Errorf("%v", lines)
	}
}
