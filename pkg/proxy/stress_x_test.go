package proxy_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// relay passes bytes on between its clients and an address, and can cut all connections
// where they are.
type relay struct {
	addr  string
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newRelay(t *testing.T, to string) *relay {
	r := &relay{conns: map[net.Conn]struct{}{}}
	var under sync.WaitGroup
	r.addr = listener(t, func(near net.Conn) {
		far, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns[near], r.conns[far] = struct{}{}, struct{}{}
		r.mu.Unlock()
		under.Add(2)
		pass := func(a, b net.Conn) {
			defer under.Done()
			_, _ = io.Copy(a, b)
			_, _ = a.Close(), b.Close()
		}
		go pass(near, far)
		pass(far, near)
		r.mu.Lock()
		delete(r.conns, near)
		delete(r.conns, far)
		r.mu.Unlock()
	})
	t.Cleanup(func() { r.cut(1); under.Wait() })
	return r
}

// cut closes a share of the connections, some of them with a reset.
func (r *relay) cut(share float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for nc := range r.conns {
		if rand.Float64() < share {
			if rand.IntN(2) == 0 {
				_ = nc.(*net.TCPConn).SetLinger(0)
			}
			_ = nc.Close()
		}
	}
}

// moody is an instance that does what it likes.
func moody(w http.ResponseWriter, q *http.Request) {
	if q.Header.Get("X-Calm") != "" {
		_, _ = io.Copy(w, q.Body)
		return
	}
	switch rand.IntN(8) {
	case 0:
		panic(http.ErrAbortHandler)
	case 1:
		_, _ = io.Copy(io.Discard, q.Body) // only then it learns that a connection of HTTP/1.1 ends
		<-q.Context().Done()
	case 2:
		_, _ = w.Write(make([]byte, 100_000))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case 3:
		w.WriteHeader(http.StatusInternalServerError)
	case 4:
		for range 30 {
			if _, err := w.Write(make([]byte, 10_000)); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Millisecond)
		}
	case 5:
		_, _ = io.Copy(io.Discard, io.LimitReader(q.Body, 1000)) // and leaves the rest
	default:
		_, _ = io.Copy(w, q.Body)
	}
}

func TestNothingIsLeftOfRequestsThatEndInAllWays(t *testing.T) {
	for _, in := range versions {
		for _, out := range versions {
			t.Run(in.name+" to "+out.name, func(t *testing.T) {
				const streams = 100
				instance := newRelay(t, out.backend(t, moody))
				alike := out.backend(t, moody)
				r := start(t, []string{instance.addr, alike}, timeout(300*time.Millisecond), func(c *mesh.Cluster, _ *mesh.Route) {
					c.Protocol = out.protocol
					c.MaxRequests = streams // so that one that is not given back is missed
					c.Breaker = mesh.Breaker{ConsecutiveFailures: 20, OpenTime: 20 * time.Millisecond, MaxOpenTime: 100 * time.Millisecond, Window: time.Second}
				})
				client := newRelay(t, r.addr)
				had := goroutines()

				ctx, stop := context.WithCancel(t.Context())
				var all sync.WaitGroup
				var sent, whole atomic.Int64
				for i := range streams {
					all.Go(func() {
						c := in.client(t)
						if i%10 > 0 { // some have a connection of their own
							c = sharedClient(t, in, i%5)
						}
						for ctx.Err() == nil {
							if ask := oneOfMany(ctx, t, c, client.addr); ask {
								whole.Add(1)
							}
							sent.Add(1)
						}
						c.CloseIdleConnections()
					})
				}
				for range 30 {
					time.Sleep(100 * time.Millisecond)
					client.cut(0.2)
					instance.cut(0.2)
				}
				stop()
				all.Wait()
				t.Logf("%d requests, of which %d were answered whole", sent.Load(), whole.Load())
				for end := time.Now().Add(patience); r.server.Connections() > 0 && time.Now().Before(end); {
					client.cut(1) // one may have been under way to the relay
					time.Sleep(10 * time.Millisecond)
				}
				inFlight(t, map[string]float64{"c": 0}, r.counts)
				nothingLeft(t, r, 0, had)
				if n := r.set.Clusters()[0].Active(); n != 0 {
					t.Errorf("%d attempts are left", n)
				}
				for _, h := range r.set.Clusters()[0].Hosts() {
					if s := h.Status(int64(time.Hour)); s.Active != 0 {
						t.Errorf("host %s has %d requests under way", h.Address(), s.Active)
					}
				}

				// All is as it was: breakers close, and as many requests as may be are answered.
				calm := func() bool {
					for _, h := range r.set.Clusters()[0].Hosts() {
						if h.Status(int64(time.Hour)).Breaker.State != breaker.Closed {
							return false
						}
					}
					return true
				}
				c := in.client(t)
				for end := time.Now().Add(patience); !calm(); {
					calmly(t, c, r.addr)
					if time.Now().After(end) {
						t.Fatal("a breaker stays open")
					}
				}
				// A request is given back a moment after its client has the answer.
				for end := time.Now().Add(20 * time.Second); r.set.Clusters()[0].Active() > 0 && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				for range streams {
					all.Go(func() {
						if status := calmly(t, c, r.addr); status != http.StatusOK {
							t.Errorf("afterwards: %d", status)
						}
					})
				}
				all.Wait()
			})
		}
	}
}

// sharedClients are those that several goroutines of a test use.
var sharedClients sync.Map

func sharedClient(t *testing.T, v version, i int) *http.Client {
	c, loaded := sharedClients.LoadOrStore(fmt.Sprint(t.Name(), i), v.client(t))
	if !loaded {
		t.Cleanup(func() { sharedClients.Delete(fmt.Sprint(t.Name(), i)) })
	}
	return c.(*http.Client)
}

// oneOfMany sends a request of any kind, may give it up, and reports whether it was
// answered whole.
func oneOfMany(ctx context.Context, t *testing.T, c *http.Client, addr string) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if rand.IntN(3) == 0 {
		after := time.AfterFunc(time.Duration(rand.IntN(50))*time.Millisecond, cancel)
		defer after.Stop()
	}
	method, size := "GET", 0
	if rand.IntN(2) == 0 {
		method, size = "POST", []int{10, 20_000, 300_000}[rand.IntN(3)]
	}
	a, err := c.Do(newRequest(t, method, "http://"+addr+"/", strings.NewReader(strings.Repeat("x", size))).WithContext(ctx))
	if err != nil {
		return false
	}
	defer func() { _ = a.Body.Close() }()
	_, err = io.Copy(io.Discard, a.Body)
	return err == nil
}

// calmly sends a request that the instance answers as it should.
func calmly(t *testing.T, c *http.Client, addr string) int {
	q := newRequest(t, "POST", "http://"+addr+"/patient", strings.NewReader("hello"))
	q.Header.Set("X-Calm", "1")
	a, err := c.Do(q)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, a.Body)
	_ = a.Body.Close()
	return a.StatusCode
}
