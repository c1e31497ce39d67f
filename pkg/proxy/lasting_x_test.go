package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// counted is a client of a version that counts the connections it makes.
func (v version) counted(t *testing.T) (c *http.Client, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	transport := &http.Transport{Protocols: v.only(), DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		n++
		mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestConnectionEndsWithItsLastRequestAndNoneFails(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			r := startWith(t, func(c *proxy.Config) { c.MaxRequestsPerConnection = 5 },
				[]string{backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) })})
			c, connections := v.counted(t)
			for n := range 50 {
				if a, _ := do(t, c, newRequest(t, "GET", "http://"+r.addr, nil)); a.StatusCode != 200 || a.Close != (v.name == "HTTP/1.1" && n%5 == 4) {
					t.Fatalf("request %d: %d, close %t", n, a.StatusCode, a.Close)
				}
			}
			// HTTP/2 goes on until the client has heard of the end.
			if n := connections(); n < 3 || n > 10 || v.name == "HTTP/1.1" && n != 10 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestConnectionThatIsTooOldEndsAndNoRequestFails(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			r := startWith(t, func(c *proxy.Config) { c.MaxConnectionDuration = 300 * time.Millisecond },
				[]string{backend(t, func(http.ResponseWriter, *http.Request) {})})
			c, connections := v.counted(t)
			for began := time.Now(); time.Since(began) < patience && connections() < 3; {
				if a, _ := do(t, c, newRequest(t, "GET", "http://"+r.addr, nil)); a.StatusCode != 200 {
					t.Fatal(a.Status)
				}
				time.Sleep(5 * time.Millisecond)
			}
			if n := connections(); n < 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// Clients that began together, as behind a restart, would else come back together. The clock stands
// but where the test moves it.
func TestConnectionsThatBeganTogetherEndApart(t *testing.T) {
	const (
		n   = 64
		age = 100 * time.Millisecond
	)
	for _, v := range versions {
		for name, c := range map[string]struct {
			jitter              int32
			first, between, all time.Duration // none has ended before first, some at between, every one at all
		}{
			"where nothing is said": {mesh.DefaultConnectionJitter, age * 90 / 100, age * 95 / 100, age},
			"by a half":             {50, age, age * 125 / 100, age * 150 / 100},
			"by nothing":            {0, age, 0, age},
		} {
			t.Run(v.name+" "+name, func(t *testing.T) {
				var now, reads atomic.Int64
				now.Store(int64(time.Hour))
				r := startWith(t, func(config *proxy.Config) {
					config.MaxConnectionDuration, config.MaxConnectionJitter = age, c.jitter
					config.Clock = func() int64 { reads.Add(1); return now.Load() }
				}, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
				clients := make(map[*http.Client]bool) // those whose connection is open
				for range n {
					client := v.client(t)
					serveOK(t, client, r.addr)
					clients[client] = true
				}
				// ended returns how many have, at a time: of HTTP/1.1 with a request, of HTTP/2 by
				// themselves, once the watchdog has looked.
				ended := func(at time.Duration) int {
					now.Store(int64(time.Hour + at))
					if v.name == "HTTP/1.1" {
						for client := range clients {
							if a, _ := do(t, client, newRequest(t, "GET", "http://"+r.addr, nil)); a.Close {
								delete(clients, client)
							}
						}
						return n - len(clients)
					}
					for before := reads.Load(); reads.Load() < before+2; { // nobody else reads it
						time.Sleep(time.Millisecond)
					}
					return n - r.server.Connections()
				}
				if got := ended(c.first - 1); got != 0 {
					t.Errorf("%d have ended too soon", got)
				}
				if c.between > 0 {
					got := 0
					for deadline := time.Now().Add(patience); got == 0 && time.Now().Before(deadline); {
						got = ended(c.between)
					}
					if got == 0 || got == n {
						t.Errorf("%d of %d have ended", got, n)
					}
				}
				got := 0
				for deadline := time.Now().Add(patience); got < n && time.Now().Before(deadline); {
					got = ended(c.all)
				}
				if got != n {
					t.Errorf("%d of %d have ended when the last one is to", got, n)
				}
			})
		}
	}
}

// RFC 9112 §9.6: "If the server receives additional data from the client on a fully closed connection, such
// as another request sent by the client before receiving the server's response, the server's TCP stack will
// send a reset packet", and the client loses what it has not read of the last response.
func TestTheLastAnswerOfAConnectionComesWhateverItsClientHasSentBehindTheRequest(t *testing.T) {
	const size = 300_000 // more than a client has before it reads
	r := startWith(t, func(c *proxy.Config) { c.MaxRequestsPerConnection = 2 },
		[]string{backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", size)) })})
	for range 20 {
		c := dialRaw(t, r.addr)
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 4000))
			sent <- err
		}()
		in := bufio.NewReader(c)
		for n := range 2 {
			a, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.Copy(io.Discard, a.Body); got != size || err != nil || a.Close != (n == 1) {
				t.Fatalf("answer %d: %d bytes, close %t, %v", n, got, a.Close, err)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Fatalf("the connection ends with %v", err)
		}
		_ = c.Close()
	}
}
