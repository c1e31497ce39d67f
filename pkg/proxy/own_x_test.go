package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// A client that keeps the connection after a refusal has its next request read away
// with the rest of the body.
func TestRefusalSaysThatTheConnectionEndsIfTheBodyIsTooMuchToReadAway(t *testing.T) {
	elsewhere := func(_ *mesh.Cluster, r *mesh.Route) { r.Match.Prefix = "/only" }
	for _, c := range []struct {
		name    string
		framing string
		body    string
		close   bool
	}{
		{"none", "", "", false},
		{"here", "Content-Length: 5\r\n", "hello", false},
		{"to come, but not too much", "Content-Length: 200000\r\n", "", false},
		{"to come and large", "Content-Length: 300000\r\n", "", true},
		{"in chunks, here", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", false},
		{"in chunks, to come", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n", true},
		{"to come when asked for", "Content-Length: 5\r\nExpect: 100-continue\r\n", "", true},
	} {
		for name, option := range map[string]option{"no route": elsewhere, "no connection": withoutBreaker} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				nc := start(t, []string{deadAddress(t)}, option).dial()
				_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\n"+c.framing+"\r\n"+c.body)
				resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode < 400 || resp.Close != c.close {
					t.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
				}
			})
		}
	}
}

func TestAnswerOfTheRouteIsWholeWhateverItsStatusAndMethod(t *testing.T) {
	for _, status := range []int{200, 204, 205, 302, 304, 404, 503} {
		for _, body := range []string{"", "hello"} {
			direct := func(_ *mesh.Cluster, r *mesh.Route) {
				r.Action = mesh.RouteAction{Direct: &mesh.DirectResponse{Status: status, Body: body}}
			}
			r := start(t, []string{deadAddress(t)}, direct)
			for _, method := range []string{"GET", "HEAD", "POST"} {
				nc := r.dial()
				in := bufio.NewReader(nc)
				// The second finds where the first one ends.
				for range 2 {
					_, _ = io.WriteString(nc, method+" / HTTP/1.1\r\nHost: a\r\n\r\n")
					resp, err := http.ReadResponse(in, &http.Request{Method: method})
					if err != nil {
						t.Fatalf("%s, %d, %q: %v", method, status, body, err)
					}
					got, _ := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					without := status == 204 || status == 205 || status == 304
					want, length := body, strconv.Itoa(len(body))
					if without || method == "HEAD" {
						want = ""
					}
					switch status {
					case 204, 304:
						length = ""
					case 205:
						length = "0"
					}
					if resp.StatusCode != status || string(got) != want || resp.Header.Get("Content-Length") != length ||
						(resp.Header.Get("Content-Type") != "") != (body != "" && !without) {
						t.Errorf("%s, %d, %q: status %d, %q, %v", method, status, body, resp.StatusCode, got, resp.Header)
					}
				}
			}
		}
	}
}

func TestHeadThatIsRefusedGetsTheHeadOfTheRefusal(t *testing.T) {
	nc := start(t, []string{deadAddress(t)}, withoutBreaker).dial()
	in := bufio.NewReader(nc)
	for range 2 {
		_, _ = io.WriteString(nc, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(in, &http.Request{Method: "HEAD"})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		at, err := http.ParseTime(resp.Header.Get("Date"))
		if resp.StatusCode != 503 || resp.Header.Get("fairlead-reason") != "connect_failed" || resp.ContentLength <= 0 ||
			err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
		}
	}
}

func TestResponseThatIsWrittenInADrainSaysThatTheConnectionEnds(t *testing.T) {
	for path, status := range map[string]int{"/": 200, "/reset": 502} {
		t.Run(path, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			r := start(t, []string{backend(t, func(w http.ResponseWriter, q *http.Request) {
				close(entered)
				<-release
				if q.URL.Path == "/reset" {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(200)
			})}, withoutBreaker)
			nc := r.dial()
			_, _ = fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", path)
			<-entered
			drained := make(chan int)
			go func() { drained <- r.server.Drain(context.Background()) }()
			refused(t, r)
			close(release)
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != status || !resp.Close {
				t.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
			}
			_ = nc.Close()
			<-drained
		})
	}
}

// refused waits until the server takes no connections any more.
func refused(t *testing.T, r *rig) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			return
		}
		_ = nc.SetDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := nc.Read(make([]byte, 1))
		_ = nc.Close()
		if n == 0 && errors.Is(err, io.EOF) {
			return
		}
	}
	t.Fatal("connections are still taken")
}

func TestInterimResponsesAreStrippedOfWhatIsNotForClients(t *testing.T) {
	app := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		nc, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = buf.WriteString("HTTP/1.1 103 Early Hints\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nLink: a\r\n" +
			"fairlead-reason: forged\r\nfairlead-peer-failure: not_delivered\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_ = buf.Flush()
		_ = nc.Close()
	})
	got := strings.ToLower(start(t, []string{app}).raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
	interim, _, _ := strings.Cut(got, "\r\n\r\n")
	if !strings.HasPrefix(interim, "http/1.1 103 ") || !strings.Contains(interim, "link: a") {
		t.Fatalf("%q", got)
	}
	for _, name := range []string{"x-hop", "keep-alive", "fairlead-reason", "fairlead-peer-failure"} {
		if strings.Contains(interim, name) {
			t.Errorf("%s was passed on: %q", name, interim)
		}
	}
}

func stallsSoon(c *proxy.Config) { c.StallTimeout = 500 * time.Millisecond }

func TestClientThatStopsInTheMiddleOfItsBodyIsToldSoAndEnded(t *testing.T) {
	left := make(chan struct{})
	r := startWith(t, stallsSoon, []string{backend(t, func(_ http.ResponseWriter, q *http.Request) {
		if _, err := io.Copy(io.Discard, q.Body); err == nil {
			t.Error("half a body was taken for a whole one")
		}
		close(left)
	})}, timeout(0), func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
	})
	nc := r.dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
	in := bufio.NewReader(nc)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 408 || resp.Header.Get("fairlead-reason") != "body_timeout" || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection does not end: %v", err)
	}
	<-left
	if s := r.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != 0 {
		t.Errorf("it is held against the instance: %d failures", s.Failures)
	}
}

// Once an answer is under way, it can only be cut off.
func TestAnswerToAClientThatStopsInTheMiddleOfItsBodyIsCutOff(t *testing.T) {
	o := observe(t, stallsSoon, []string{backend(t, func(w http.ResponseWriter, q *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		_, _ = io.Copy(io.Discard, q.Body)
	})}, timeout(0))
	got := o.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
	if strings.Count(got, "HTTP/1.1") != 1 || !strings.Contains(got, "begun") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("%q", got)
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["status"] != 200.0 || lines[0]["reason"] != "body_timeout" {
		t.Errorf("%v", lines)
	}
}

// What the instance takes its time over is not the client's stall.
func TestClientThatHasSentItsBodyMayWaitForLonger(t *testing.T) {
	stalls := func(c *proxy.Config) { c.StallTimeout = time.Second }
	r := startWith(t, stalls, []string{backend(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		time.Sleep(2 * time.Second)
	})}, timeout(0))
	nc := r.dial()
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
	time.Sleep(50 * time.Millisecond) // so that it is still coming in
	wantAnswer(t, nc, "def")
}
