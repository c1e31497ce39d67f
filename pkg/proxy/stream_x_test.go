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
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
)

// listener calls serve with each connection to an address, until the test ends.
func listener(t *testing.T, serve func(nc net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = nc.Close() }()
				serve(nc)
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// speaker is an instance that reads a request's head, says the pieces of an answer with
// a pause between them, and closes.
func speaker(t *testing.T, pieces ...string) string {
	return listener(t, func(nc net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(nc)); err != nil {
			return
		}
		for i, p := range pieces {
			if i > 0 {
				time.Sleep(50 * time.Millisecond)
			}
			_, _ = io.WriteString(nc, p)
		}
	})
}

func TestBodyIsPassedOnAsItComes(t *testing.T) {
	pieces := make(chan string)
	nc := start(t, []string{backend(t, func(w http.ResponseWriter, q *http.Request) {
		for p := make([]byte, 100); ; {
			n, err := q.Body.Read(p)
			if n > 0 {
				pieces <- string(p[:n])
			}
			if err != nil {
				break
			}
		}
		_, _ = io.WriteString(w, "whole")
	})}).dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, p := range []string{"one", "two", "three"} {
		_, _ = io.WriteString(nc, strings.Repeat("0", 7)+string(rune('0'+len(p)))+"\r\n"+p+"\r\n")
		select {
		case got := <-pieces:
			if got != p {
				t.Fatalf("the instance got %q, want %q", got, p)
			}
		case <-time.After(patience):
			t.Fatalf("%q waits for what comes behind it", p)
		}
	}
	wantAnswer(t, nc, "0\r\n\r\n")
}

func TestBodyMayTakeLongerThanAClientMayStall(t *testing.T) {
	r := startWith(t, func(c *proxy.Config) { c.StallTimeout = 1500 * time.Millisecond }, []string{backend(t, size)})
	nc := r.dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n")
	for range 19 {
		_, _ = io.WriteString(nc, "x")
		time.Sleep(100 * time.Millisecond)
	}
	wantAnswer(t, nc, "x")
}

func TestConnectionThatIsIdleForTooLongEnds(t *testing.T) {
	r := startWith(t, func(c *proxy.Config) { c.IdleTimeout = 900 * time.Millisecond }, []string{backend(t, size)})
	nc := r.dial()
	wantAnswer(t, nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	wantEnd(t, nc)
}

// endless is a router that never learns a destination.
type endless struct{ begun, ended chan struct{} }

func (endless) Route(_, _ []byte, _ int64) (*table.Entry, reason.Reason, bool) {
	return nil, reason.None, true
}

func (r endless) Await(ctx context.Context, _, _ []byte) (*table.Entry, reason.Reason) {
	close(r.begun)
	select {
	case <-ctx.Done():
		close(r.ended)
	case <-time.After(2 * patience):
	}
	return nil, reason.NotLearnedInTime
}

func TestClientThatLeavesEndsTheWaitForItsDestination(t *testing.T) {
	router := endless{make(chan struct{}), make(chan struct{})}
	nc := startWith(t, func(c *proxy.Config) { c.Router = router }, []string{deadAddress(t)}).dial()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-router.begun
	_ = nc.Close()
	select {
	case <-router.ended:
	case <-time.After(patience):
		t.Error("nobody is there any more, and it goes on waiting")
	}
}

// A client that sends on while it is refused must not lose the refusal to a reset
// (RFC 9112 §9.6).
func TestClientThatIsStillSendingIsNotReset(t *testing.T) {
	nc := start(t, []string{deadAddress(t)}, withoutBreaker).dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 100_000))
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if _, err := io.WriteString(nc, strings.Repeat("x", 300_000)); err != nil {
		t.Errorf("sending on: %v", err)
	}
	_ = nc.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(io.Discard, nc); err != nil {
		t.Errorf("the connection ended with %v", err)
	}
}

func TestRefusalBeforeTheBodySaysThatTheConnectionEnds(t *testing.T) {
	nc := start(t, []string{listener(t, func(nc net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(nc)); err == nil {
			_, _ = io.WriteString(nc, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, nc)
		}
	})}).dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 413 || !resp.Close {
		t.Errorf("status %d, close %t: whether the body follows, nobody knows", resp.StatusCode, resp.Close)
	}
}

func TestWhatCameOfABrokenResponseIsPassedOn(t *testing.T) {
	r := start(t, []string{speaker(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")}, withoutBreaker)
	for range 20 {
		nc := r.dial()
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(got) != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestEachAttemptSaysOnceThatASidecarCalls(t *testing.T) {
	var seen atomic.Int64
	got := make(chan []string, 2)
	r := start(t, []string{backend(t, func(_ http.ResponseWriter, q *http.Request) {
		got <- q.Header.Values("Fairlead-Peer")
		if seen.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
	})}, withoutBreaker, behindSidecars)
	if resp, _ := r.do("GET", "/", nil); resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	for n := range 2 {
		if fields := <-got; len(fields) != 1 {
			t.Errorf("attempt %d: %q", n, fields)
		}
	}
}

func TestRetryThatNoHostMayHaveIsToldByWhatWentWrongFirst(t *testing.T) {
	app, _ := dying(t)
	r := start(t, []string{app}, func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
	})
	if resp, _ := r.do("GET", "/", nil); resp.StatusCode != 502 || resp.Header.Get("fairlead-reason") != "upstream_reset" {
		t.Errorf("%d %s", resp.StatusCode, resp.Header.Get("fairlead-reason"))
	}
}

// Who is told that nothing was delivered may take it that nothing was done.
func TestRetryThatReachesNobodyDoesNotHideThatTheFirstAttemptDid(t *testing.T) {
	app, _ := dying(t)
	r := start(t, []string{app, deadAddress(t)}, withoutBreaker)
	for range 20 {
		if resp, _ := r.do("PUT", "/", nil); resp.StatusCode != 502 || resp.Header.Get("fairlead-reason") != "upstream_reset" {
			t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("fairlead-reason"))
		}
	}
}

// Who counts attempts, as the coordinator of sagas does, has to know of each.
func TestARequestThatSaysWhichAttemptItIsIsNotRepeatedOnceItMayHaveBeenActedUpon(t *testing.T) {
	app, seen := dying(t)
	r := start(t, []string{app}, withoutBreaker)
	for i, name := range []string{"Saga-Attempt", "saga-attempt"} {
		resp, _ := r.do("PUT", "/", nil, func(q *http.Request) { q.Header[name] = []string{"1"} })
		if resp.StatusCode != 502 || resp.Header.Get("fairlead-reason") != "upstream_reset" || seen.Load() != int64(i+1) {
			t.Errorf("%d %s, the application has seen %d", resp.StatusCode, resp.Header.Get("fairlead-reason"), seen.Load())
		}
	}
}

// Connections that are left of an instance which was restarted break all at once.
func TestRetryTrustsNoIdleConnection(t *testing.T) {
	var restarted atomic.Bool
	both := make(chan struct{}, 2)
	r := start(t, []string{listener(t, func(nc net.Conn) {
		old := !restarted.Load()
		for in := bufio.NewReader(nc); ; {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			if old && restarted.Load() {
				_ = nc.(*net.TCPConn).SetLinger(0)
				return
			}
			if old {
				both <- struct{}{}
				for len(both) < 2 { // so that there are two connections
					time.Sleep(time.Millisecond)
				}
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})}, withoutBreaker)
	one, two := r.dial(), r.dial()
	_, _ = io.WriteString(one, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	wantAnswer(t, two, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	wantAnswer(t, one, "")
	restarted.Store(true)
	wantAnswer(t, one, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
}

func TestRequestBeyondTheClustersLimitIsRefusedWithItsReason(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, []string{backend(t, func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	})}, func(c *mesh.Cluster, _ *mesh.Route) { c.MaxRequests = 1 })
	nc := r.dial()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	resp, _ := r.do("GET", "/", nil)
	close(release)
	wantAnswer(t, nc, "")
	if resp.StatusCode != 503 || resp.Header.Get("fairlead-reason") != "request_limit" {
		t.Errorf("%d %s", resp.StatusCode, resp.Header.Get("fairlead-reason"))
	}
}

// An answer that nobody asked for must not be taken for that to the next request.
func TestAnswerThatWasNotAskedForIsNobodys(t *testing.T) {
	for name, pieces := range map[string][]string{
		"at once":   {ok + poison},
		"afterward": {ok, poison},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, []string{listener(t, func(nc net.Conn) {
				for in := bufio.NewReader(nc); ; {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					for _, p := range pieces {
						_, _ = io.WriteString(nc, p)
						time.Sleep(20 * time.Millisecond)
					}
				}
			})}, withoutBreaker)
			for range 3 {
				if resp, got := r.do("GET", "/", nil); resp.StatusCode != 200 || got != "ok" {
					t.Fatalf("%d %q", resp.StatusCode, got)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
}

const (
	ok     = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
)

func TestSpellingOfFieldNamesIsKept(t *testing.T) {
	got := make(chan string, 1)
	r := start(t, []string{listener(t, func(nc net.Conn) {
		in, head := bufio.NewReader(nc), ""
		for !strings.HasSuffix(head, "\r\n\r\n") {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			head += line
		}
		got <- head
		_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nX-rEsPoNsE: B\r\ncontent-LENGTH: 0\r\n\r\n")
	})})
	answer := r.raw("GET / HTTP/1.1\r\nHost: a\r\nx-ReQuEsT: A\r\nCOOKIE: c=1\r\nConnection: close\r\n\r\n")
	head := <-got
	for text, fields := range map[string][]string{head: {"x-ReQuEsT: A\r\n", "COOKIE: c=1\r\n"}, answer: {"X-rEsPoNsE: B\r\n"}} {
		for _, field := range fields {
			if !strings.Contains(text, field) {
				t.Errorf("%q is not in %q", field, text)
			}
		}
	}
}

// tooMuch is more than the buffers of the kernel on both sides of the proxy take.
const tooMuch = 64 << 20

// halts waits until a count does not grow any more, and wants that to be soon.
func halts(t *testing.T, count *atomic.Int64) {
	t.Helper()
	for last := int64(-1); ; time.Sleep(300 * time.Millisecond) {
		now := count.Load()
		if now > tooMuch {
			t.Fatalf("%d bytes were taken of somebody whom nobody reads", now)
		}
		if now > 0 && now == last {
			return
		}
		last = now
	}
}

func TestInstanceIsHeldBackByAClientThatDoesNotRead(t *testing.T) {
	var sent atomic.Int64
	nc := start(t, []string{backend(t, func(w http.ResponseWriter, _ *http.Request) {
		for p := make([]byte, 64<<10); ; {
			n, err := w.Write(p)
			if sent.Add(int64(n)); err != nil || sent.Load() > tooMuch {
				return
			}
		}
	})}).dial()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	halts(t, &sent)
	_ = nc.Close()
}

func TestClientIsHeldBackByAnInstanceThatDoesNotRead(t *testing.T) {
	release := make(chan struct{})
	nc := start(t, []string{backend(t, func(http.ResponseWriter, *http.Request) { <-release })}).dial()
	var sent atomic.Int64
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
		for p := make([]byte, 64<<10); sent.Load() <= tooMuch; {
			n, err := nc.Write(p)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}()
	halts(t, &sent)
	_ = nc.Close()
	close(release)
	<-sending
}
