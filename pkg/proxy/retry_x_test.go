package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// The ways in which a body of some bytes follows its head.
var waysToSend = []struct {
	name string
	send func(w io.Writer, method string, body string)
}{
	{"in one piece", func(w io.Writer, method, body string) {
		_, _ = fmt.Fprintf(w, "%s / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", method, len(body), body)
	}},
	{"behind its head", func(w io.Writer, method, body string) {
		_, _ = fmt.Fprintf(w, "%s / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", method, len(body))
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, body)
	}},
	{"with a pause in it", func(w io.Writer, method, body string) {
		half := len(body) / 2
		_, _ = fmt.Fprintf(w, "%s / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", method, len(body), body[:half])
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, body[half:])
	}},
	{"in chunks", func(w io.Writer, method, body string) {
		_, _ = fmt.Fprintf(w, "%s / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", method)
		for len(body) > 0 {
			n := min(4000, len(body))
			_, _ = fmt.Fprintf(w, "%x\r\n%s\r\n", n, body[:n])
			time.Sleep(5 * time.Millisecond)
			body = body[n:]
		}
		_, _ = io.WriteString(w, "0\r\n\r\n")
	}},
}

// size answers with the length of what it was sent.
func size(w http.ResponseWriter, q *http.Request) {
	n, err := io.Copy(io.Discard, q.Body)
	if err != nil {
		n = -1
	}
	_, _ = io.WriteString(w, strconv.FormatInt(n, 10))
}

func TestASecondAttemptHasTheWholeBodyHoweverItCame(t *testing.T) {
	for _, c := range []struct {
		name   string
		method string
		size   int
		fails  func(t *testing.T) []string // the instances, of which one does not answer
		sure   bool                        // an answer comes from the other, else a 502 or 503 may be
	}{
		{"refused connection", "POST", 10, besideDead, true},
		{"refused connection", "POST", 15_000, besideDead, true},
		{"refused connection", "POST", 40_000, besideDead, true},
		{"sidecar without its application", "POST", 10, besideGone, true},
		{"sidecar without its application", "POST", 15_000, besideGone, true},
		{"sidecar without its application", "POST", 40_000, besideGone, false},
		{"application that resets", "PUT", 10, besideDying, true},
		{"application that resets", "PUT", 15_000, besideDying, true},
		{"application that resets", "PUT", 40_000, besideDying, false},
	} {
		for _, way := range waysToSend {
			t.Run(fmt.Sprintf("%s, %s of %d bytes %s", c.name, c.method, c.size, way.name), func(t *testing.T) {
				options := []option{withoutBreaker}
				if !strings.HasPrefix(c.name, "refused") {
					options = append(options, behindSidecars)
				}
				r := start(t, c.fails(t), options...)
				nc := r.dial()
				in := bufio.NewReader(nc)
				const rounds = 6
				for i := range rounds {
					go way.send(nc, c.method, strings.Repeat("x", c.size))
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Fatalf("request %d: %v", i, err)
					}
					got, _ := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if resp.StatusCode == 200 && string(got) != strconv.Itoa(c.size) {
						t.Fatalf("request %d: the instance got %s bytes", i, got)
					}
					if resp.StatusCode == 200 && !resp.Close {
						continue
					}
					if c.sure || resp.StatusCode != 200 && resp.StatusCode != 502 && resp.StatusCode != 503 {
						t.Fatalf("request %d: %d, %v, %q", i, resp.StatusCode, resp.Header, got)
					}
					// Of a body that was not kept, the rest is still on the way.
					nc = r.dial()
					in = bufio.NewReader(nc)
				}
			})
		}
	}
}

func besideDead(t *testing.T) []string { return []string{deadAddress(t), backend(t, size)} }

func besideGone(t *testing.T) []string {
	app, _ := gone(t)
	return []string{inbound(t, app), inbound(t, backend(t, size))}
}

func besideDying(t *testing.T) []string {
	app, _ := dying(t)
	return []string{inbound(t, app), inbound(t, backend(t, size))}
}

func TestRequestIsNotSentAgainOnceTheInstanceHasBegunToAnswer(t *testing.T) {
	var seen atomic.Int64
	addr := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		w.WriteHeader(http.StatusEarlyHints)
		nc, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_ = nc.Close()
	})
	r := start(t, []string{addr})
	if resp, _ := r.do("GET", "/", nil); resp.StatusCode != 502 || seen.Load() != 1 {
		t.Errorf("status %d after %d attempts", resp.StatusCode, seen.Load())
	}
}

// A client that takes its time over its body uses up the request's time: that is no
// fault of the instances, and must not open their breakers.
func TestSlowBodyIsNotHeldAgainstTheInstance(t *testing.T) {
	r := start(t, []string{backend(t, size)}, timeout(600*time.Millisecond), func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
	})
	for range 2 {
		nc := r.dial()
		_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 408 || resp.Header.Get("fairlead-reason") != "body_timeout" || !resp.Close {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
	}
	status := r.set.Clusters()[0].Hosts()[0].Status(0)
	if status.Failures != 0 || status.Breaker.State != breaker.Closed {
		t.Errorf("%d failures, the breaker is %s", status.Failures, status.Breaker.State)
	}
}

// What the first attempt left of the time is too little to blame the second one's host.
func TestRestOfATimeIsNotHeldAgainstTheInstance(t *testing.T) {
	slowReset := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(600 * time.Millisecond)
		nc, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_ = nc.Close()
	})
	healthy := backend(t, func(http.ResponseWriter, *http.Request) { time.Sleep(320 * time.Millisecond) })
	r := start(t, []string{slowReset, healthy}, timeout(800*time.Millisecond), withBreaker)
	for range 4 {
		_, _ = r.do("GET", "/", nil)
	}
	for _, h := range r.set.Clusters()[0].Hosts() {
		if s := h.Status(0); s.Endpoint.Instance == "i1" && s.Failures != 0 {
			t.Errorf("%d failures of %d requests", s.Failures, s.Requests)
		}
	}
}

func withBreaker(c *mesh.Cluster, _ *mesh.Route) {
	c.Breaker = mesh.Breaker{ConsecutiveFailures: 100}
}

func TestRequestBehindOneThatWasSentTwiceIsRead(t *testing.T) {
	for name, fails := range map[string]func(*testing.T) []string{"refused": besideDead, "not delivered": besideGone, "reset": besideDying} {
		t.Run(name, func(t *testing.T) {
			options := []option{withoutBreaker}
			if name != "refused" {
				options = append(options, behindSidecars)
			}
			nc := start(t, fails(t), options...).dial()
			in := bufio.NewReader(nc)
			for range 4 {
				_, _ = io.WriteString(nc, "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
				time.Sleep(10 * time.Millisecond)
				_, _ = io.WriteString(nc, "4\r\ndefg\r\n0\r\nX-Trailer: t\r\n\r\nPUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
				for _, want := range []string{"7", "2"} {
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Fatal(err)
					}
					got, _ := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if resp.StatusCode != 200 || string(got) != want {
						t.Fatalf("%d %q, want %s", resp.StatusCode, got, want)
					}
				}
			}
		})
	}
}

func TestClientThatWaitsForAContinueGetsItFromTheSecondInstance(t *testing.T) {
	for name, fails := range map[string]func(*testing.T) []string{"refused": besideDead, "not delivered": besideGone, "reset": besideDying} {
		t.Run(name, func(t *testing.T) {
			options := []option{withoutBreaker}
			if name != "refused" {
				options = append(options, behindSidecars)
			}
			r := start(t, fails(t), options...)
			for range 4 {
				nc := r.dial()
				in := bufio.NewReader(nc)
				_, _ = io.WriteString(nc, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
				resp, err := http.ReadResponse(in, nil)
				if err != nil || resp.StatusCode != 100 {
					t.Fatalf("%v, %v", resp, err)
				}
				_ = resp.Body.Close()
				_, _ = io.WriteString(nc, "hello")
				if resp, err = http.ReadResponse(in, nil); err != nil {
					t.Fatal(err)
				}
				got, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 200 || string(got) != "5" {
					t.Fatalf("%d %q", resp.StatusCode, got)
				}
			}
		})
	}
}
